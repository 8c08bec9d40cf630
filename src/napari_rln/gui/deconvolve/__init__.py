"""Dock for deconvolution and comparison."""
