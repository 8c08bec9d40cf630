"""Agreement between the results of several methods, voxel by voxel.

Without ground truth, structure that all methods show is more credible than structure that one of
them shows alone: their mistakes differ. It is no proof. Methods that start from one another, or
that assume the same wrong PSF, agree in their mistakes; and where one stands alone, it may be the
one that is right.

Results are compared in their own unit, that of the image with the background removed, without any
fit: a method that shows more light than the others disagrees with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.metrics import fitted
from napari_rln.core.volume import FloatArray, Volume, check_on_grid

_GAUSSIAN = 1.4826  # standard deviation of Gaussian numbers over their median absolute deviation
_FLOOR = 0.01  # auto, of the brightest structures
_PEAK_PERCENTILE = 99.9  # of the median of the methods, which stands for its brightest structures


@dataclass(frozen=True, kw_only=True)
class AgreementSettings:
    """Settings of the comparison between methods.

    Parameters
    ----------
    alone_factor
        A method stands alone where it differs from the median of the others by more than this
        many times their spread.
    alone_least
        Least spread of the others for that, as a fraction of the local level: methods that agree
        exactly do not make every small difference of another one count.
    level_um
        Standard deviation of the Gaussian that averages the median of the methods to the local
        level, micrometres.
    floor
        Lowest local level, in image units; auto takes a hundredth of the brightest structures.
    """

    alone_factor: Annotated[float, {"min": 1.0, "max": 100.0}] = 3.0
    alone_least: Annotated[float, {"min": 1e-3, "max": 1.0}] = 0.05
    level_um: Annotated[float, {"min": 0.0, "max": 100.0, "unit": "um"}] = 0.5
    floor: Annotated[float | None, {"min": 0.0}] = None

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Alone:
    """Where a method stands alone.

    Attributes
    ----------
    name
        Name of the method.
    added, missing
        Light that it shows and the others do not, and that the others show and it does not, in
        the voxels where it stands alone; fractions of the light of the others.
    voxels
        Fraction of the voxels where it stands alone.
    map
        (Z, Y, X), its difference from the median of the others over the local level where it
        stands alone: positive where it shows more light; 0 elsewhere.
    """

    name: str
    added: float
    missing: float
    voxels: float
    map: Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Agreement between methods.

    Attributes
    ----------
    spread
        (Z, Y, X), robust relative spread: 1.4826 times the median absolute deviation of the
        methods from their median, over the local level; 0 where all agree.
    typical_spread
        Mean of the spread, weighted by the local light.
    alone
        Where each method stands alone, in order; none with fewer than three methods.
    floor
        Lowest local level, image units.
    """

    spread: Volume
    typical_spread: float
    alone: tuple[Alone, ...]
    floor: float


def agreement(
    results: Sequence[Volume],
    *,
    settings: AgreementSettings | None = None,
    fit: bool = False,
) -> Agreement:
    """Return the agreement between the results of several methods.

    Parameters
    ----------
    results
        Two or more on one grid and in one unit, background removed.
    settings
        Settings of the comparison; the defaults if None.
    fit
        First fit scale and offset of every result to the median of all, for results whose unit is
        not that of the image. Differences in brightness then no longer show.

    Raises
    ------
    RlnError
        If there are fewer than two results, their grids differ, or all are dark.
    """
    settings = settings or AgreementSettings()
    if len(results) < 2:
        raise RlnError("agreement needs the results of at least two methods; add one.")
    for other in results[1:]:
        check_on_grid(other, results[0])
    stack = np.stack([result.data for result in results])
    if fit:
        target = np.median(stack, axis=0)
        stack = np.stack([fitted(data, target) for data in stack]).astype(np.float32)
    middle, deviation = _middle_and_spread(stack)
    floor = settings.floor or _FLOOR * float(np.percentile(middle, _PEAK_PERCENTILE))
    if not floor > 0:
        raise RlnError(
            "the methods show no light in common; check that the results are of one image."
        )
    grid = results[0]
    sigma = tuple(settings.level_um / v for v in grid.voxel_um)
    level = _level(middle, sigma, floor)
    spread = deviation / level
    weight = np.maximum(middle, 0).astype(np.float64)
    alone: tuple[Alone, ...] = ()
    if len(results) > 2:
        alone = tuple(
            _alone(number, result, stack, sigma, floor, settings)
            for number, result in enumerate(results)
        )
    return Agreement(
        spread=grid.with_data(spread, name="spread of the methods", record=None),
        typical_spread=float(np.vdot(weight, spread) / weight.sum()) if weight.any() else 0.0,
        alone=alone,
        floor=floor,
    )


def _alone(
    number: int,
    result: Volume,
    stack: FloatArray,
    sigma: tuple[float, ...],
    floor: float,
    settings: AgreementSettings,
) -> Alone:
    """Return where one of the methods, by its number in the stack, stands alone."""
    others, deviation = _middle_and_spread(np.delete(stack, number, axis=0))
    level = _level(others, sigma, floor)
    difference = stack[number] - others
    spread = np.maximum(deviation, settings.alone_least * level)
    stands = np.abs(difference) > settings.alone_factor * spread
    light = float(np.maximum(others, 0).sum(dtype=np.float64))
    gained: FloatArray = np.where(stands, difference, np.float32(0))
    return Alone(
        name=result.name,
        added=float(gained.clip(0).sum(dtype=np.float64)) / light if light > 0 else 0.0,
        missing=-float(gained.clip(None, 0).sum(dtype=np.float64)) / light if light > 0 else 0.0,
        voxels=float(stands.mean()),
        map=result.with_data(gained / level, name=f"{result.name} alone", record=None),
    )


def _middle_and_spread(stack: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the median (Z, Y, X) of results (n, Z, Y, X), and their robust standard deviation."""
    middle: FloatArray = np.median(stack, axis=0)
    deviation: FloatArray = np.float32(_GAUSSIAN) * np.median(np.abs(stack - middle), axis=0)
    return middle, deviation


def _level(middle: FloatArray, sigma: tuple[float, ...], floor: float) -> FloatArray:
    """Return the local level (Z, Y, X) of light, image units, at least the floor."""
    smooth: FloatArray = ndimage.gaussian_filter(np.maximum(middle, 0), sigma, mode="nearest")
    return np.maximum(smooth, np.float32(floor))
