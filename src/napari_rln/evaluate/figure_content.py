"""Content of the comparison figure: sections, display limits and profiles, without drawing.

Positions and extents are in micrometres, (z, y, x) from the corner of the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import matplotlib
import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import Float64Array, FloatArray, Volume, VoxelUm, check_on_grid
from napari_rln.evaluate.plane_sections import (
    ACROSS_DOWN,
    PLANES,
    Limits,
    Projection,
    brightest,
    section,
    slab_of,
)
from napari_rln.evaluate.profiles import Profile, profile_at, profile_between

Role = Literal["raw", "result", "truth"]

_NEAR_UM = 0.5  # distance from a plane up to which an arrow, or the line, is shown in it


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """Content and display of the comparison figure.

    Parameters
    ----------
    position
        Voxel (z, y, x) where the planes and the profiles cross; by default the brightest structure
        in the plane with the highest contrast of the first deconvolved result.
    projection
        Single planes, or maximum projections.
    slab_um
        Thickness of the averaged or projected slab; by default one plane, or the whole volume for
        a projection.
    contrast_percentile
        Upper percentile of the display range; the lower one is 100 minus this.
    contrast
        shared shows all results with one display range, own each with that of its percentiles, as
        for results in different units.
    arrows
        Positions z y x in micrometres, from the corner of the field, of arrows in those planes that
        pass through them within half a micrometre, or a voxel.
    gamma
        Exponent of the display; values below 1 brighten dim structures.
    colormap
        Name of a Matplotlib colormap.
    yz
        Show the yz plane as a third row.
    inset_um
        Side of the magnified region; by default a quarter of the shorter lateral side, 0 for no
        magnified region.
    profile
        Plot the intensity along x and z through the position.
    dpi
        Resolution of the picture file in dots per inch.
    title
        Title of the figure.
    """

    position: tuple[int, int, int] | None = None
    projection: Projection = "slice"
    slab_um: Annotated[float | None, {"min": 0.0, "unit": "um"}] = None
    contrast_percentile: Annotated[float, {"min": 50.0, "max": 100.0}] = 99.8
    contrast: Literal["shared", "own"] = "shared"
    arrows: tuple[VoxelUm, ...] = ()
    gamma: Annotated[float, {"min": 0.1, "max": 5.0}] = 0.8
    colormap: str = "magma"
    yz: bool = False
    inset_um: Annotated[float | None, {"min": 0.0, "unit": "um"}] = None
    profile: bool = True
    dpi: Annotated[int, {"min": 50, "max": 1200}] = 200
    title: str = ""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.colormap not in matplotlib.colormaps:
            raise RlnError(
                f"`colormap` is {self.colormap!r}; give gray, magma or another one of Matplotlib."
            )


Line = tuple[VoxelUm, VoxelUm]
"""Ends (z, y, x) of a line, in micrometres from the corner of the field."""


class Display(NamedTuple):
    """Display of one volume: lowest and highest intensity, gamma, and colours.

    The colours are the name of a Matplotlib colormap or a table (N, 4) of red, green, blue and
    opacity from 0 to 1.
    """

    limits: Limits
    gamma: float
    colours: str | Float64Array


class FigureColumn(NamedTuple):
    """Pictures and profiles of one volume.

    Pictures (Y, X), (Z, X) and (Z, Y) by the name of the plane: xy, xz, yz, of a single plane xy
    only. Profiles by the name of the axis through the position: x, and z in a stack; or that along
    the line, by the name line.
    """

    name: str
    role: Role
    display: Display
    pictures: dict[str, FloatArray]
    profiles: dict[str, Profile]

    @property
    def limits(self) -> Limits:
        """Lowest and highest displayed intensity."""
        return self.display.limits


@dataclass(frozen=True, kw_only=True, eq=False)
class FigureContent:
    """Content of a comparison figure, its columns from left to right.

    The planes cross at ``position_um``; ``extent_um`` is the size of the field, both (z, y, x).
    ``inset_um`` is the magnified region, as (start, stop) along z, y and x; None without one.
    By the name of a plane, ``arrows`` are the tips (across, down) of its arrows, ``lines`` the ends
    of the line where it lies in it, and ``depths`` the number of planes averaged or projected.
    """

    columns: tuple[FigureColumn, ...]
    position_um: VoxelUm
    extent_um: VoxelUm
    inset_um: tuple[Limits, Limits, Limits] | None
    arrows: dict[str, tuple[tuple[float, float], ...]]
    lines: dict[str, tuple[tuple[float, float], ...]]
    depths: dict[str, int]

    def size_um(self, plane: str) -> tuple[float, float]:
        """Return the width and height of a plane's picture."""
        across, down = ACROSS_DOWN[plane]
        return self.extent_um[across], self.extent_um[down]


