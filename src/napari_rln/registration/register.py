"""A volume of the same object from elsewhere, brought onto the grid of an image.

The reference may come from another microscope or another program: voxels, crop, place, contrast and
blur may all differ. Masked phase correlation (Padfield, IEEE TIP 21, 2012) finds the shift,
wherever the reference lies; then mutual information (Mattes et al., IEEE TMI 22, 2003), which asks
nothing of the contrast, is climbed from coarse to fine, with one kind of transform after another.
Turns are found up to some 15 degrees. :mod:`napari_rln.registration.similarity` says how alike the
two are, :mod:`napari_rln.registration.mutual_information` climbs.
"""

import itertools
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, get_args

import numpy as np

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.registration.mutual_information import CHUNKS, Phase, climb, simpleitk
from napari_rln.registration.similarity import (
    FINE_VOXELS,
    OVERLAPS,
    Float64,
    Match,
    Pair,
    best_shift,
    moved,
    on_image,
    size_um,
    widths_um,
)

FLOOR = 0.3
"""Least correlation of the smoothed volumes at which they are taken for views of one object."""

CLEARLY = 1.5
"""Factor by which a match scores above the best of a mirror image, or it is doubted."""

LARGEST_RATIO = 20.0
"""Of the two fields along an axis; beyond it a voxel size is more likely to be wrong."""


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """How a reference is brought onto an image.

    Parameters
    ----------
    transform
        What the reference may undergo: a shift (translation); a turn too (rigid); scaling and shear
        too (affine), for another microscope's calibration and refractive index.
    seed
        Decides at which random points the volumes are compared.
    """

    transform: Phase = "affine"
    seed: Annotated[int, {"min": 0, "max": 2**30}] = 0

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class RegistrationReport:
    """Progress of a registration.

    Attributes
    ----------
    phase
        The kind of transform that is sought.
    done, total
        Steps.
    similarity
        Pearson correlation of the smoothed volumes in their overlap; 0 before the first match.
    seconds
        Since the start.
    """

    phase: Phase
    done: int
    total: int
    similarity: float
    seconds: float


def register(
    reference: Volume, image: Volume, settings: RegistrationSettings | None = None
) -> Volume:
    """Return the reference on the grid of the image; see :func:`register_steps`."""
    return finish(register_steps(reference, image, settings))


