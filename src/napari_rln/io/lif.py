"""Leica LIF by boxes: the images of a project, mapped into memory, and their optics."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.io.lazy import OpenedImage, choose_image, rgb_error
from napari_rln.io.metadata import completed, um_per
from napari_rln.io.paths import title
from napari_rln.io.stated_optics import (
    channel_name,
    middle_of_band,
    number,
    optics_of,
    per_channel,
    scanned_with,
    stated_index,
    um_of_nm,
)
from napari_rln.psf.optics import Optics

_AXIS_OF = {1: "X", 2: "Y", 3: "Z", 4: "T"}
_MOSAIC = 10
_CONFOCAL, _CAMERA = "ATLConfocalSettingDefinition", "ATLCameraSettingDefinition"


def open_lazily(path: Path, series: int | None = None) -> OpenedImage:
    """Return an image of a LIF; its only one if ``series`` is None.

    Raise an RlnError if it is RGB, a mosaic of tiles, or one of several and none is chosen; another
    error of Python where the file is damaged or the library that parses it is absent.
    """
    import liffile  # an optional dependency

    with liffile.LifFile(path) as lif:
        images = [image for image in lif.images if not image.is_flim]
        sizes = [f"{i.name}: {' x '.join(map(str, i.shape))}" for i in images]
        number_of = choose_image(sizes, series, path.name)
        chosen = images[number_of]
        if "S" in chosen.sizes:
            raise rgb_error(path.name)
        element, block = chosen.xml_element, chosen.memory_block
        dtype, offset, size = np.dtype(chosen.dtype), block.offset, block.size
        name = f"{title(path)} {chosen.name}" if len(images) > 1 else title(path)
    description = element.find("Data/Image/ImageDescription")
    if description is None:
        raise ValueError("it does not describe its image")
    axes, shape, strides, steps = _layout(description, path.name)
    values = np.memmap(path, np.uint8, "r", offset, (size,))
    array = np.ndarray(shape, dtype, values, 0, strides)
    lengths = dict(zip(axes, shape, strict=True))
    return OpenedImage(
        array,
        axes,
        completed([steps.get(axis) for axis in "ZYX"], lengths.get("Z", 1)),
        name,
        files=lambda: (path,),
        images=len(images),
        optics=per_channel(_optics(element, lengths.get("C", 1)), lengths.get("C", 1)),
    )


def _layout(
    description: ElementTree.Element, name: str
) -> tuple[str, tuple[int, ...], tuple[int, ...], dict[str, float]]:
    """Return axes, shape, distances in bytes, and distances in micrometres where they are known."""
    sides: list[tuple[int, str, int]] = []  # distance in bytes, axis, length
    steps = {}
    for each in description.iterfind("Dimensions/DimensionDescription"):
        kind, length = int(each.attrib["DimID"]), int(each.attrib["NumberOfElements"])
        if kind == _MOSAIC and length > 1:
            raise RlnError(
                f"{name} is a mosaic of {length} tiles that were not merged; merge them in LAS X "
                "and save the project again."
            )
        axis = _AXIS_OF.get(kind, "?")
        if (axis == "?" and length == 1) or kind == _MOSAIC:
            continue
        sides.append((int(each.attrib["BytesInc"]), axis, length))
        unit, extent = um_per(each.attrib.get("Unit")), number(each.attrib.get("Length"))
        if unit and extent and length > 1:
            steps[axis] = round(abs(extent) * unit / (length - 1), 9)
    channels = [int(c.attrib["BytesInc"]) for c in description.iterfind("Channels/*")]
    if len(channels) > 1:
        apart = {after - before for before, after in itertools.pairwise(channels)}
        if len(apart) > 1:
            raise ValueError("its channels are of different types")
        sides.append((apart.pop(), "C", len(channels)))
    sides.sort(key=lambda side: side[0], reverse=True)
    strides, letters, shape = zip(*sides, strict=True)
    return "".join(letters), shape, strides, steps


def _optics(element: ElementTree.Element, channels: int) -> list[Optics]:
    """Return the optics of every channel: of its own detector where these are as many."""
    image = element.find("Data/Image")
    assert image is not None
    # Settings of a sequence of scans lie in a list; the one outside is that of the last scan.
    for kind, read in ((_CONFOCAL, _scanned), (_CAMERA, _with_camera)):
        listed = image.findall(f".//LDM_Block_Sequential_List/{kind}")
        settings = listed or image.findall(f".//{kind}")[:1]
        found = [one for each in settings for one in read(each)]
        if len(found) == channels:
            return found
        if settings:  # what holds for all of them
            return [optics_of(**_objective(settings[0]))] * channels
    return []


def _objective(settings: ElementTree.Element) -> dict[str, Any]:
    """Return what is common to the channels of a setting."""
    return {
        "na": settings.get("NumericalAperture"),
        "immersion_index": stated_index(settings.get("RefractionIndex"), settings.get("Immersion")),
        "objective": settings.get("ObjectiveName"),
    }


def _scanned(settings: ElementTree.Element) -> Iterator[Optics]:
    """Yield the optics of the active detectors of a laser scanner."""
    bands = {band.get("Channel"): band for band in settings.iter("MultiBand")}
    lasers = [
        wavelength
        for line in settings.iter("LaserLineSetting")
        if number(line.get("IntensityDev")) and (wavelength := um_of_nm(line.get("LaserLine")))
    ]
    for detector in settings.iterfind("DetectorList/Detector"):
        if detector.get("IsActive") != "1":
            continue
        band = bands.get(detector.get("Channel"), detector)
        emission = middle_of_band(band.get("LeftWorld"), band.get("RightWorld"))
        dye = (detector.get("DyeName") or band.get("DyeName") or "").rpartition("/")[2]
        excited = scanned_with(emission, lasers)
        confocal = excited["modality"] == "confocal"
        yield optics_of(
            **_objective(settings),
            **excited,
            wavelength_um=emission,
            pinhole_au=settings.get("PinholeAiry") if confocal else None,
            channel=channel_name(dye, band.get("ChannelName"), detector.get("Name")),
        )


def _with_camera(settings: ElementTree.Element) -> Iterator[Optics]:
    """Yield the optics of the channels of a camera."""
    for channel in settings.iterfind("WideFieldChannelConfigurator/WideFieldChannelInfo"):
        yield optics_of(
            **_objective(settings),
            modality="widefield",
            wavelength_um=um_of_nm(channel.get("EmissionWavelength")),
            excitation_um=um_of_nm(channel.get("ExcitationWavelength")),
            channel=channel_name(channel.get("UserDefName"), channel.get("FluoCubeName")),
        )