def figure_content(
    volumes: Sequence[Volume],
    *,
    truth: Volume | None = None,
    settings: FigureSettings | None = None,
    displays: Sequence[Display] = (),
    line: Line | None = None,
) -> FigureContent:
    """Return the content of a figure; the arguments are those of :func:`figure`.

    Raise an RlnError if there is no volume, the grids differ, the position or an arrow lies
    outside, or both ends of the line coincide.
    """
    settings = settings or FigureSettings()
    if not volumes:
        raise RlnError("no volume is given; give at least the raw image.")
    every = [*volumes, *((truth,) if truth else ())]
    for other in every[1:]:
        check_on_grid(other, every[0])
    shape, voxel_um = every[0].shape, every[0].voxel_um
    extent = np.multiply(shape, voxel_um)
    side = 0.25 * min(extent[1:]) if settings.inset_um is None else settings.inset_um
    box = np.minimum(extent, side)
    position = settings.position or brightest(volumes[min(1, len(volumes) - 1)], box)
    for arrow in settings.arrows:
        if not all(0 <= a <= e for a, e in zip(arrow, extent, strict=True)):
            size = " ".join(f"{e:.4g}" for e in extent)
            raise RlnError(
                f"`arrows` has {arrow} um, outside the field of {size} um (z y x); count from the "
                "corner of the field."
            )
    if not all(0 <= p < n for p, n in zip(position, shape, strict=True)):
        raise RlnError(
            f"`position` is {position}, outside the volume of {shape} voxels (z, y, x); count "
            "from 0."
        )
    roles: list[Role] = ["raw", *["result"] * (len(volumes) - 1), *["truth"] * (truth is not None)]  # type: ignore[list-item]
    planes = ["xy"] if shape[0] == 1 else ["xy", "xz", *["yz"] * settings.yz]
    cut = position, settings.projection, settings.slab_um
    pictures = [
        {p: section(volume.data, voxel_um, PLANES[p], *cut) for p in planes} for volume in every
    ]
    half_um = max(1.5 * side, 0.25 * float(min(extent[1:])))
    shown = displays or _displays(pictures, roles, settings)
    columns = tuple(
        FigureColumn(
            volume.name,
            role,
            display,
            planes_of,
            _profiles(volume, position, half_um) if line is None else _along(volume, line),
        )
        for volume, role, display, planes_of in zip(every, roles, shown, pictures, strict=True)
    )
    centre = (np.array(position) + 0.5) * voxel_um
    start = np.clip(centre - box / 2, 0, extent - box)
    inset: Any = tuple(zip(start.tolist(), (start + box).tolist(), strict=True))
    return FigureContent(
        columns=columns,
        position_um=tuple(centre.tolist()),
        extent_um=tuple(extent.tolist()),
        inset_um=inset if side else None,
        arrows={plane: _in_plane(plane, settings.arrows, centre, voxel_um) for plane in planes},
        lines={
            plane: ends
            for plane in planes
            if len(ends := _in_plane(plane, line or (), centre, voxel_um)) == 2
        },
        depths={
            plane: part[PLANES[plane]].stop - part[PLANES[plane]].start
            for plane in planes
            for part in [slab_of(shape, voxel_um, PLANES[plane], *cut)]
        },
    )


def _in_plane(
    plane: str, points: Sequence[VoxelUm], centre_um: Float64Array, voxel_um: VoxelUm
) -> tuple[tuple[float, float], ...]:
    """Return the points (across, down), micrometres, that lie in a plane."""
    normal, (across, down) = PLANES[plane], ACROSS_DOWN[plane]
    near_um = max(_NEAR_UM, voxel_um[normal])
    return tuple(
        (point[across], point[down])
        for point in points
        if abs(point[normal] - centre_um[normal]) <= near_um
    )


def _profiles(volume: Volume, position: tuple[int, int, int], half_um: float) -> dict[str, Profile]:
    """Return the profiles along x and, in a stack, z through a position."""
    (z, y, x), (dz, _, dx) = position, volume.voxel_um
    profiles = {"x": profile_at(volume.data[z, y], x, dx, half_um)}
    if volume.shape[0] > 1:
        profiles["z"] = profile_at(volume.data[:, y, x], z, dz, half_um)
    return profiles


def _along(volume: Volume, line: Line) -> dict[str, Profile]:
    """Return the profile along a line."""
    first = np.divide(volume.voxel_um, 2)
    start, stop = (np.subtract(end, first).tolist() for end in line)
    return {"line": profile_between(volume.data, volume.voxel_um, start, stop)}


def _displays(
    pictures: Sequence[dict[str, FloatArray]], roles: Sequence[str], settings: FigureSettings
) -> list[Display]:
    """Return the display of each volume by the settings."""
    own = settings.contrast == "own"
    groups = [str(i) if own else role for i, role in enumerate(roles)]
    limits = _limits(pictures, groups, settings.contrast_percentile)
    return [Display(limits[group], settings.gamma, settings.colormap) for group in groups]


def _limits(
    pictures: Sequence[dict[str, FloatArray]], groups: Sequence[str], percentile: float
) -> dict[str, Limits]:
    """Return the display limits of each group of volumes, wide enough for every one of it."""
    limits: dict[str, Limits] = {}
    for planes, group in zip(pictures, groups, strict=True):
        values = np.concatenate([planes[p].ravel() for p in ("xy", "xz") if p in planes])
        low, high = (float(p) for p in np.percentile(values, [100 - percentile, percentile]))
        lowest, highest = limits.get(group, (low, high))
        limits[group] = min(low, lowest), max(high, highest)
    return {name: (low, high if high > low else low + 1) for name, (low, high) in limits.items()}
