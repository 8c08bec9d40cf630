"""Studies: several methods on the same images, with the numbers and an answer."""
