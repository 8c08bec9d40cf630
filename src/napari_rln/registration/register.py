"""Registration of a reference volume to an image, onto whose grid it is resampled.

The reference may come from another microscope or another program: voxels, crop, position, contrast
and blur may all differ. Masked phase correlation (Padfield, IEEE TIP 21, 2012) finds the shift, of
any size; then SimpleITK maximises the mutual information (Mattes et al., IEEE
TMI 22, 2003), which assumes nothing about the contrast, from coarse to fine and for one kind of
transform after another. Rotations up to about 15 degrees are recovered.

The square roots of the volumes, smoothed by one width, are compared, so that neither noise, nor a
few bright spots, nor the finer detail of the sharper one dominates. A matrix, 4 x 4 for
(z, y, x, 1), maps a position in the image to one in the reference, both in micrometres from the
first corner, which stays the same when voxels are binned.
"""

import importlib
import itertools
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.grid import resample_onto, resampled_image, size_um, translation
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.metrics import pearson
from napari_rln.core.record import Record
from napari_rln.core.volume import Float64Array, Volume

TransformKind = Literal["translation", "rigid", "affine"]

_MIN_CORRELATION = 0.3  # of the smoothed volumes; below it they show different objects
_CLEAR = 1.5  # ratio of the score to that of the best mirror image, below which a warning is given
_MAX_FIELD_RATIO = 20.0  # of the sizes along an axis; beyond it a voxel size is likely wrong
_TOLERANCE = 0.1  # permitted loss of Fisher's z; in details mutual information is the better judge
_MAX_SCALING = 1.4  # maximum scaling along any axis, or its inverse; more matches other structures
_COARSE_VOXELS = 2**15  # about those of the coarsest level
_FINE_VOXELS = 2**22  # limit of the finest level
_OVERLAPS = (0.5, 0.25, 0.1)  # minimum overlaps as fractions of the smaller field, tried in turn
_SAMPLES = 2**14  # number of random points at which the mutual information is computed
_ROUNDS = 6  # per level, each with new points and half the step size
_ITERATIONS = 6  # per round


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """Settings of the registration.

    Parameters
    ----------
    transform
        Transform of the reference: translation; rigid adds rotation; affine adds scaling and
        shear, for another microscope's calibration and refractive index.
    seed
        Seed of the random points at which the volumes are compared.
    """

    transform: TransformKind = "affine"
    seed: Annotated[int, {"min": 0, "max": 2**30}] = 0

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class RegistrationReport:
    """Progress of a registration: the kind of transform, steps, and seconds since the start.

    ``similarity`` is the Pearson correlation of the smoothed volumes in their overlap; 0 before the
    first match.
    """

    phase: TransformKind
    done: int
    total: int
    similarity: float
    seconds: float


def register(
    reference: Volume, image: Volume, settings: RegistrationSettings | None = None
) -> Volume:
    """Return the reference on the grid of the image; see :func:`register_iter`."""
    return finish(register_iter(reference, image, settings))


