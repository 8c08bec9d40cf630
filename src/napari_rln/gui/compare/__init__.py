"""Comparison of layers in napari's canvas."""
