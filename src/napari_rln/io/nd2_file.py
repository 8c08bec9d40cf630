"""Nikon ND2 by frames: positions as images of their own, and the optics."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_rln.core.volume import VoxelUm
from napari_rln.io.lazy import OpenedImage, Pieces, choose_image, rgb_error
from napari_rln.io.metadata import completed
from napari_rln.io.paths import title
from napari_rln.io.stated_optics import optics_of, per_channel, um_of_nm
from napari_rln.psf.optics import Modality, Optics

_NOT_WIDEFIELD = ("SIM", "TIRF", "spinningDiskConfocal", "dsdConfocal", "iSIM", "sora", "liveSR",
                  "sweptFieldConfocalPinhole", "sweptFieldConfocalSlit", "RCM", "VCS")  # fmt: skip


def open_lazily(path: Path, series: int | None = None) -> OpenedImage:
    """Return a position of an ND2; its only one if ``series`` is None.

    Raise an RlnError if it is RGB, or one of several and none is chosen; another error of Python
    where the file is damaged or the library that parses it is absent.
    """
    import nd2  # an optional dependency

    with nd2.ND2File(path) as file:
        sizes = dict(file.sizes)
        if file.is_rgb:
            raise rgb_error(path.name)
        whole = file.to_dask()
        described = file.metadata
        acquired = file.attributes.sequenceCount
    axes = "".join(sizes)
    positions = sizes.get("P", 1)
    shape = tuple(n for axis, n in sizes.items() if axis != "P")
    chosen = choose_image([" x ".join(map(str, shape))] * positions, series, path.name)
    index: tuple[Any, ...] = tuple(chosen if axis == "P" else slice(None) for axis in axes)
    array = whole[index]
    left = axes.replace("P", "")
    pieces = _pieces(sizes, chosen, acquired) if acquired < _frames(sizes) else None
    channels = getattr(described, "channels", None) or []
    return OpenedImage(
        array,
        left,
        _voxel_um(channels[0].volume, sizes.get("Z", 1)) if channels else None,
        f"{title(path)} position {chosen}" if positions > 1 else title(path),
        pieces=pieces,
        files=lambda: (path,),
        piece_bytes=math.prod(n for axis, n in sizes.items() if axis in "CYX")
        * array.dtype.itemsize,
        images=positions,
        optics=per_channel([channel_optics(each) for each in channels], sizes.get("C", 1)),
    )


def channel_optics(described: Any) -> Optics:
    """Return the optics of a channel, of nd2's structure ``Channel``."""
    microscope, channel = described.microscope, described.channel
    return optics_of(
        modality=_modality(microscope.modalityFlags or ()),
        na=microscope.objectiveNumericalAperture,
        immersion_index=microscope.immersionRefractiveIndex,
        wavelength_um=um_of_nm(channel.emissionLambdaNm),
        excitation_um=um_of_nm(channel.excitationLambdaNm),
        objective=microscope.objectiveName,
        channel=channel.name,
    )


def _modality(flags: Sequence[str]) -> Modality | None:
    """Return the type of microscope that flags state; None of others than these."""
    if "multiphoton" in flags:
        return "two-photon"
    if "laserScanConfocal" in flags:
        return "confocal"
    if any(flag in flags for flag in _NOT_WIDEFIELD):
        return None
    return "widefield" if "fluorescence" in flags or "camera" in flags else None


def _voxel_um(volume: Any, planes: int) -> VoxelUm | None:
    """Return the voxel size (z, y, x) of nd2's structure ``Volume``; None if not calibrated."""
    known = zip(volume.axesCalibration, volume.axesCalibrated, strict=True)
    x, y, z = (abs(float(size)) if calibrated else None for size, calibrated in known)
    return completed([z, y, x], planes)


def _frames(sizes: dict[str, int]) -> int:
    return math.prod(n for axis, n in sizes.items() if axis not in "CYX")


def _pieces(sizes: dict[str, int], position: int, acquired: int) -> Pieces:
    """Return the planes of a position that were acquired, in the order of the loops."""
    import numpy as np

    loops = [axis for axis in sizes if axis not in "CYX"]
    kept = [axis for axis in sizes if axis != "P"]
    places = zip(*np.unravel_index(range(acquired), [sizes[a] for a in loops]), strict=True)
    present = set()
    for place in places:
        at = dict(zip(loops, map(int, place), strict=True))
        if at.get("P", 0) == position:
            for channel in range(sizes.get("C", 1)):
                present.add(tuple((at | {"C": channel, "Y": 0, "X": 0})[axis] for axis in kept))
    return Pieces(
        kind="planes",
        axes="".join(kept),
        shape=tuple(sizes[axis] for axis in kept),
        size=tuple(sizes[axis] if axis in "YX" else 1 for axis in kept),
        present=present,
    )
