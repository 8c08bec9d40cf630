"""Files of microscopes' own programs: the reader of each, and its errors as sentences."""

from collections.abc import Callable
from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.io.lazy import OpenedImage


def open_lazily(path: Path, series: int | None = None) -> OpenedImage:
    """Return an image of a microscope's file: the only one if ``series`` is None.

    Raise an RlnError if the file is damaged, of another format, RGB, or has parts that are no
    volumes; if it holds several images and none is chosen; or if its reader is not installed.
    """
    kind, read = _reader(path.suffix.lower())
    if read is None:
        raise RlnError(
            f"{path.name} is a file of {kind}, which cannot be read here; export it as OME-TIFF."
        )
    try:
        return read(path, series)
    except (RlnError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise RlnError(
            f"{path.name} is a file of {kind}, whose reader is not installed; run pip install "
            '"napari-rln[formats]", or export it as OME-TIFF.'
        ) from error
    except Exception as error:  # a damaged file can make a parser raise anything
        raise RlnError(
            f"{path.name} cannot be read as a file of {kind} ({error or type(error).__name__}); it "
            "may be cut short or of another format: copy it again, or export it as OME-TIFF."
        ) from error


def _reader(suffix: str) -> tuple[str, Callable[[Path, int | None], OpenedImage] | None]:
    """Return what writes files of an ending, and their reader, if any."""
    match suffix:
        case ".czi":
            from napari_rln.io import czi

            return "Zeiss ZEN (CZI)", czi.open_lazily
        case ".lif":
            from napari_rln.io import lif

            return "Leica LAS X (LIF)", lif.open_lazily
        case ".nd2":
            from napari_rln.io import nd2_file

            return "Nikon NIS-Elements (ND2)", nd2_file.open_lazily
        case ".oib" | ".oif":
            from napari_rln.io import oif

            return "Olympus FluoView (OIB, OIF)", oif.open_lazily
    return "Olympus cellSens or FluoView (OIR)", None
