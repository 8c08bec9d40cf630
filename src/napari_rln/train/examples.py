"""Training examples, created on demand and reproducible by number.

A source returns the same example for the same number, so that a resumed training gets the examples
of an uninterrupted one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import FloatArray, Volume, VoxelUm, same_grid
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.calibration import Calibration, calibrate
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.stopping_trial import find_iterations
from napari_rln.io.paths import is_tiff_name, is_zarr
from napari_rln.io.volumes import read
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate
from napari_rln.networks.normalisation import Normalisation, NormalisationMethod
from napari_rln.networks.rln import Views, combine_views
from napari_rln.psf.shape import asymmetry, centre_crop
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.optics import FamilySettings, draw_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.estimates_on_disk import EstimateCache

_SYMMETRIC = 0.05  # asymmetry up to which a PSF may be mirrored
# For accelerated deconvolution: iterations between comparisons, factor beyond the best at which it
# ends, and mean factor and spread between the automatic stop and the best, measured over all PSFs.
_INTERVAL, _PAST, _STOP_FACTOR, _STOP_SPREAD = 3, 1.2, 0.85, 0.4
_LARGEST_PSF = (
    63,
    63,
    63,
)  # voxels, for simulated images: larger ones are slow for little effect


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Allowed augmentations, under which images remain consistent with the PSF.

    Attributes
    ----------
    flips
        Whether mirroring along z, y and x is allowed.
    quarter_turn
        Whether exchanging y and x is allowed.
    """

    flips: tuple[bool, bool, bool] = (True, True, True)
    quarter_turn: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One volume to train on.

    Attributes
    ----------
    pair
        Image and ground truth in image units.
    psf
        Assumed PSF; none for pairs of unknown origin.
    calibration
        Calibration of the image.
    scaling
        Normalisation of the network's input and output.
    x, E0, target
        (Z, Y, X), normalised image, initial estimate and ground truth.
    mean, power
        Mean and variance of the target.
    second
        The second view with its PSF and calibration, if any.
    x_b
        (Z, Y, X), normalised image of the second view.
    views
        How the network combines two views.
    from_image
        Whether the network starts from the image.
    """

    pair: Pair
    psf: Volume | None
    calibration: Calibration
    scaling: Normalisation
    x: FloatArray
    E0: FloatArray
    target: FloatArray
    mean: float
    power: float
    second: rld.PreparedView | None = None
    x_b: FloatArray | None = None
    views: Views = "single"
    from_image: bool = False

    def network_input(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Return the network's input: channels (Z, Y, X) of image and of initial estimate."""
        if self.x_b is None:
            return [self.x], [self.E0]
        x = combine_views(self.views, self.x, self.x_b)
        return x, x if self.from_image else [self.E0] * len(x)

    def classical_views(self) -> list[rld.PreparedView]:
        """Return the views for a classical deconvolution; empty without a PSF."""
        if self.psf is None:
            return []
        first = rld.PreparedView(image=self.pair.image, psf=self.psf, calibration=self.calibration)
        return [first] if self.second is None else [first, self.second]


class ExampleSource(Protocol):
    """Source of pairs by number."""

    @property
    def symmetry(self) -> Symmetry:
        """Allowed augmentations."""

    @property
    def psf_b(self) -> Volume | None:
        """PSF of the second view, or none."""

    def pair(self, number: int) -> tuple[Pair, Volume | None]:
        """Return a pair and its assumed PSF."""


@dataclass(frozen=True, kw_only=True)
class OnePsf:
    """Synthetic pairs for one PSF.

    Parameters
    ----------
    psf
        PSF on the image's voxels, sum 1.
    structures, imaging
        Settings of the objects, and of light and camera.
    shape
        Size (Z, Y, X) of an example.
    seed
        Seed of all examples.
    one_kind
        Use a single kind of structures per example, cycling through the kinds.
    psf_b
        PSF of a second view on the same voxels, if any.
    """

    psf: Volume
    structures: StructureSettings
    imaging: ImagingSettings
    shape: tuple[int, int, int]
    seed: int
    one_kind: bool = False
    psf_b: Volume | None = None

    @cached_property
    def symmetry(self) -> Symmetry:
        """Augmentations allowed by the PSF, or by both."""
        first = symmetry_of(self.psf)
        if self.psf_b is None:
            return first
        other = symmetry_of(self.psf_b)
        z, y, x = (a and b for a, b in zip(first.flips, other.flips, strict=True))
        return Symmetry(flips=(z, y, x), quarter_turn=first.quarter_turn and other.quarter_turn)

    def pair(self, number: int) -> tuple[Pair, Volume]:
        """Return a synthetic pair and the PSF."""
        psf, psf_b = _cropped(self.psf), self.psf_b and _cropped(self.psf_b)
        structures = _single_kind(self.structures, number) if self.one_kind else self.structures
        pair = simulate_pair(
            psf, structures, self.imaging, shape=self.shape, seed=(self.seed, number), psf_b=psf_b
        )
        return pair, psf


