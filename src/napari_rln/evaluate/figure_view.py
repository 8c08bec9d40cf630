"""What the figure of a comparison shows, decided before anything is drawn.

Positions and extents are in micrometres, (z, y, x) from the corner of the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray, Volume, VoxelUm, same_grid
from napari_rln.evaluate.profiles import Profile, profile_at

Limits = tuple[float, float]
Role = Literal["raw", "result", "truth"]
Projection = Literal["slice", "max"]


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """What the figure shows, and how.

    Parameters
    ----------
    position
        Voxel (z, y, x) where the planes and the profiles cross; if not given, the brightest
        structure in the plane of most contrast of the first deconvolved result.
    projection
        Show planes, or maximum projections.
    slab_um
        Thickness over which planes are averaged or projected; one plane, or the whole volume for
        a projection, if not given.
    contrast_percentile
        Darkest and brightest shown: this percentile, and 100 less it.
    gamma
        Exponent of the display; below 1 lifts what is dim.
    colormap
        Name of a Matplotlib colormap.
    yz
        Show the yz plane as a third row.
    inset_um
        Side of the magnified region; a quarter of the shorter lateral side if not given, 0 for no
        magnified region.
    profile
        Plot intensity along x and z through the position.
    dpi
        Dots per inch of the picture file.
    title
        Written above everything.
    """

    position: tuple[int, int, int] | None = None
    projection: Projection = "slice"
    slab_um: Annotated[float | None, {"min": 0.0, "unit": "um"}] = None
    contrast_percentile: Annotated[float, {"min": 50.0, "max": 100.0}] = 99.8
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
                f"There is no colormap {self.colormap!r}; take gray, magma or another of "
                "Matplotlib's."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """What is shown of one volume; what a single plane lacks is None.

    Attributes
    ----------
    name, role
        Its title, and whether it is the raw image, a result or the truth.
    limits
        Intensities shown darkest and brightest; the same for all results.
    lateral, axial, side
        (Y, X), (Z, X) and (Z, Y) pictures.
    along_x, along_z
        Profiles.
    """

    name: str
    role: Role
    limits: Limits
    lateral: FloatArray
    axial: FloatArray | None
    side: FloatArray | None
    along_x: Profile
    along_z: Profile | None


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Everything the figure shows, decided.

    Attributes
    ----------
    columns
        From left to right.
    position_um
        Where the planes cross, (z, y, x) from the field's corner.
    extent_um
        Size of the field, (z, y, x).
    inset_um
        Magnified region as (start, stop) along z, y and x, inside the field; None for none.
    bar_um, inset_bar_um
        Lengths of the scale bars: 1, 2 or 5 times a power of ten.
    """

    columns: tuple[Column, ...]
    position_um: VoxelUm
    extent_um: VoxelUm
    inset_um: tuple[Limits, Limits, Limits] | None
    bar_um: float
    inset_bar_um: float | None


def resolve_view(
    volumes: Sequence[Volume],
    *,
    truth: Volume | None = None,
    settings: FigureSettings | None = None,
) -> View:
    """Return what a figure of these volumes shows.

    Parameters
    ----------
    volumes
        The raw image, then the results, all on one grid.
    truth
        What is known to be there; the last column.
    settings
        What to show.

    Raises
    ------
    RlnError
        If there is no volume, the grids disagree, or the position lies outside.
    """
    settings = settings or FigureSettings()
    if not volumes:
        raise RlnError("There is no volume to show; give at least the raw image.")
    shown = [*volumes, *((truth,) if truth else ())]
    for other in shown[1:]:
        _check_grid(other, shown[0])
    shape, voxel_um = shown[0].shape, shown[0].voxel_um
    extent = np.multiply(shape, voxel_um)
    side = 0.25 * min(extent[1:]) if settings.inset_um is None else settings.inset_um
    box = np.minimum(extent, side)
    position = settings.position
    if position is None:
        position = brightest(volumes[min(1, len(volumes) - 1)], box)
    if not all(0 <= p < n for p, n in zip(position, shape, strict=True)):
        raise RlnError(
            f"Position {position} lies outside the volume of {shape} voxels (z, y, x); count "
            "from 0."
        )
    centre = (np.array(position) + 0.5) * voxel_um
    start = np.clip(centre - box / 2, 0, extent - box)
    how = {"projection": settings.projection, "slab_um": settings.slab_um}
    pictures = [
        tuple(section(v.data, voxel_um, axis, position, **how) for axis in range(3))  # type: ignore[arg-type]
        for v in shown
    ]
    roles: list[Role] = ["raw", *["result"] * (len(volumes) - 1), *["truth"] * (truth is not None)]  # type: ignore[list-item]
    limits = _limits(pictures, roles, shape[0] == 1, settings.contrast_percentile)
    half_um = max(1.5 * side, 0.25 * float(min(extent[1:])))
    columns = tuple(
        _column(v, role, limits[role], seen, position, half_um, settings.yz)
        for v, role, seen in zip(shown, roles, pictures, strict=True)
    )
    return View(
        columns=columns,
        position_um=_triple(centre),
        extent_um=_triple(extent),
        inset_um=None
        if side == 0
        else tuple((float(a), float(a + b)) for a, b in zip(start, box, strict=True)),  # type: ignore[arg-type]
        bar_um=round_length(0.3 * float(extent[2])),
        inset_bar_um=round_length(0.4 * float(box[2])) if side else None,
    )


