"""``python -m napari_rln`` is ``napari-rln``."""

from napari_rln.cli import main

if __name__ == "__main__":
    main()