@dataclass(frozen=True, kw_only=True)
class AnyPsf:
    """Synthetic pairs, each for another PSF of the family.

    Parameters
    ----------
    family
        Settings of the family of PSFs.
    structures, imaging, shape, seed, one_kind
        As for :class:`OnePsf`.
    """

    family: FamilySettings
    structures: StructureSettings
    imaging: ImagingSettings
    shape: tuple[int, int, int]
    seed: int
    one_kind: bool = False
    symmetry: Symmetry = Symmetry()
    psf_b: None = None

    def pair(self, number: int) -> tuple[Pair, Volume]:
        """Return a synthetic pair and its assumed PSF."""
        optics = draw_psf(self.family, seed=(self.seed, number, 2))
        structures = _single_kind(self.structures, number) if self.one_kind else self.structures
        seed = self.seed, number
        pair = simulate_pair(optics.psf, structures, self.imaging, shape=self.shape, seed=seed)
        return pair, optics.assumed


@dataclass(frozen=True, kw_only=True)
class PairFolder:
    """Pairs from files: ``input/NAME`` and ``ground_truth/NAME`` in a folder.

    Parameters
    ----------
    files
        Images and ground truths; see :func:`pairs_in`.
    psf
        PSF of all pairs, for the started variant.
    symmetry
        Allowed augmentations.
    voxel_um
        Voxel size (z, y, x) in micrometres, if missing or wrong in the files.
    """

    files: Sequence[tuple[Path, Path]]
    psf: Volume | None
    symmetry: Symmetry
    voxel_um: VoxelUm | None = None
    psf_b: None = None

    def pair(self, number: int) -> tuple[Pair, Volume | None]:
        """Return the pair of a number, modulo the number of pairs.

        Raises
        ------
        RlnError
            If shapes or voxel sizes differ, or the PSF does not fit the image.
        """
        files = self.files[number % len(self.files)]
        image, truth = (read(path, voxel_um=self.voxel_um) for path in files)
        if image.shape != truth.shape:
            raise RlnError(
                f"{files[0]} is {image.shape} but {files[1]} is {truth.shape}; "
                "a pair has one shape."
            )
        if not same_grid(image.voxel_um, truth.voxel_um):
            raise RlnError(
                f"{files[0]} has voxels of {image.voxel_um} um but {files[1]} of "
                f"{truth.voxel_um} um (z, y, x); correct the wrong one."
            )
        try:
            checked = (
                rld.check_image(image) if self.psf is None else rld.check_pair(image, self.psf)
            )
            calibrate(checked)
            rld.check_image(replace(truth, name=f"its ground truth, {files[1]},"))
        except RlnError as error:
            raise RlnError(f"{files[0]} cannot be used for training: {error}") from error
        return Pair(image=checked, truth=truth), self.psf

    def check(self, patch: int) -> None:
        """Raise unless all pairs are valid and no smaller than a patch.

        Raises
        ------
        RlnError
            With the first invalid pair.
        """
        for number in range(len(self.files)):
            image = self.pair(number)[0].image
            if min(image.shape) < patch:
                raise RlnError(
                    f"{image.name} is {image.shape} voxels but patches are {patch} wide; use "
                    "smaller patches (`patch`)."
                )


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of files (image, ground truth) of a folder, by name.

    Raises
    ------
    RlnError
        If there are none, or an image has no ground truth.
    """
    images = sorted(
        path
        for path in (folder / "input").glob("*")
        if (is_zarr(path) if path.is_dir() else is_tiff_name(path)) and path.name[0] != "."
    )
    if not images:
        raise RlnError(
            f"there are no pairs in {folder}: it needs input/ and ground_truth/ with volumes of "
            "the same names, .tif or .ome.zarr."
        )
    pairs = [(image, folder / "ground_truth" / image.name) for image in images]
    for image, truth in pairs:
        if not truth.exists():
            raise RlnError(f"{image} has no ground truth: there is no {truth}.")
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
    prepared: EstimateCache | None = None,
) -> Example:
    """Return the example of a number.

    Parameters
    ----------
    source
        Source of pairs.
    number
        Number of the example, from 0.
    start
        Settings of the initial estimate.
    method
        Method of the normalisation.
    output_scale
        Ground truth that becomes 1, in units of the normalisation's scale.
    by_truth
        Replace automatic stopping of the initial estimate by a similar iteration selected by
        ground truth, in one run instead of two.
    views
        How the network combines two views.
    prepared
        Cache of initial estimates; none: no cache.
    """
    pair, psf = source.pair(number)
    calibration = calibrate(pair.image)
    background = calibration.background
    second = x_b = None
    if pair.second is not None:
        assert source.psf_b is not None
        second = rld.PreparedView(
            image=pair.second, psf=_cropped(source.psf_b), calibration=calibrate(pair.second)
        )

    def estimated() -> FloatArray:
        if by_truth and psf is not None and start.needs_psf and start.iterations == "auto":
            return _stopped_by_truth(pair, psf, calibration, start, number, second)
        if second is not None and psf is not None and start.needs_psf:
            return _joint(pair, psf, calibration, start, second)
        cpu = torch.device("cpu")
        view = rld.PreparedView(image=pair.image, psf=psf, calibration=calibration)
        return finish(initial_estimate(Observation.of(view, cpu), start)).data

    volumes = (pair.image, pair.truth, psf, pair.second, source.psf_b)
    made_of = {
        "volumes": [volume and volume.hash for volume in volumes],
        "start": as_dict(start),
        "by_truth": by_truth and number,
        "version": __version__,
    }
    estimate = (prepared or EstimateCache()).estimate(made_of, estimated)
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


def rescaled(made: Example, factor: float) -> Example:
    """Return an example with its output scale multiplied by a factor."""
    return replace(
        made,
        target=made.target / np.float32(factor),
        mean=made.mean / factor,
        power=max(made.power / factor**2, 1e-6),
    )


def _joint(
    pair: Pair,
    psf: Volume,
    calibration: Calibration,
    start: StartSettings,
    second: rld.PreparedView,
) -> FloatArray:
    """Return the initial estimate of inference with two views."""
    settings, cpu = start.rld(), torch.device("cpu")
    first = rld.PreparedView(image=pair.image, psf=psf, calibration=calibration)
    if start.iterations == "auto":
        stop = finish(find_iterations(first, settings, cpu, time.perf_counter()))
        iterations = start.after(stop.iterations)
    else:
        iterations = start.iterations
    run = rld.start_iteration([first, second], replace(settings, start="image"), cpu)
    for _ in range(iterations):
        run.step(measure=False)
    return run.estimate()


def _stopped_by_truth(
    pair: Pair,
    psf: Volume,
    calibration: Calibration,
    start: StartSettings,
    number: int,
    second: rld.PreparedView | None = None,
) -> FloatArray:
    """Return approximately the initial estimate of inference.

    The iteration is the closest to ground truth, with a random deviation like that of automatic
    stopping, times the factor of the settings.
    """
    settings = start.rld()
    observed = [rld.PreparedView(image=pair.image, psf=psf, calibration=calibration)]
    if second is not None:
        observed, settings = [*observed, second], replace(settings, start="image")
    run = rld.start_iteration(observed, settings, torch.device("cpu"))
    truth = pair.truth.data - pair.truth.data.mean()
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
    return Symmetry(flips=(z, y, x), quarter_turn=_round(psf))


def _round(psf: Volume) -> bool:
    """Return whether a PSF is symmetric under exchange of y and x."""
    if psf.shape[1] != psf.shape[2] or psf.voxel_um[1] != psf.voxel_um[2]:
        return False
    exchanged = psf.data.swapaxes(1, 2)
    return bool(0.5 * np.abs(psf.data - exchanged).sum() < _SYMMETRIC * psf.data.sum())


def _cropped(psf: Volume) -> Volume:
    """Return the central part of a PSF, of at most the largest size, sum 1."""
    if all(n <= most for n, most in zip(psf.shape, _LARGEST_PSF, strict=True)):
        return psf
    data = centre_crop(psf.data, _LARGEST_PSF)
    return psf.with_data(data / data.sum())
