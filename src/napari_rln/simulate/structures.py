"""Synthetic fluorescent objects, the ground truth of simulated images.

The objects of the reference (Li et al., Nature Methods 2022) are small axis-aligned solids, later
ones hiding earlier ones. None of them is filamentous, folded or far out of focus, so kinds typical
of biological samples are added, and textures that fill space, whose light adds up. All are
isotropic in space: sizes are in lateral voxels, and a plane of the result has the light up to the
next plane.

Coils, hollow bars, asters and pollen are excluded from training, so that networks can be evaluated
on structures unknown to them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter1d

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray
from napari_rln.simulate import curves, shapes, textures
from napari_rln.simulate.scene import Scene

Structure = Literal[
    "spheres", "shells", "dots", "rods", "plates", "boxes",
    "filaments", "networks", "tubes", "sheets", "nuclei",
    "beads", "trees", "worms", "foam", "chromatin", "cytoplasm", "stripes", "lattice", "fractal",
    "haze", "coils", "bars", "asters", "pollen",
]  # fmt: skip

# The function that draws a kind has its name.
_DRAW: dict[Structure, Callable[[FloatArray, Scene], None]] = {
    kind: next(getattr(m, kind) for m in (curves, shapes, textures) if hasattr(m, kind))
    for kind in get_args(Structure)
}

REFERENCE: tuple[Structure, ...] = ("spheres", "shells", "dots", "rods", "plates", "boxes")
"""Kinds of the reference, in its drawing order."""

HELD_OUT: tuple[Structure, ...] = ("coils", "bars", "asters", "pollen")
"""Kinds to evaluate networks on, absent from their training."""

TRAINING: tuple[Structure, ...] = tuple(kind for kind in _DRAW if kind not in HELD_OUT)
"""Kinds for training: all others."""

_Z_RATIO = (0.5, 8.0)
_COARSE = 1.3  # plane distance in lateral voxels above which finer planes are drawn and averaged


@dataclass(frozen=True, kw_only=True)
class StructureSettings:
    """Settings of synthetic objects.

    Attributes
    ----------
    structures
        Kinds of structures to draw from. Choose those that resemble your sample.
    at_once
        Maximum number of kinds in one volume, haze not counted; 0, or the number of kinds and more:
        all kinds in every volume. Raise it for crowded samples.
    haze
        Fraction of volumes with haze, if it is among the kinds; all if it is the only kind. Raise
        it for thick samples.
    density
        Factor on the number of structures. Lower it for sparse samples.
    density_jitter
        Lowest and highest additional factor, drawn for each kind in each volume. Widen it if your
        images differ.
    brightness
        Lowest and highest emission of a voxel that a structure fills. Widen it if dim structures
        lie beside bright ones.
    smooth_voxels
        Standard deviation of the final Gaussian smoothing, in lateral voxels. Lower it for sharper
        edges.
    """

    structures: Annotated[tuple[Structure, ...], {"label": "Kinds"}] = TRAINING
    at_once: Annotated[int, {"min": 0, "max": 99, "label": "Kinds in a volume"}] = 3
    haze: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Volumes with haze"}] = 0.35
    density: Annotated[float, {"min": 0.01, "max": 20.0, "label": "Number of structures"}] = 1.0
    density_jitter: Annotated[tuple[float, float], {"label": "Variation of number"}] = (0.25, 2.0)
    brightness: Annotated[tuple[float, float], {"label": "Emission"}] = (50.0, 850.0)
    smooth_voxels: Annotated[float, {"min": 0.0, "max": 10.0, "label": "Smoothing (voxels)"}] = 0.7

    def __post_init__(self) -> None:
        check_limits(self)
        if not self.structures:
            raise RlnError(f"`structures` is empty; give one or more of {', '.join(_DRAW)}.")
        for kind in self.structures:
            if kind not in _DRAW:
                raise RlnError(f"`structures` has {kind!r}; give any of {', '.join(_DRAW)}.")
        if len(set(self.structures)) < len(self.structures):
            raise RlnError(f"`structures` is {self.structures}; give every kind once.")
        for name, limit in (("density_jitter", 100.0), ("brightness", 1e6)):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0.01 <= pair[0] <= pair[1] <= limit:
                raise RlnError(
                    f"`{name}` is {pair}; give two numbers between 0.01 and {limit:g}, "
                    "the smaller first."
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """Synthetic objects, (Z, Y, X) float32 in arbitrary units of emission, and the kinds drawn."""

    data: FloatArray
    structures: tuple[Structure, ...]


def draw(
    shape: tuple[int, int, int],
    settings: StructureSettings,
    *,
    seed: int | Sequence[int],
    z_ratio: float = 1.0,
    field: tuple[slice, slice, slice] | None = None,
) -> Drawing:
    """Return synthetic objects; equal arguments give equal objects.

    The shape (z, y, x) in voxels includes margins outside the field of view, by default none. Every
    kind has some objects in the field; haze lies outside it in z where there is room. Raise an
    RlnError if ``z_ratio``, the distance of the planes in lateral voxels, is out of range.
    """
    low, high = _Z_RATIO
    if not low <= z_ratio <= high:
        raise RlnError(
            f"z_ratio, the distance of planes in lateral voxels, is {z_ratio} but must lie between "
            f"{low} and {high}; check the voxel size of the PSF."
        )
    rng = np.random.default_rng(seed)
    finer = math.ceil(z_ratio / _COARSE)
    spans = zip(field or (slice(None),) * 3, shape, (z_ratio, 1.0, 1.0), strict=True)
    z, y, x = (
        (start * step, stop * step)
        for part, n, step in spans
        for start, stop, _ in (part.indices(n),)
    )
    scene = Scene(
        shape=(shape[0] * finer, shape[1], shape[2]),
        step=z_ratio / finer,
        field=(z, y, x),
        density=settings.density,
        brightness=settings.brightness,
        rng=rng,
    )
    chosen = _choose(settings, rng)
    total = np.zeros(scene.shape, np.float32)
    for kind in chosen:
        jittered = replace(scene, density=settings.density * scene.one(*settings.density_jitter))
        if kind in REFERENCE or len(chosen) == 1:
            _DRAW[kind](total, jittered)  # drawn first; may hide each other
        else:
            canvas = np.zeros_like(total)
            _DRAW[kind](canvas, jittered)
            total += canvas
    return Drawing(data=_smooth(total, scene, finer, settings.smooth_voxels), structures=chosen)


def _choose(settings: StructureSettings, rng: np.random.Generator) -> tuple[Structure, ...]:
    """Return the kinds of one volume, in drawing order."""
    plain: list[Structure] = [kind for kind in settings.structures if kind != "haze"]
    chosen: set[Structure] = set(plain)
    if 0 < settings.at_once < len(plain):
        n = rng.integers(1, settings.at_once, endpoint=True)
        chosen = {plain[i] for i in rng.choice(len(plain), n, replace=False)}
    if "haze" in settings.structures and (not plain or rng.random() < settings.haze):
        chosen.add("haze")
    return tuple(kind for kind in _DRAW if kind in chosen)


def _smooth(fine: FloatArray, scene: Scene, finer: int, sigma: float) -> FloatArray:
    """Return a canvas smoothed isotropically, its planes averaged in groups."""
    data = gaussian_filter1d(fine, sigma / scene.step, axis=0) if sigma else fine
    if finer > 1:
        data = data.reshape(-1, finer, *data.shape[1:]).mean(axis=1)
    for axis in (1, 2) if sigma else ():
        data = gaussian_filter1d(data, sigma, axis=axis)
    return np.ascontiguousarray(data, dtype=np.float32)
