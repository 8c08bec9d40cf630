"""Training data made up from scratch: structures, and what a microscope would see of them."""
