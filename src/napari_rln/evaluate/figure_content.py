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
)
from napari_rln.evaluate.profiles import Profile, profile_at

Role = Literal["raw", "result", "truth"]

_ARROW_UM = 0.5  # distance from a plane up to which an arrow is shown in it


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


class FigureColumn(NamedTuple):
    """Pictures and profiles of one volume.

    Pictures (Y, X), (Z, X) and (Z, Y) by the name of the plane: xy, xz, yz, of a single plane xy
    only. Profiles through the position by the name of the axis: x, and z in a stack. The limits,
    lowest and highest displayed intensity, are the same for all results.
    """

    name: str
    role: Role
    limits: Limits
    pictures: dict[str, FloatArray]
    profiles: dict[str, Profile]


@dataclass(frozen=True, kw_only=True, eq=False)
class FigureContent:
    """Content of a comparison figure, its columns from left to right.

    The planes cross at ``position_um``; ``extent_um`` is the size of the field, both (z, y, x).
    ``inset_um`` is the magnified region, as (start, stop) along z, y and x; None without one.
    ``arrows`` are the tips (across, down) of the arrows in each plane, by its name.
    """

    columns: tuple[FigureColumn, ...]
    position_um: VoxelUm
    extent_um: VoxelUm
    inset_um: tuple[Limits, Limits, Limits] | None
    arrows: dict[str, tuple[tuple[float, float], ...]]

    def size_um(self, plane: str) -> tuple[float, float]:
        """Return the width and height of a plane's picture."""
        across, down = ACROSS_DOWN[plane]
        return self.extent_um[across], self.extent_um[down]


def figure_content(
    volumes: Sequence[Volume],
    *,
    truth: Volume | None = None,
    settings: FigureSettings | None = None,
) -> FigureContent:
    """Return the content of a figure; the arguments are those of :func:`figure`.

    Raise an RlnError if there is no volume, the grids differ, or the position lies outside.
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
    pictures = [
        {
            p: section(
                volume.data, voxel_um, PLANES[p], position, settings.projection, settings.slab_um
            )
            for p in planes
        }
        for volume in every
    ]
    own = settings.contrast == "own"
    groups = [str(i) if own else role for i, role in enumerate(roles)]
    limits = _limits(pictures, groups, settings.contrast_percentile)
    half_um = max(1.5 * side, 0.25 * float(min(extent[1:])))
    (z, y, x), (dz, _, dx) = position, voxel_um
    columns = []
    for volume, role, group, shown in zip(every, roles, groups, pictures, strict=True):
        profiles = {"x": profile_at(volume.data[z, y], x, dx, half_um)}
        if shape[0] > 1:
            profiles["z"] = profile_at(volume.data[:, y, x], z, dz, half_um)
        columns.append(FigureColumn(volume.name, role, limits[group], shown, profiles))
    centre = (np.array(position) + 0.5) * voxel_um
    start = np.clip(centre - box / 2, 0, extent - box)
    inset: Any = tuple(zip(start.tolist(), (start + box).tolist(), strict=True))
    return FigureContent(
        columns=tuple(columns),
        position_um=tuple(centre.tolist()),
        extent_um=tuple(extent.tolist()),
        inset_um=inset if side else None,
        arrows={plane: _tips(plane, settings.arrows, centre, voxel_um) for plane in planes},
    )


def _tips(
    plane: str, arrows: Sequence[VoxelUm], centre_um: Float64Array, voxel_um: VoxelUm
) -> tuple[tuple[float, float], ...]:
    """Return the tips (across, down), micrometres, of the arrows in a plane."""
    normal, (across, down) = PLANES[plane], ACROSS_DOWN[plane]
    near_um = max(_ARROW_UM, voxel_um[normal])
    return tuple(
        (arrow[across], arrow[down])
        for arrow in arrows
        if abs(arrow[normal] - centre_um[normal]) <= near_um
    )


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
