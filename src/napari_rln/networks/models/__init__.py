"""Models that come with the package; see CARD.md beside them."""
