"""Point spread functions: computed, measured from beads, examined and made fit for use."""
