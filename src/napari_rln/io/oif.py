"""Olympus OIF and OIB by planes, which are TIFFs in a folder or in a compound file, and the optics.

Programs of Olympus have no published format; the names are those that the files contain.
"""

import itertools
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import VoxelUm
from napari_rln.io.lazy import OpenedImage, Pieces, places_of, rgb_error
from napari_rln.io.metadata import completed, um_per
from napari_rln.io.paths import title
from napari_rln.io.stated_optics import channel_name, number, optics_of, per_channel, um_of_nm
from napari_rln.psf.optics import Optics

_ACQUISITION = "Acquisition Parameters Common"
_INFRARED_NM = 680
Settings = Mapping[str, Mapping[str, Any]]


class _Planes:
    """Planes (Y, X) of an open file as one array; those that are not there are 0."""

    def __init__(self, file: Any, names: dict[tuple[int, ...], str], lead: tuple[int, ...]) -> None:
        first = file.asarray(next(iter(names.values())))
        self._file, self._names, self._lead = file, names, lead
        self._lock = threading.Lock()  # of the place in the file
        weakref.finalize(self, file.close)
        self.shape, self.dtype = (*lead, *first.shape), first.dtype
        self.chunks = (*(1 for _ in lead), *first.shape)

    def __getitem__(self, index: tuple[Any, ...]) -> npt.NDArray[Any]:
        *lead, y, x = index
        places, shape = places_of(lead, self._lead)
        planes = [self._plane(place)[y, x] for place in places]
        return np.stack(planes).reshape(*shape, *planes[0].shape)

    def _plane(self, place: tuple[int, ...]) -> npt.NDArray[Any]:
        size = self.shape[-2:]
        if place not in self._names:
            return np.zeros(size, self.dtype)
        with self._lock:
            plane: npt.NDArray[Any] = self._file.asarray(self._names[place])
        if plane.shape != size:
            raise OSError(f"{self._names[place]} is {plane.shape}, unlike the first plane")
        return plane


def open_lazily(path: Path, series: int | None = None) -> OpenedImage:
    """Return the image of an OIF, with its folder, or of an OIB.

    Raise an RlnError if it is RGB; another error of Python where the file is damaged or the library
    that parses it is absent.
    """
    import oiffile  # an optional dependency

    file = oiffile.OifFile(path)
    sequence = file.series[0]
    axes, lead = sequence.axes, tuple(sequence.shape)
    names = dict(zip(map(tuple, sequence.indices), sequence, strict=True))
    if not set(axes) <= set("CZT") | {"L"}:
        raise ValueError(f"its planes have the axes {axes}")
    planes = _Planes(file, names, lead)
    if len(planes.shape) != len(lead) + 2:
        raise rgb_error(path.name)
    letters = f"{axes}YX"
    lengths = dict(zip(letters, planes.shape, strict=True))
    settings, plane = file.mainfile, _of_first_plane(file)
    present = {(*place, 0, 0) for place in names}
    folder = path.with_name(f"{path.name}.files")
    return OpenedImage(
        planes,
        letters,
        _voxel_um(settings, lengths.get("Z", 1)),
        title(path),
        pieces=Pieces(
            kind="planes", axes=letters, shape=planes.shape, size=planes.chunks, present=present
        ),
        files=lambda: [path, *(sorted(folder.glob("*.tif")) if folder.is_dir() else ())],
        optics=per_channel(_optics(settings, plane, lengths.get("C", 1)), lengths.get("C", 1)),
    )


def _of_first_plane(file: Any) -> Settings:
    """Return the settings of the first plane, which name the objective; empty without any."""
    import oiffile

    name = next(iter(sorted(file.glob("*.pty"))), None)
    try:
        settings: Settings = oiffile.SettingsFile(file.open_file(name), name) if name else {}
    except (ValueError, OSError):
        return {}
    return settings


def _voxel_um(settings: Settings, planes: int) -> VoxelUm | None:
    """Return the voxel size (z, y, x); None where it is not stated."""
    pixel = settings.get("Reference Image Parameter", {})
    y, x = (
        _length_um(pixel.get(f"{side}ConvertValue"), pixel.get(f"{side}Unit"))
        for side in ("Height", "Width")
    )
    z = None
    for number_of in range(8):
        axis = settings.get(f"Axis {number_of} Parameters Common", {})
        if axis.get("AxisCode") == "Z" and planes > 1:
            unit = axis.get("PixUnit") or axis.get("UnitName")
            ends = [number(axis.get(f"{end}Position")) for end in ("Start", "End")]
            step = _length_um(axis.get("Interval"), unit)
            if step is None and None not in ends:
                step = _length_um((ends[1] - ends[0]) / (planes - 1), unit)  # type: ignore[operator]
            z = step
    return completed([z, y, x], planes)


def _length_um(value: object, unit: object) -> float | None:
    length, each = number(value), um_per(unit)
    return round(abs(length) * each, 9) if length and each else None


def _optics(settings: Settings, plane: Settings, channels: int) -> Sequence[Optics]:
    """Return the optics of the first channels."""
    common = {**settings.get(_ACQUISITION, {}), **plane.get(_ACQUISITION, {})}
    numbered = (settings.get(f"Channel {n} Parameters") for n in itertools.count(1))
    found = []
    for channel in itertools.takewhile(lambda each: each is not None, numbered):
        assert channel is not None
        excitation = number(channel.get("ExcitationWavelength")) or 0.0
        found.append(
            optics_of(
                modality="two-photon" if excitation > _INFRARED_NM else "confocal",
                na=common.get("ObjectiveLens NAValue"),
                wavelength_um=um_of_nm(channel.get("EmissionWavelength")),
                excitation_um=um_of_nm(excitation),
                objective=common.get("ObjectiveLens Name"),
                channel=channel_name(channel.get("DyeName"), channel.get("CH Name")),
            )
        )
    return found[:channels]
