"""Richardson-Lucy deconvolution, calibration of images, and residuals of results."""
