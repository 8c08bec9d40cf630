"""Richardson-Lucy deconvolution and what it needs to know of an image."""
