"""Volumes on disk, read and written by boxes: OME-Zarr, Zarr, TIFF, folders of planes."""
