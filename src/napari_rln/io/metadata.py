"""Metadata of TIFF files: voxel size and record.

A voxel size is accepted only where a file states it with a unit: in OME metadata, ImageJ's, Zeiss
LSM's or Micro-Manager's. Resolution tags of a plain TIFF are mostly dots per inch of a printer and
are ignored.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_rln.core.record import Record
from napari_rln.core.volume import VoxelUm
from napari_rln.io.stated_optics import number

RECORD_NAMESPACE = "napari-rln/record"
"""Namespace of the OME map annotation with a record."""

_UM_PER_UNIT = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0,
    "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0, "micrometres": 1.0,
    "nanometers": 1e-3, "nanometre": 1e-3, "nanometres": 1e-3, "millimetre": 1e3, "nm": 1e-3,
    "pm": 1e-6, "å": 1e-4, "inch": 25400.0,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "nanometer": 1e-3, "picometer": 1e-6,
    "angstrom": 1e-4,
}  # fmt: skip
_TIFFFILE = "1.11a"  # the ImageJ version in files that tifffile wrote

Sizes = list[float | None]


def read_voxel_um(tif: tifffile.TiffFile, series: int, planes: int) -> VoxelUm | None:
    """Return the voxel size (z, y, x) in micrometres that a file states; None if it states none.

    ``series`` is the number of the image in the file; a volume of one plane needs no step.
    """
    if tif.is_lsm:
        lsm: dict[str, Any] = tif.lsm_metadata or {}
        metres = [number(lsm.get(f"VoxelSize{axis}")) for axis in "ZYX"]
        sizes = [1e6 * size if size else None for size in metres]
    elif tif.is_ome:
        pixels = ElementTree.fromstring(tif.ome_metadata or "").findall("{*}Image/{*}Pixels")
        sizes = _sizes_of_pixels(pixels[series if len(pixels) > 1 else 0].attrib)
    else:
        sizes = _imagej_voxel_um(tif)
    if None in sizes and tif.is_micromanager:
        summary: dict[str, Any] = (tif.micromanager_metadata or {}).get("Summary") or {}
        step, pixel = (number(summary.get(key)) for key in ("z-step_um", "PixelSize_um"))
        others = (abs(step) if step else None, pixel or None, pixel or None)
        sizes = [known or other for known, other in zip(sizes, others, strict=True)]
    return completed(sizes, planes)


def completed(sizes: Sequence[float | None], planes: int) -> VoxelUm | None:
    """Return a voxel size (z, y, x) of which all necessary components are known; else None."""
    z, y, x = sizes
    if planes == 1 and z is None:
        z = y  # a single plane has no step; its depth is not used
    return None if z is None or y is None or x is None else (z, y, x)


def read_record(tif: tifffile.TiffFile) -> Record | None:
    """Return the record that napari-rln wrote into a file, if any."""
    info = str((tif.imagej_metadata or {}).get("Info", ""))
    for text in _ome_records(tif) if tif.is_ome else [info]:
        try:
            return Record.from_json(text)
        except ValueError:  # text of another program
            continue
    return None


def images_in(ome: str, names: set[str]) -> list[int]:
    """Return the numbers of the images in OME metadata that have planes in some files.

    Planes without a named file are in every file.
    """
    images = enumerate(_files_of_images(ome))
    return [number for number, (is_here, files) in images if is_here or names & files]


def files_named(ome: str) -> set[str]:
    """Return the names of all files with planes by OME metadata."""
    return {file for _, files in _files_of_images(ome) for file in files}


def _files_of_images(ome: str) -> Iterator[tuple[bool, set[str]]]:
    """Yield for each image whether it has planes in the describing file, and its other files."""
    try:
        root = ElementTree.fromstring(ome)
    except ElementTree.ParseError:
        return
    this_uuid = root.get("UUID")
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        named = [data.find("{*}UUID") for data in pixels.iterfind("{*}TiffData")]
        is_here = any(
            uuid is None or (this_uuid is not None and (uuid.text or "").strip() == this_uuid)
            for uuid in named
        )
        yield is_here, files_of_pixels(pixels)


def files_of_pixels(pixels: ElementTree.Element) -> set[str]:
    """Return the names of the files of an image's planes, by OME's element Pixels."""
    named = map(file_of_planes, pixels.iterfind("{*}TiffData"))
    return {PureWindowsPath(name).name for name in named if name}


def file_of_planes(data: ElementTree.Element) -> str | None:
    """Return the name of the file of planes, by OME's element TiffData; None where not stated."""
    uuid = data.find("{*}UUID")
    return None if uuid is None else uuid.get("FileName")


def voxel_um_of_pixels(pixels: Mapping[str, Any], planes: int) -> VoxelUm | None:
    """Return the voxel size (z, y, x) in micrometres of OME's element Pixels; None if not stated.

    A volume of one plane needs no step.
    """
    return completed(_sizes_of_pixels(pixels), planes)


def _sizes_of_pixels(pixels: Mapping[str, Any]) -> Sizes:
    sizes: Sizes = []
    for axis in "ZYX":
        size = number(pixels.get(f"PhysicalSize{axis}"))
        if axis == "Z" and size is not None:
            size = abs(size)  # of a stage that moved down
        factor = um_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(size * factor if size and factor else None)
    return sizes


def _imagej_voxel_um(tif: tifffile.TiffFile) -> Sizes:
    metadata: dict[str, Any] = tif.imagej_metadata or {}
    unit = metadata.get("unit", "")
    z, y, x = (um_per(metadata.get(key, unit)) for key in ("zunit", "yunit", "unit"))
    spacing = number(metadata.get("spacing"))
    if (
        "spacing" not in metadata
        and metadata.get("ImageJ") != _TIFFFILE
        and metadata.get("images", 1) > 1
    ):
        spacing = 1.0  # ImageJ leaves out a step of one unit
    tags = tif.pages.first.tags

    def lateral(factor: float | None, tag: str) -> float | None:
        numerator, denominator = tags[tag].value if tag in tags else (0, 1)
        return factor * denominator / numerator if factor and numerator else None

    return [
        abs(spacing) * z if spacing and z else None,
        lateral(y, "YResolution"),
        lateral(x, "XResolution"),
    ]


def um_per(unit: object) -> float | None:
    """Return the length of a unit in micrometres; None for other units."""
    text = str(unit).strip().lower().replace("\\u00b5", "µ")  # ImageJ escapes non-ASCII characters
    return _UM_PER_UNIT.get(text)


def _ome_records(tif: tifffile.TiffFile) -> Iterator[str]:
    annotations = tifffile.xml2dict(tif.ome_metadata or "")["OME"].get("StructuredAnnotations")
    maps = annotations.get("MapAnnotation", []) if isinstance(annotations, dict) else []
    for entry in maps if isinstance(maps, list) else [maps]:
        if isinstance(entry, dict) and entry.get("Namespace") == RECORD_NAMESPACE:
            try:
                yield str(entry["Value"]["M"]["value"])
            except (KeyError, TypeError):  # edited by another program
                continue
