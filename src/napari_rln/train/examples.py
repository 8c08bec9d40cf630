"""Training examples, created on demand and reproducible by number.

A source returns the same example for the same number, so that a resumed training gets the examples
of an uninterrupted one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from napari_rln import __version__
from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import FloatArray, Mask, Shape, Volume, VoxelUm, check_on_grid
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.calibration import Calibration, calibrate, prepare_data
from napari_rln.deconvolution.ladder import COUNTS, MOST, STOP, Ladder
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.io.paths import is_tiff_name, is_zarr
from napari_rln.io.volumes import read
from napari_rln.networks.architectures.base import Views
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate
from napari_rln.networks.normalisation import Normalisation, NormalisationMethod
from napari_rln.networks.rln import combine_views
from napari_rln.psf.shape import asymmetry, centre_crop
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.optics import LARGEST_PSF, draw_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.estimates_on_disk import EstimateCache

_SYMMETRIC = 0.05  # asymmetry up to which a PSF may be mirrored
# For accelerated deconvolution: iterations between comparisons, factor beyond the best at which it
# ends, and mean factor and spread between the automatic stop and the best, measured over all PSFs.
_INTERVAL, _PAST, _STOP_FACTOR, _STOP_SPREAD = 3, 1.2, 0.85, 0.4
_SURELY_BELOW = 28.0  # predicted iterations, beyond which estimates of many are kept too


LARGEST_CROP = (63, 63, 63)
"""Largest part of a PSF (z, y, x) in voxels that images are simulated with: larger ones are slow
for little effect."""


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Allowed augmentations, under which images remain consistent with the PSF.

    Mirroring along z, y and x (``flips``), and exchanging y and x (``quarter_turn``).
    """

    flips: tuple[bool, bool, bool] = (True, True, True)
    quarter_turn: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One volume to train on.

    Attributes
    ----------
    x, E0
        Image and initial estimate (Z, Y, X), normalised.
    target, mean, power
        Ground truth (Z, Y, X) in units of the scale, and its mean and variance.
    scaling
        Normalisation.
    light, candidates
        For a refinement: image and candidate estimates (Z, Y, X) in units of the scale.
    estimates
        Matched Richardson-Lucy estimates (Z, Y, X) by number of iterations, if known.
    pair, psf, calibration, mask
        Image and ground truth in image units, PSF assumed, and calibration and measured voxels of
        the image; none if only the arrays are known, the PSF also for pairs of unknown origin.
    second, x_b
        Second view, and its normalised image.
    from_image
        Whether the network starts from the image.
    """

    x: FloatArray
    E0: FloatArray
    target: FloatArray
    mean: float
    power: float
    scaling: Normalisation
    light: FloatArray | None = None
    candidates: tuple[FloatArray, ...] = ()
    estimates: Mapping[int, FloatArray] = field(default_factory=dict)
    pair: Pair | None = None
    psf: Volume | None = None
    calibration: Calibration = field(default_factory=Calibration)
    mask: Mask | None = None
    second: PreparedView | None = None
    x_b: FloatArray | None = None
    views: Views = "single"
    from_image: bool = False

    def network_input(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Return the network's input: channels (Z, Y, X) of image and of initial estimate."""
        if self.x_b is None:
            return [self.x], [self.E0]
        x = combine_views(self.views, self.x, self.x_b)
        return x, x if self.from_image else [self.E0] * len(x)

    def classical_views(self) -> list[PreparedView]:
        """Return the views for a classical deconvolution; empty without a PSF."""
        if self.psf is None or self.pair is None:
            return []
        first = PreparedView(
            image=self.pair.image, psf=self.psf, calibration=self.calibration, mask=self.mask
        )
        return [first] if self.second is None else [first, self.second]

    def arrays_alone(self) -> "Example":
        """Return the example as it is trained on, without what only a baseline needs."""
        return replace(self, estimates={}, pair=None, psf=None, mask=None, second=None)

    def in_units_of_target(self, output: FloatArray) -> FloatArray:
        """Return a network's output (Z, Y, X) in units of the target."""
        if not self.scaling.gain:
            return output
        light = self.scaling.undo(output) - np.float32(self.scaling.offset)
        scaled: FloatArray = np.maximum(light, 0) / np.float32(self.scaling.scale)
        return scaled

    @property
    def about(self) -> tuple[float, float]:
        """Photons of the scale, and the background in units of it; for a refinement."""
        return self.scaling.photons, self.scaling.background / self.scaling.photons