def register_iter(
    reference: Volume, image: Volume, settings: RegistrationSettings | None = None
) -> Generator[RegistrationReport, None, Volume]:
    """Yield reports, return the reference on the grid of the image.

    Parameters
    ----------
    reference
        (Z, Y, X), any units; from another microscope or program.
    image
        (Z, Y, X), any units; of the same object, such as the raw image. It may be blurred more
        than the reference: the smoothing hides most of the difference.
    settings
        Settings of the registration; the defaults if None.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in units of the reference, on the voxels of the image, interpolated
        linearly; the 1st percentile of the reference outside its field. Facts of its record:
        ``matrix``, 4 x 4 for (z, y, x, 1), maps micrometres of the image to micrometres of the
        reference, both from the centre of the first voxel, as in napari; ``shift_um``,
        displacement of the image's centre; ``transform``, the last kind that did not worsen the
        match; ``similarity_before``, with the first corners on one another, and
        ``similarity_after``, Pearson correlations of the smoothed volumes in their overlap;
        ``similarity_by_chance``, the best of shifted mirror images of the reference;
        ``overlap``, the fraction of the image that the reference covers; ``seconds``.

    Raises
    ------
    RlnError
        If SimpleITK is not installed, a volume is constant or a single plane, the fields differ
        too much in size, or the volumes do not match.
    ComputeError
        If SimpleITK fails.

    Warns
    -----
    RlnWarning
        If mirror images of the reference, which show another object, match nearly as well.
    """
    settings = settings or RegistrationSettings()
    sitk = _simpleitk()
    _check(reference, image)
    start, steps = time.perf_counter(), itertools.count(1)
    kinds: tuple[TransformKind, ...] = get_args(TransformKind)
    kinds = kinds[: kinds.index(settings.transform) + 1]
    widths_um, slabs = _widths_um(reference, image), _slabs(image)
    total = len(widths_um) * (1 + len(kinds) * _ROUNDS) + 4 * len(_OVERLAPS) + len(slabs)

    def report(phase: TransformKind, similarity: float = 0.0) -> RegistrationReport:
        return RegistrationReport(
            phase=phase,
            done=next(steps),
            total=total,
            similarity=similarity,
            seconds=time.perf_counter() - start,
        )

    levels: list[_Level] = []
    for width_um in widths_um:
        levels.append(_Level.smoothed(reference, image, width_um))
        yield report("translation")
    coarse, fine = levels[0], levels[-1]
    kept: TransformKind = "translation"
    matrix = yield from relay(_best_shift(coarse), lambda match: report(kept, match.correlation))
    for kind in kinds:
        refined = matrix
        for refined in _refine(levels, kind, matrix, settings.seed, sitk):
            yield report(kind, coarse.match(refined).correlation)
        if fine.accepts(refined, matrix):
            matrix, kept = refined, kind
    match = fine.match(matrix)
    # Mirror images have the statistics of the reference but show another object.
    chance = Match(0.0, 0.0)
    for axis in range(3):
        mirrored = _best_shift(coarse.mirrored(axis))
        shift = yield from relay(mirrored, lambda _: report(kept, match.correlation))
        chance = max(chance, fine.mirrored(axis).match(shift), key=lambda match: match.score)
    smaller = min(1.0, float(size_um(reference).prod() / size_um(image).prod()))
    _judge(match, chance, _OVERLAPS[-1] * smaller, f"{reference.name} and {image.name}")
    # Two million voxels are enough for a percentile.
    lowest = np.percentile(reference.data.ravel()[:: 1 + reference.data.size // 2**21], 1)
    data = np.full(image.shape, lowest, np.float32)
    for planes in slabs:
        slab = image.with_data(image.data[planes])
        offset = translation((planes.start * image.voxel_um[0], 0, 0))
        resampled = resample_onto(reference, slab, matrix @ offset)
        np.copyto(data[planes], resampled, where=np.isfinite(resampled))
        yield report(kept, match.correlation)
    # From the centres of the first voxels instead of their corners.
    half, other = (np.divide(volume.voxel_um, 2) for volume in (image, reference))
    centred = translation(-other) @ matrix @ translation(half)
    centre = np.append(np.multiply(image.shape, image.voxel_um) / 2 - half, 1)
    facts = {
        "matrix": centred.tolist(),
        "shift_um": (centred @ centre - centre)[:3].tolist(),
        "transform": kept,
        "similarity_before": fine.match(np.eye(4)).correlation,
        "similarity_after": match.correlation,
        "similarity_by_chance": chance.correlation,
        "overlap": match.overlap,
        "seconds": time.perf_counter() - start,
    }
    inputs = {"image": image.hash, "reference": reference.hash}
    record = Record(method="register", settings=as_dict(settings), facts=facts, inputs=inputs)
    return image.with_data(data, name=f"{reference.name} · registered", record=record)


def _check(reference: Volume, image: Volume) -> None:
    """Raise if the two cannot be registered."""
    for volume in (reference, image):
        if 1 in volume.shape:
            raise RlnError(
                f"{volume.name} is {volume.shape} but must be at least 2 voxels along every axis; "
                "give a z-stack."
            )
        if volume.data.min() == volume.data.max():
            raise RlnError(f"{volume.name} is constant; give a volume that shows the object.")
    for axis, a, b in zip("zyx", size_um(reference), size_um(image), strict=True):
        if max(a, b) > _MAX_FIELD_RATIO * min(a, b):
            raise RlnError(
                f"{reference.name} is {a:.3g} um wide along {axis} and {image.name} {b:.3g} um; "
                f"the ratio may be at most {_MAX_FIELD_RATIO:g}. Check the voxel sizes, or crop "
                "the larger one."
            )


class Match(NamedTuple):
    """Correlation of two volumes in their overlap, and the overlap as a fraction of the image."""

    correlation: float
    overlap: float

    @property
    def score(self) -> float:
        """Fisher's z of the correlation, in units proportional to its standard error.

        Small overlaps correlate well by chance, so the correlation alone cannot rank placements.
        """
        return _fisher_z(self.correlation) * math.sqrt(self.overlap)


def _judge(match: Match, chance: Match, least: float, names: str) -> None:
    """Raise if a match is poor, small or no better than by chance, warn if hardly better."""
    advice = "check their orientation and voxel sizes, and that both show one object"
    result = f"best correlation is {match.correlation:.2f} on {match.overlap:.0%} of the image"
    if match.correlation < _MIN_CORRELATION or match.overlap < least:
        raise RlnError(
            f"{names} do not match: their {result}, but must be at least {_MIN_CORRELATION} on "
            f"{least:.0%}; {advice}."
        )
    result += f", that of a mirror image {chance.correlation:.2f} on {chance.overlap:.0%}"
    if match.score < chance.score:
        raise RlnError(
            f"{names} do not match: their {result}; {advice}. An object that is its own mirror "
            "image, such as a bead, can be registered by a translation only."
        )
    if match.score < _CLEAR * chance.score:
        warn(f"{names} may match by chance only: their {result}; inspect the result, and {advice}.")


def _slabs(image: Volume) -> list[slice]:
    """Return ranges of planes, each resampled in well under a second."""
    planes = max(1, _FINE_VOXELS // (image.shape[1] * image.shape[2]))
    return [slice(z, z + planes) for z in range(0, image.shape[0], planes)]


# Levels from coarse to fine


@dataclass(frozen=True, eq=False)
class _Level:
    """Reference and image, smoothed by one width: a level of the pyramid."""

    reference: Volume
    image: Volume
    width_um: float

    @classmethod
    def smoothed(cls, reference: Volume, image: Volume, width_um: float) -> Self:
        """Return the square roots of both volumes, smoothed, on voxels of about the width."""
        voxel_um = _level_voxel_um(reference, image, width_um)

        def smooth(volume: Volume) -> Volume:
            binning = [
                max(1, min(round(t / v), n // 4))  # of few planes some must remain
                for t, v, n in zip(voxel_um, volume.voxel_um, volume.shape, strict=True)
            ]
            (z, i), (y, j), (x, k) = (
                (n // m, m) for n, m in zip(volume.shape, binning, strict=True)
            )
            data = volume.data[: z * i, : y * j, : x * k].reshape(z, i, y, j, x, k).mean((1, 3, 5))
            data = np.sqrt(np.maximum(data - np.percentile(data, 1), 0))
            binned_um = np.multiply(binning, volume.voxel_um)
            data = ndimage.gaussian_filter(data, width_um / binned_um, mode="nearest")
            return volume.with_data(data, voxel_um=binned_um)

        return cls(smooth(reference), smooth(image), width_um)

    def mirrored(self, axis: int) -> Self:
        """Return the level with the reference mirrored along an axis."""
        data = np.flip(self.reference.data, axis)
        return replace(self, reference=self.reference.with_data(data))

    def match(self, matrix: Float64Array) -> Match:
        """Return how well the volumes match at a placement."""
        resampled = resample_onto(self.reference, self.image, matrix)
        inside = np.isfinite(resampled)
        correlation = pearson(resampled[inside], self.image.data[inside]) if inside.any() else 0.0
        return Match(correlation, float(inside.mean()))

    def accepts(self, new: Float64Array, old: Float64Array) -> bool:
        """Return whether a placement is plausible and matches no worse than a previous one."""
        scaling = np.linalg.svd(new[:3, :3], compute_uv=False)
        a, b = (resample_onto(self.reference, self.image, matrix) for matrix in (new, old))
        inside = np.isfinite(a) & np.isfinite(b)  # correlations of other regions differ
        image = self.image.data[inside]
        return bool(
            max(scaling.max(), 1 / scaling.min()) < _MAX_SCALING
            and inside.sum() > 0.75 * np.isfinite(b).sum()  # a small overlap is no advantage
            and _fisher_z(pearson(a[inside], image))
            > _fisher_z(pearson(b[inside], image)) - _TOLERANCE
        )


def _fisher_z(correlation: float) -> float:
    """Return Fisher's z, whose standard error is the same for all correlations."""
    return math.atanh(min(max(correlation, -0.9999), 0.9999))


def _level_voxel_um(reference: Volume, image: Volume, width_um: float) -> Float64Array:
    """Return the voxel (z, y, x) of a level: its width, or the coarser of the two if larger."""
    voxel_um: Float64Array = np.max([reference.voxel_um, image.voxel_um, [width_um] * 3], axis=0)
    return voxel_um


def _widths_um(reference: Volume, image: Volume) -> list[float]:
    """Return the smoothing widths of the levels, from coarse to fine."""
    largest_um3 = max(size_um(reference).prod(), size_um(image).prod())
    finest = float(_level_voxel_um(reference, image, 0.0).min())

    def voxels(width: float) -> float:
        return float(largest_um3 / _level_voxel_um(reference, image, width).prod())

    widths = [finest]
    while voxels(widths[0]) > _COARSE_VOXELS:
        widths[0] *= 1.1
    while widths[-1] > finest and voxels(half := max(widths[-1] / 2, finest)) < _FINE_VOXELS:
        widths.append(half)
    return widths


# Phase correlation


def _best_shift(level: _Level) -> Generator[Match, None, Float64Array]:
    """Yield the match at each candidate for the shift, return the matrix of the best."""
    voxel_um = _level_voxel_um(level.reference, level.image, 0.0)
    z, y, x = voxel_um.tolist()
    parts = [resampled_image(part, (z, y, x)).data for part in (level.image, level.reference)]
    shape = np.max([part.shape for part in parts], axis=0)
    pads = [[(0, n) for n in shape - part.shape] for part in parts]
    fixed, moving = (np.pad(part, pad) for part, pad in zip(parts, pads, strict=True))
    masks = [np.pad(np.ones(a.shape, bool), pad) for a, pad in zip(parts, pads, strict=True)]
    candidates = []
    for overlap in _OVERLAPS:
        shift, *_ = phase_cross_correlation(  # type: ignore[no-untyped-call]
            fixed, moving, reference_mask=masks[0], moving_mask=masks[1], overlap_ratio=overlap
        )
        matrix = translation(-shift * voxel_um)
        match = level.match(matrix)
        candidates.append((match.score, matrix))
        yield match
    return max(candidates, key=lambda candidate: candidate[0])[1]


# Mutual information


def _simpleitk() -> ModuleType:
    """Return SimpleITK; raise an RlnError if it is not installed."""
    try:
        return importlib.import_module("SimpleITK")  # optional, and slow to import
    except ImportError as missing:
        raise RlnError(
            "registration needs SimpleITK; pip install 'napari-rln[registration]'."
        ) from missing


def _refine(
    levels: Sequence[_Level],
    transform: TransformKind,
    matrix: Float64Array,
    seed: int,
    sitk: ModuleType,
) -> Iterator[Float64Array]:
    """Yield matrices of one kind of transform with increasing mutual information.

    Rounds are short, so that a registration can be cancelled: SimpleITK's own pyramid runs
    uninterrupted.
    """
    for level, number in itertools.product(levels, range(_ROUNDS)):
        itk_transform = _itk_transform(transform, matrix, size_um(level.image) / 2, sitk)
        method = sitk.ImageRegistrationMethod()
        method.SetInitialTransform(itk_transform, inPlace=True)
        method.SetNumberOfWorkUnits(1)  # sums in one order: a seed gives one result everywhere
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricAsMattesMutualInformation()
        method.SetMetricSamplingStrategy(method.RANDOM)
        fraction = min(1.0, _SAMPLES / level.image.data.size)
        method.SetMetricSamplingPercentage(fraction, 1 + seed + number)  # seed 0 means the clock
        # Gradients of whole volumes take longer than those at the points.
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-4,
            numberOfIterations=_ITERATIONS,
            estimateLearningRate=method.EachIteration,
            maximumStepSizeInPhysicalUnits=level.width_um * 0.5**number,
        )
        try:
            method.Execute(*(_itk_image(part, sitk) for part in (level.image, level.reference)))
        except RuntimeError as failure:
            if "outside moving image" in str(failure):
                return  # it diverged: this kind of transform will be rejected
            raise ComputeError(f"SimpleITK could not register: {failure}") from failure
        # Columns of the matrix are the images of the unit vectors.
        points = np.vstack([np.zeros(3), np.eye(3)])[:, ::-1].tolist()
        origin, *units = (np.array(itk_transform.TransformPoint(p)[::-1]) for p in points)
        matrix = translation(origin)
        matrix[:3, :3] = (np.array(units) - origin).T
        yield matrix


def _itk_image(volume: Volume, sitk: ModuleType) -> Any:
    """Return a volume as SimpleITK's image, whose axes are (x, y, z)."""
    image = sitk.GetImageFromArray(volume.data)
    image.SetSpacing(volume.voxel_um[::-1])
    image.SetOrigin([v / 2 for v in volume.voxel_um[::-1]])
    return image


def _itk_transform(
    transform: TransformKind, matrix: Float64Array, centre_um: Float64Array, sitk: ModuleType
) -> Any:
    """Return SimpleITK's transform of a kind, about a centre, for a matrix."""
    linear = matrix[:3, :3]
    shift = linear @ centre_um + matrix[:3, 3] - centre_um
    if transform == "translation":
        return sitk.TranslationTransform(3, shift[::-1].tolist())
    itk_transform = sitk.Euler3DTransform() if transform == "rigid" else sitk.AffineTransform(3)
    itk_transform.SetCenter(centre_um[::-1].tolist())
    itk_transform.SetMatrix(linear[::-1, ::-1].ravel().tolist())
    itk_transform.SetTranslation(shift[::-1].tolist())
    return itk_transform
