"""Optics that TIFF files state: in OME metadata, in ImageJ's text of Zeiss files, in Zeiss LSM.

Micro-Manager states the names of channels, which may be those of dyes.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_rln.io.metadata import um_per
from napari_rln.io.stated_optics import (
    channel_name,
    middle_of_band,
    modality_of,
    number,
    optics_of,
    per_channel,
    scanned_with,
    stated_index,
    um_of_nm,
)
from napari_rln.psf.optics import Optics

# As Bio-Formats writes the metadata of ZEN into an ImageJ TIFF: "Information|... #2 = 518".
_ZEN = re.compile(
    r"^(?:.*[ \t])?Information\|([^#=\n]+?)[ \t]*(?:#(\d+))?[ \t]+=[ \t](.+?)[ \t\r]*$", re.M
)


def read_optics(tif: tifffile.TiffFile, series: int, channels: int) -> tuple[Optics, ...]:
    """Return the optics of every channel of an image; empty if the file states none.

    ``series`` is the number of the image in the file's metadata.
    """
    found: Sequence[Optics] = ()
    if tif.is_lsm:
        found = _of_lsm(tif.lsm_metadata or {}, channels)
    elif tif.is_ome:
        root = ElementTree.fromstring(tif.ome_metadata or "")
        images = root.findall("{*}Image")
        if images:
            found = ome_optics(root, images[series if series < len(images) else 0])
    elif tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        found = _of_zen(str(metadata.get("Info", "")), channels)
    if not per_channel(found, channels) and tif.is_micromanager:
        summary: Mapping[str, Any] = (tif.micromanager_metadata or {}).get("Summary") or {}
        names = summary.get("ChNames")
        found = [Optics(channel=str(name)) for name in names] if isinstance(names, list) else ()
    return per_channel(found, channels)


def ome_optics(root: ElementTree.Element, image: ElementTree.Element) -> list[Optics]:
    """Return the optics of the channels of an element Image in OME metadata."""
    settings = image.find("{*}ObjectiveSettings")
    settings = ElementTree.Element("none") if settings is None else settings
    objectives = root.findall("{*}Instrument/{*}Objective")
    named = [each for each in objectives if each.get("ID") == settings.get("ID")]
    # Without a reference the objective is known if there is only one.
    objective = next(iter(named or objectives * (len(objectives) == 1)), ElementTree.Element("n"))
    medium = objective.get("Immersion") or settings.get("Medium")
    return [
        optics_of(
            modality=modality_of(channel.get("AcquisitionMode")),
            na=objective.get("LensNA"),
            immersion_index=stated_index(settings.get("RefractiveIndex"), medium),
            wavelength_um=_wavelength_um(channel, "Emission"),
            excitation_um=_wavelength_um(channel, "Excitation"),
            objective=objective.get("Model"),
            channel=channel_name(channel.get("Fluor"), channel.get("Name")),
        )
        for channel in image.iterfind("{*}Pixels/{*}Channel")
    ]


def _wavelength_um(channel: ElementTree.Element, kind: str) -> float | None:
    value = number(channel.get(f"{kind}Wavelength"))
    unit = um_per(channel.get(f"{kind}WavelengthUnit", "nm"))
    return None if value is None or unit is None else value * unit


def _of_zen(info: str, channels: int) -> list[Optics]:
    """Return the optics in the text that ImageJ keeps of a file of ZEN."""
    numbered: dict[str, dict[int, str]] = defaultdict(dict)
    for key, place, value in _ZEN.findall(info):
        numbered[key][int(place or 1)] = value
    if not numbered:
        return []

    def stated(key: str) -> list[str | None]:
        """Return a value for each channel; None where it is not clear which is whose."""
        values = [value for _, value in sorted(numbered.get(key, {}).items())]
        if len(values) == channels:
            return list(values)
        return [values[0] if len(set(values)) == 1 else None] * channels

    keys = ("AcquisitionMode", "EmissionWavelength", "ExcitationWavelength", "PinholeSizeAiry",
            "Fluor", "Name")  # fmt: skip
    (na, immersion, model, index, medium) = (
        stated(key)[0]
        for key in (
            "Instrument|Objective|LensNA", "Instrument|Objective|Immersion",
            "Instrument|Objective|Manufacturer|Model", "Image|ObjectiveSettings|RefractiveIndex",
            "Image|ObjectiveSettings|Medium",
        )
    )  # fmt: skip
    found = []
    for mode, emission, excitation, pinhole, dye, name in zip(
        *(stated(f"Image|Channel|{key}") for key in keys), strict=True
    ):
        modality = modality_of(mode, pinhole)
        found.append(
            optics_of(
                modality=modality,
                na=na,
                immersion_index=stated_index(index, immersion or medium),
                wavelength_um=um_of_nm(emission),
                excitation_um=um_of_nm(excitation),
                pinhole_au=pinhole if modality == "confocal" else None,
                objective=model,
                channel=channel_name(dye, name),
            )
        )
    return found


def _of_lsm(lsm: Mapping[str, Any], channels: int) -> list[Optics]:
    """Return the optics of the channels of a Zeiss LSM, whose objective is known by its name."""
    scan = lsm.get("ScanInformation") or {}
    found = []
    for track in scan.get("Tracks") or ():
        lasers = [
            wavelength
            for line in track.get("IlluminationChannels") or ()
            if line.get("Acquire", 1) and (wavelength := um_of_nm(line.get("Wavelength")))
        ]
        for detector in track.get("DetectionChannels") or ():
            if not detector.get("Acquire", 1):
                continue
            band = detector.get("SpiWavelengthStart"), detector.get("SpiWavelengthStop")
            emission = middle_of_band(*band)
            found.append(
                optics_of(
                    wavelength_um=emission,
                    objective=scan.get("Objective"),
                    channel=channel_name(detector.get("DyeName"), detector.get("Name")),
                    **scanned_with(emission, lasers),
                )
            )
    return (
        found if len(found) == channels else [optics_of(objective=scan.get("Objective"))] * channels
    )