@dataclass(frozen=True, kw_only=True)
class SyntheticPairs:
    """Synthetic pairs of a shape (Z, Y, X), of one PSF or each of another PSF of the family.

    Parameters
    ----------
    psf
        PSF on the image's voxels, sum 1; none: random PSFs of the family.
    psf_b
        PSF of a second view on the same voxels, if any.
    one_kind
        Use a single kind of structures per example, cycling through the kinds.
    largest
        Maximum size (z, y, x) of random PSFs in voxels.
    conditions
        Detectors and defects of the images; none: those of ``imaging`` alone.
    """

    psf: Volume | None
    psf_b: Volume | None = None
    structures: StructureSettings
    imaging: ImagingSettings
    shape: Shape
    seed: int
    one_kind: bool = False
    largest: Shape = LARGEST_PSF
    conditions: FieldConditions | None = None

    @cached_property
    def symmetry(self) -> Symmetry:
        """Augmentations that all PSFs allow; all of them for the family."""
        each = [symmetry_of(psf) for psf in (self.psf, self.psf_b) if psf is not None]
        z, y, x = (all(one.flips[axis] for one in each) for axis in range(3))
        return Symmetry(flips=(z, y, x), quarter_turn=all(one.quarter_turn for one in each))

    def pair(self, number: int) -> tuple[Pair, Volume]:
        """Return a synthetic pair and its assumed PSF."""
        if self.psf is None:
            psf, assumed = draw_psf(seed=(self.seed, number, 2), largest=self.largest)
        else:
            psf = assumed = cropped(self.psf)
        pair = simulate_pair(
            psf,
            _single_kind(self.structures, number) if self.one_kind else self.structures,
            self.imaging,
            shape=self.shape,
            seed=(self.seed, number),
            psf_b=self.psf_b and cropped(self.psf_b),
            conditions=self.conditions,
        )
        return pair, assumed


@dataclass(frozen=True, kw_only=True)
class PairFolder:
    """Pairs from files: ``input/NAME`` and ``ground_truth/NAME`` in a folder; see :func:`pairs_in`.

    All are of one PSF, for the started variant; its symmetry is that of the allowed augmentations.
    The voxel size (z, y, x) in micrometres is for files that lack it.
    """

    files: Sequence[tuple[Path, Path]]
    psf: Volume | None
    symmetry: Symmetry
    voxel_um: VoxelUm | None = None
    psf_b: None = None

    def pair(self, number: int) -> tuple[Pair, Volume | None]:
        """Return the pair of a number, modulo the number of pairs.

        Raise an RlnError if shapes or voxel sizes differ, or the PSF does not fit the image.
        """
        files = self.files[number % len(self.files)]
        image, truth = (read(path, voxel_um=self.voxel_um) for path in files)
        named, psf = replace(truth, name=f"its ground truth {files[1]}"), self.psf
        try:
            check_on_grid(named, image)
            checked = rld.check_image(image) if psf is None else rld.check_pair(image, psf)
            calibrate(checked)
            rld.check_image(named)
        except RlnError as error:
            raise RlnError(f"{files[0]} cannot be used for training: {error}") from error
        return Pair(image=checked, truth=truth), psf

    def check(self, patch: int) -> None:
        """Raise an RlnError with the first pair that is invalid, or smaller than a patch."""
        for number in range(len(self.files)):
            image = self.pair(number)[0].image
            if min(image.shape) < patch:
                raise RlnError(
                    f"{image.name} is {image.shape} voxels, less than the {patch} of a patch; use "
                    "smaller patches (`patch`)."
                )


