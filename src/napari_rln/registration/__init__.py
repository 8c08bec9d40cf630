"""One volume brought onto the grid of another."""