def register_steps(
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
        Which transforms; the defaults if None.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in units of the reference, on the voxels of the image, interpolated
        linearly; the 1st percentile of the reference where it shows nothing. Facts of its record:
        ``matrix``, 4 x 4 for (z, y, x, 1), maps micrometres of the image to micrometres of the
        reference, either counted from the centre of the first voxel, as in napari; ``shift_um``,
        how far it moves the image's centre; ``transform``, the last kind that was not dropped for
        a worse match; ``similarity_before``, with the first corners on one another, and
        ``similarity_after``, Pearson correlations of the smoothed volumes in their overlap;
        ``similarity_by_chance``, what mirror images of the reference reach by a shift;
        ``overlap``, the share of the image that the reference covers; ``seconds``.

    Raises
    ------
    RlnError
        If SimpleITK is missing, a volume is flat or a single plane, the fields differ too much in
        size, or nothing alike is found.
    ComputeError
        If SimpleITK fails.

    Warns
    -----
    RlnWarning
        If mirror images of the reference, which show another object, fit nearly as well.
    """
    settings = settings or RegistrationSettings()
    sitk = simpleitk()
    _check(reference, image)
    began, steps = time.perf_counter(), itertools.count(1)
    levels, kinds = len(widths_um(reference, image)), len(_phases(settings))
    total = levels * (1 + kinds * CHUNKS) + 4 * len(OVERLAPS) + len(_slabs(image))

    def report(told: tuple[Phase, float]) -> RegistrationReport:
        seconds = time.perf_counter() - began
        return RegistrationReport(
            phase=told[0], done=next(steps), total=total, similarity=told[1], seconds=seconds
        )

    return (yield from relay(_register(reference, image, settings, sitk), report))


def _register(
    reference: Volume, image: Volume, settings: RegistrationSettings, sitk: ModuleType
) -> Generator[tuple[Phase, float], None, Volume]:
    """Yield the kind of transform and the similarity, return the registered reference."""
    began = time.perf_counter()
    pairs: list[Pair] = []
    for width in widths_um(reference, image):
        pairs.append(Pair.level(reference, image, width))
        yield "translation", 0.0
    matrix, phase = yield from _placement(pairs, settings, sitk)
    fine = pairs[-1]
    match = fine.match(matrix)
    mirrored = _best_mirrored(pairs[0], fine)
    chance = yield from relay(mirrored, lambda _: (phase, match.correlation))
    smaller = min(1.0, float(size_um(reference).prod() / size_um(image).prod()))
    _judge(match, chance, OVERLAPS[-1] * smaller, f"{reference.name} and {image.name}")
    data = np.full(image.shape, _low(reference), np.float32)
    for planes in _slabs(image):
        slab = image.with_data(image.data[planes])
        first = moved((planes.start * image.voxel_um[0], 0, 0))
        seen = on_image(reference, slab, matrix @ first)
        np.copyto(data[planes], seen, where=np.isfinite(seen))
        yield phase, match.correlation
    # from the centres of the first voxels instead of the first corners
    half, other = (np.divide(volume.voxel_um, 2) for volume in (image, reference))
    told = moved(-other) @ matrix @ moved(half)
    centre = np.append(np.multiply(image.shape, image.voxel_um) / 2 - half, 1)
    facts = {
        "matrix": told.tolist(),
        "shift_um": (told @ centre - centre)[:3].tolist(),
        "transform": phase,
        "similarity_before": fine.match(np.eye(4)).correlation,
        "similarity_after": match.correlation,
        "similarity_by_chance": chance.correlation,
        "overlap": match.share,
        "seconds": time.perf_counter() - began,
    }
    inputs = {"image": image.hash, "reference": reference.hash}
    record = Record(method="register", settings=as_dict(settings), facts=facts, inputs=inputs)
    return image.with_data(data, name=f"{reference.name} · registered", record=record)


def _placement(
    pairs: Sequence[Pair], settings: RegistrationSettings, sitk: ModuleType
) -> Generator[tuple[Phase, float], None, tuple[Float64, Phase]]:
    """Yield the kind of transform and the similarity, return the matrix and the kind that is kept.

    Every kind starts from what was kept before it.
    """
    coarse, fine = pairs[0], pairs[-1]
    kept: Phase = "translation"
    matrix = yield from relay(best_shift(coarse), lambda match: (kept, match.correlation))
    for phase in _phases(settings):
        found = matrix
        for climbed in climb(pairs, phase, matrix, settings.seed, sitk):
            found = climbed
            yield phase, coarse.match(found).correlation
        if fine.accepts(found, matrix):
            matrix, kept = found, phase
    return matrix, kept


def _best_mirrored(coarse: Pair, fine: Pair) -> Generator[Match, None, Match]:
    """Yield, return the best match of a mirror image of the reference, shifted.

    Mirror images have everything in common with the reference but the object: what they reach is
    reached by chance.
    """
    best = Match(0.0, 0.0)
    for axis in range(3):
        shift = yield from best_shift(coarse.mirrored(axis))
        best = max(best, fine.mirrored(axis).match(shift), key=lambda match: match.score)
    return best


def _check(reference: Volume, image: Volume) -> None:
    """Raise if the two cannot be registered."""
    for volume in (reference, image):
        if 1 in volume.shape:
            raise RlnError(
                f"{volume.name} is {volume.shape} but must be at least 2 voxels along every axis; "
                "give a stack of planes."
            )
        if volume.data.min() == volume.data.max():
            raise RlnError(f"{volume.name} is flat; give a volume that shows the object.")
    for axis, a, b in zip("zyx", size_um(reference), size_um(image), strict=True):
        if max(a, b) > LARGEST_RATIO * min(a, b):
            raise RlnError(
                f"along {axis} {reference.name} spans {a:.3g} um and {image.name} {b:.3g} um, but "
                f"one may be at most {LARGEST_RATIO:g} times the other; check the voxel sizes, or "
                "crop the larger one."
            )


def _judge(match: Match, chance: Match, least: float, names: str) -> None:
    """Raise if a match is poor, small or no better than by chance, warn if hardly better."""
    advice = "check that both show one object the same way round, and their voxel sizes"
    said = f"correlation is {match.correlation:.2f} on {match.share:.0%} of the image at best"
    if match.correlation < FLOOR or match.share < least:
        raise RlnError(
            f"nothing alike was found in {names}: their {said} but must be at least {FLOOR} on "
            f"{least:.0%}; {advice}."
        )
    said += f", that of a mirror image {chance.correlation:.2f} on {chance.share:.0%}"
    if match.score < chance.score:
        raise RlnError(
            f"nothing alike was found in {names}: their {said}; {advice}. An object that is its "
            "own mirror image, such as a bead, can be brought by a translation only."
        )
    if match.score < CLEARLY * chance.score:
        warn(f"the match of {names} may be chance: their {said}; look at it, and {advice}.")


def _phases(settings: RegistrationSettings) -> tuple[Phase, ...]:
    """Return the kinds of transform, up to the one that is wanted."""
    phases: tuple[Phase, ...] = get_args(Phase)
    return phases[: phases.index(settings.transform) + 1]


def _low(volume: Volume) -> float:
    """Return the 1st percentile, of two million voxels at most."""
    return float(np.percentile(volume.data.ravel()[:: 1 + volume.data.size // 2**21], 1))


def _slabs(image: Volume) -> list[slice]:
    """Return ranges of planes that are resampled in well under a second."""
    planes = max(1, FINE_VOXELS // (image.shape[1] * image.shape[2]))
    return [slice(z, z + planes) for z in range(0, image.shape[0], planes)]
