"""The version, which the build takes from the repository's tag."""

import importlib.metadata

__version__ = importlib.metadata.version("napari-rln")
