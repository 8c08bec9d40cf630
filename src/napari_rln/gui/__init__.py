"""The napari half: the only part that may import napari and Qt."""
