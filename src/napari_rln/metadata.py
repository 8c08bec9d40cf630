"""What a TIFF says about its voxels and how it was made.

A voxel size is believed only where a file states it with a unit: in OME metadata, or in ImageJ's.
Resolution tags of a plain TIFF are printing dots per inch more often than not and are ignored.
"""

from collections.abc import Iterator
from typing import Any

import tifffile

from napari_rln.errors import RlnError
from napari_rln.record import Record
from napari_rln.volume import VoxelUm

RECORD_NAMESPACE = "napari-rln/record"
"""Of the OME map annotation that holds a record."""

_UM_PER_UNIT = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0,
    "microns": 1.0, "micrometer": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "inch": 25400.0,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "nanometer": 1e-3, "picometer": 1e-6,
    "angstrom": 1e-4,
}  # fmt: skip
_TIFFFILE = "1.11a"  # the ImageJ version in files that tifffile wrote

Sizes = list[float | None]


def read_voxel_um(tif: tifffile.TiffFile, series: int, planes: int, name: str) -> VoxelUm:
    """Return the voxel size (z, y, x) in micrometres that a file states.

    Parameters
    ----------
    tif
        An open file.
    series
        Which of its images.
    planes
        How many planes the volume has; one alone needs no step.
    name
        What to call the file in messages.

    Raises
    ------
    RlnError
        If the file does not say it.
    """
    z, y, x = _ome_voxel_um(tif, series) if tif.is_ome else _imagej_voxel_um(tif)
    if planes == 1 and z is None:
        z = y  # a single plane has no step; its depth enters no computation
    if z is None or y is None or x is None:
        raise RlnError(
            f"{name} does not say its voxel size; give it as z y x in micrometres, for instance "
            "0.3 0.13 0.13 (--voxel-um, for a PSF --psf-voxel-um; voxel_um= in Python)."
        )
    return z, y, x


def read_record(tif: tifffile.TiffFile) -> Record | None:
    """Return the record that napari-rln wrote into a file, if any."""
    for text in _ome_records(tif) if tif.is_ome else _imagej_info(tif):
        try:
            return Record.from_json(text)
        except ValueError:  # somebody else's text
            continue
    return None


def _ome_voxel_um(tif: tifffile.TiffFile, series: int) -> Sizes:
    images = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"]
    pixels = (images[series] if isinstance(images, list) else images)["Pixels"]
    sizes: Sizes = []
    for axis in "ZYX":
        size = pixels.get(f"PhysicalSize{axis}")
        factor = um_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(float(size) * factor if size and factor else None)
    return sizes


def _imagej_voxel_um(tif: tifffile.TiffFile) -> Sizes:
    metadata: dict[str, Any] = tif.imagej_metadata or {}
    unit = metadata.get("unit", "")
    z, y, x = (um_per(metadata.get(key, unit)) for key in ("zunit", "yunit", "unit"))
    spacing = metadata.get("spacing")
    if spacing is None and metadata.get("ImageJ") != _TIFFFILE and metadata.get("images", 1) > 1:
        spacing = 1.0  # ImageJ leaves out a step of one unit
    tags = tif.pages.first.tags

    def lateral(factor: float | None, tag: str) -> float | None:
        numerator, denominator = tags[tag].value if tag in tags else (0, 1)
        return factor * denominator / numerator if factor and numerator else None

    return [
        abs(float(spacing)) * z if spacing and z else None,
        lateral(y, "YResolution"),
        lateral(x, "XResolution"),
    ]


def um_per(unit: object) -> float | None:
    """Return the length of a unit in micrometres; none for what is no length."""
    text = str(unit).strip().lower().replace("\\u00b5", "µ")  # ImageJ escapes what is not ASCII
    return _UM_PER_UNIT.get(text)


def _ome_records(tif: tifffile.TiffFile) -> Iterator[str]:
    annotations = tifffile.xml2dict(tif.ome_metadata or "")["OME"].get("StructuredAnnotations")
    maps = annotations.get("MapAnnotation", []) if isinstance(annotations, dict) else []
    for entry in maps if isinstance(maps, list) else [maps]:
        if isinstance(entry, dict) and entry.get("Namespace") == RECORD_NAMESPACE:
            yield str(entry["Value"]["M"]["value"])


def _imagej_info(tif: tifffile.TiffFile) -> Iterator[str]:
    yield str((tif.imagej_metadata or {}).get("Info", ""))