ExampleSource = SyntheticPairs | PairFolder
"""Source of pairs by number."""


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of files (image, ground truth) of a folder, by name.

    Raise an RlnError if there are none, or an image has no ground truth.
    """
    images = sorted(
        path
        for path in (folder / "input").glob("*")
        if (is_zarr(path) if path.is_dir() else is_tiff_name(path)) and path.name[0] != "."
    )
    if not images:
        raise RlnError(
            f"there are no pairs in {folder}; give a folder with input/ and ground_truth/, and "
            "volumes of equal names in both, .tif or .ome.zarr."
        )
    pairs = [(image, folder / "ground_truth" / image.name) for image in images]
    for image, truth in pairs:
        if not truth.exists():
            raise RlnError(f"{image} has no ground truth; add {truth}, or remove the image.")
    return pairs


def example(
    source: ExampleSource,
    number: int,
    start: StartSettings,
    method: NormalisationMethod,
    *,
    output_scale: float = 1.0,
    by_truth: bool = False,
    views: Views = "single",
    cache: EstimateCache | None = None,
) -> Example:
    """Return the example of a number, from 0.

    ``output_scale`` is the ground truth that becomes 1, in units of the normalisation's scale.
    ``by_truth`` replaces automatic stopping of the initial estimate by a similar iteration selected
    by ground truth, in one run instead of two.
    """
    pair, psf = source.pair(number)
    if start.method == "ladder":
        assert psf is not None
        view = prepared(pair.image, psf)
        kept = ladder_volumes(pair, view)
        made = example_of_ladder(kept, start.beyond, method, output_scale=output_scale)
        pair = replace(pair, image=view.image)
        return replace(made, pair=pair, psf=psf, calibration=view.calibration, mask=view.mask)
    calibration = calibrate(pair.image)
    background = calibration.background
    second = x_b = None
    if pair.second is not None:
        assert source.psf_b is not None
        second = PreparedView(
            image=pair.second, psf=cropped(source.psf_b), calibration=calibrate(pair.second)
        )

    first = PreparedView(image=pair.image, psf=psf, calibration=calibration)
    observed = [first] if second is None else [first, second]

    def estimated() -> FloatArray:
        if by_truth and psf is not None and start.needs_psf and start.iterations == "auto":
            return _stopped_by_truth(observed, pair.truth.data, start, number)
        observation = replace(Observation.of(first, torch.device("cpu")), views=tuple(observed))
        return finish(initial_estimate(observation, start)).data

    volumes = (pair.image, pair.truth, psf, pair.second, source.psf_b)
    depends_on = {
        "volumes": [volume and volume.hash for volume in volumes],
        "start": as_dict(start),
        "by_truth": by_truth and number,
        "version": __version__,
    }
    estimate = (cache or EstimateCache()).estimate(depends_on, estimated)
    if second is not None:
        level = second.calibration.background
        own = Normalisation.of(second.image.data, estimate, level, method)
        x_b = own.apply(second.image.data)
    scaling = Normalisation.of(pair.image.data, estimate, background, method)
    target = (pair.truth.data / (scaling.scale * output_scale)).astype(np.float32)
    return Example(
        pair=pair,
        psf=psf,
        calibration=calibration,
        scaling=scaling,
        x=scaling.apply(pair.image.data),
        E0=scaling.apply(estimate + background),
        target=target,
        mean=float(target.mean()),
        power=max(float(target.var()), 1e-6),
        second=second,
        x_b=x_b,
        views=views,
        from_image=not start.needs_psf,
    )


class LadderVolumes(NamedTuple):
    """Image, ground truth, and estimates by number of iterations, (Z, Y, X) photons.

    Without background. Deviances of the first estimates per voxel, and background in photons.
    """

    light: FloatArray
    truth: FloatArray
    estimates: Mapping[int, FloatArray]
    deviances: Sequence[float]
    background: float


def ladder_volumes(pair: Pair, view: PreparedView) -> LadderVolumes:
    """Return the estimates of a prepared image, with image and ground truth."""
    photons = np.float32(1 / view.calibration.camera.gain)
    run = _ladder_run(view)
    return LadderVolumes(
        (view.image.data - np.float32(view.calibration.background)) * photons,
        pair.truth.data * photons,
        {count: estimate * photons for count, estimate in run.kept.items()},
        [run.deviances[count] for count in COUNTS],
        view.calibration.background_photons,
    )


def prepared(image: Volume, psf: Volume) -> PreparedView:
    """Return an image with its defective voxels repaired or masked, as in an application."""
    calibration = calibrate(image)
    data, mask, _ = prepare_data(image.data, psf.data, calibration)
    return PreparedView(image=image.with_data(data), psf=psf, calibration=calibration, mask=mask)


def _ladder_run(view: PreparedView) -> RichardsonLucyIteration:
    """Return a deconvolution that keeps the estimates of a ladder.

    Up to the largest number where the predicted best one may need it.
    """
    run = rld.start_iteration(
        [view], rld.RichardsonLucySettings(), torch.device("cpu"), marks=(*COUNTS, MOST)
    )
    while run.done < COUNTS[-1]:
        run.step(measure=False)
    if Ladder(STOP, 1.0).predict(view, run) > _SURELY_BELOW:
        while run.done < MOST:
            run.step(measure=False)
    return run


def example_of_ladder(
    volumes: LadderVolumes,
    beyond: float,
    method: NormalisationMethod,
    *,
    output_scale: float = 1.0,
) -> Example:
    """Return the example of an image with several estimates, up to ``beyond`` times the stop.

    Normalisation and output scale are as for :func:`example`.
    """
    light, truth, estimates, deviances, background = volumes
    made = Ladder(STOP, beyond)
    candidates = made.around(estimates, made.best(light, estimates, deviances, background))
    E0 = candidates[-1]
    scaling = Normalisation(offset=0.0, scale=brightness(candidates[1]))
    if method == "photons":
        scaling = replace(scaling, gain=1.0, background=background)
    unit = np.float32(scaling.scale)
    target = truth / np.float32(scaling.scale * output_scale)
    return Example(
        x=scaling.apply(light),
        E0=scaling.apply(E0),
        target=target,
        mean=float(target.mean()),
        power=max(float(target.var()), 1e-6),
        scaling=scaling,
        light=light / unit,
        candidates=tuple(candidate / unit for candidate in candidates),
        estimates=estimates,
    )


def rescaled(original: Example, factor: float) -> Example:
    """Return an example with its output scale multiplied by a factor."""
    return replace(
        original,
        target=original.target / np.float32(factor),
        mean=original.mean / factor,
        power=max(original.power / factor**2, 1e-6),
    )


def _stopped_by_truth(
    observed: Sequence[PreparedView], truth: FloatArray, start: StartSettings, number: int
) -> FloatArray:
    """Return approximately the initial estimate of inference.

    The iteration is the closest to ground truth, with a random deviation like that of automatic
    stopping, times the factor of the settings.
    """
    settings = start.rld()
    if len(observed) > 1:
        settings = replace(settings, start="image")
    run = rld.start_iteration(observed, settings, torch.device("cpu"))
    truth = truth - truth.mean()
    estimates: list[FloatArray] = []
    similarity: list[float] = []
    further = max(1.0, start.beyond)
    while len(estimates) * _INTERVAL < further * settings.max_iterations:
        for _ in range(_INTERVAL):
            run.step(measure=False)
        estimates.append(run.estimate())
        off = estimates[-1] - estimates[-1].mean()
        similarity.append(float(np.vdot(off, truth) / max(float(np.linalg.norm(off)), 1e-30)))
        if len(estimates) > 3 + _PAST * further * (1 + int(np.argmax(similarity))):
            break
    rng = np.random.default_rng((number, 3))
    best = 1 + int(np.argmax(similarity))
    chosen = best * start.beyond * _STOP_FACTOR * np.exp(_STOP_SPREAD * rng.normal())
    return estimates[int(np.clip(round(chosen), 1, len(estimates))) - 1]


def _single_kind(structures: StructureSettings, number: int) -> StructureSettings:
    """Return the settings with a single kind, and haze if included."""
    kinds = [kind for kind in structures.structures if kind != "haze"]
    if not kinds:
        return structures
    haze = tuple(kind for kind in structures.structures if kind == "haze")
    return replace(structures, structures=(kinds[number % len(kinds)], *haze))


def symmetry_of(psf: Volume) -> Symmetry:
    """Return the augmentations allowed for images of a PSF."""
    z, y, x = (value < _SYMMETRIC for value in asymmetry(psf.data))
    square = psf.shape[1] == psf.shape[2] and psf.voxel_um[1] == psf.voxel_um[2]
    if square:
        unpaired = 0.5 * np.abs(psf.data - psf.data.swapaxes(1, 2)).sum()
        square = bool(unpaired < _SYMMETRIC * psf.data.sum())
    return Symmetry(flips=(z, y, x), quarter_turn=square)


def cropped(psf: Volume) -> Volume:
    """Return the central part of a PSF, of at most the largest size, sum 1."""
    if all(n <= most for n, most in zip(psf.shape, LARGEST_CROP, strict=True)):
        return psf
    data = centre_crop(psf.data, LARGEST_CROP)
    return psf.with_data(data / data.sum())