def _column(
    volume: Volume,
    role: Role,
    limits: Limits,
    pictures: tuple[FloatArray, ...],
    position: tuple[int, int, int],
    half_um: float,
    yz: bool,
) -> Column:
    """Return what is shown of one volume."""
    (z, y, x), (dz, _, dx) = position, volume.voxel_um
    lateral, axial, side = pictures
    flat = volume.shape[0] == 1
    return Column(
        name=volume.name,
        role=role,
        limits=limits,
        lateral=lateral,
        axial=None if flat else axial,
        side=side if yz and not flat else None,
        along_x=profile_at(volume.data[z, y], x, dx, half_um),
        along_z=None if flat else profile_at(volume.data[:, y, x], z, dz, half_um),
    )


def round_length(longest: float) -> float:
    """Return the greatest 1, 2 or 5 times a power of ten that is not above a length."""
    power = 10.0 ** np.floor(np.log10(longest))
    step = max(s for s in (1, 2, 5) if s <= longest / power * (1 + 1e-9))
    return float(f"{step * power:.1g}")


def brightest(volume: Volume, box_um: npt.ArrayLike = (0.0, 0.0, 0.0)) -> tuple[int, int, int]:
    """Return the brightest voxel of the plane of most contrast, not at the border.

    Smoothing by a voxel keeps single hot voxels from being taken for structure.

    Parameters
    ----------
    volume
        Of what.
    box_um
        (z, y, x), micrometres: what is to be around it inside the volume, at least a tenth.
    """
    extent = np.multiply(volume.shape, volume.voxel_um)
    margin_box_um = np.maximum(box_um, 0.1 * extent)
    smooth = gaussian_filter(volume.data, [1.0 if n > 1 else 0.0 for n in volume.shape])
    margins = [
        min(int(b / d / 2), (n - 1) // 2)
        for b, d, n in zip(margin_box_um, volume.voxel_um, volume.shape, strict=True)
    ]
    margins[0] = min(margins[0], volume.shape[0] // 10)
    inner = smooth[tuple(slice(m, n - m) for m, n in zip(margins, volume.shape, strict=True))]
    z = int(np.argmax(inner.std(axis=(1, 2))))
    y, x = np.unravel_index(int(np.argmax(inner[z])), inner.shape[1:])
    return z + margins[0], int(y) + margins[1], int(x) + margins[2]


def section(
    data: FloatArray,
    voxel_um: VoxelUm,
    axis: int,
    position: tuple[int, int, int],
    *,
    projection: Projection = "slice",
    slab_um: float | None = None,
) -> FloatArray:
    """Return the plane, or the projection of the slab, across an axis of a volume.

    Parameters
    ----------
    data
        (Z, Y, X).
    voxel_um
        Voxel size (z, y, x) in micrometres.
    axis
        0 for the xy plane, 1 for xz, 2 for yz.
    position
        Voxel (z, y, x) where the planes cross.
    projection, slab_um
        As in :class:`FigureSettings`.
    """
    slab = data[slab_of(data.shape, voxel_um, axis, position, projection, slab_um)]
    picture: FloatArray = slab.max(axis) if projection == "max" else slab.mean(axis)
    return picture


def slab_of(
    shape: tuple[int, ...],
    voxel_um: VoxelUm,
    axis: int,
    position: tuple[int, int, int],
    projection: Projection,
    slab_um: float | None,
) -> tuple[slice, ...]:
    """Return which part of a volume a :func:`section` is of."""
    n, step, at = shape[axis], voxel_um[axis], position[axis]
    thickness = slab_um
    if thickness is None:
        thickness = n * step if projection == "max" else 0.0
    half = round(thickness / step / 2) if thickness < n * step else n
    index = [slice(0, size) for size in shape]
    index[axis] = slice(max(at - half, 0), min(at + half + 1, n))
    return tuple(index)


def _limits(
    pictures: Sequence[tuple[FloatArray, ...]],
    roles: Sequence[Role],
    flat: bool,
    percentile: float,
) -> dict[Role, Limits]:
    """Return the display limits of each role, wide enough for every volume of that role."""
    limits: dict[Role, Limits] = {}
    for (lateral, axial, _), role in zip(pictures, roles, strict=True):
        values = lateral if flat else np.concatenate([lateral.ravel(), axial.ravel()])
        low, high = (float(p) for p in np.percentile(values, [100 - percentile, percentile]))
        seen = limits.get(role, (low, high))
        limits[role] = min(low, seen[0]), max(high, seen[1])
    return {role: (low, high if high > low else low + 1) for role, (low, high) in limits.items()}


def _check_grid(volume: Volume, first: Volume) -> None:
    if volume.shape != first.shape or not same_grid(volume.voxel_um, first.voxel_um):
        raise RlnError(
            f"{volume.name} has shape {volume.shape} and voxels of {volume.voxel_um} um but "
            f"{first.name} has {first.shape} and {first.voxel_um} um; crop or resample one of them."
        )


def _triple(values: npt.NDArray[Any]) -> VoxelUm:
    z, y, x = (float(v) for v in values)
    return z, y, x
