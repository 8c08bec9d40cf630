"""What the network learns from: examples by their number, made when asked for and always alike.

A source gives the example of any number; the same number gives the same example, so that a run
that was broken off goes on with what an unbroken one would have seen.
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
from napari_rln.deconvolution.method import Scene
from napari_rln.deconvolution.stopping_trial import seek_stop
from napari_rln.io.paths import is_tiff_name, is_zarr
from napari_rln.io.volumes import read_volume
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate
from napari_rln.networks.normalisation import Method, Normalisation
from napari_rln.networks.rln import Views, together
from napari_rln.psf.shape import asymmetry, centre_crop
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.optics import FamilySettings, draw_optics
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.estimates_on_disk import Prepared

_SYMMETRIC = 0.05  # share of light without a mirror image up to which a PSF may be mirrored
# Of an accelerated deconvolution: iterations between two looks, how far beyond the best it goes,
# and by what factor and spread the automatic stop missed the best in trials over all PSFs.
_BETWEEN, _PAST, _MISS, _MISS_SPREAD = 3, 1.2, 0.85, 0.4
_LARGEST_PSF = (63, 63, 63)  # that images are made with, in voxels: more costs time, shows little


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """How examples may be turned without making images that the microscope does not take.

    Attributes
    ----------
    flips
        Whether they may be mirrored along z, y and x.
    quarter_turn
        Whether y and x may be exchanged.
    """

    flips: tuple[bool, bool, bool] = (True, True, True)
    quarter_turn: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One volume to learn from.

    Attributes
    ----------
    pair
        Image and truth in image units.
    psf
        What is believed to be the PSF; none for pairs of unknown origin.
    calibration
        As found in the image.
    scaling
        To the network's scale and back.
    x, E0, target
        (Z, Y, X) on the network's scale: image, first estimate, truth.
    mean, power
        Mean and variance of the target.
    second
        The second view, its PSF and calibration, where there is one.
    x_b
        (Z, Y, X), that view on its own scale.
    views
        How the network is given both.
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
    second: rld.Seen | None = None
    x_b: FloatArray | None = None
    views: Views = "single"
    from_image: bool = False

    def given(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Return the channels, each (Z, Y, X), of what the network is given: image and estimate."""
        if self.x_b is None:
            return [self.x], [self.E0]
        x = together(self.views, self.x, self.x_b)
        return x, x if self.from_image else [self.E0] * len(x)

    def seen(self) -> list[rld.Seen]:
        """Return what a classical deconvolution is given; nothing without a PSF."""
        if self.psf is None:
            return []
        first = rld.Seen(image=self.pair.image, psf=self.psf, calibration=self.calibration)
        return [first] if self.second is None else [first, self.second]


class ExampleSource(Protocol):
    """Gives pairs by their number."""

    @property
    def symmetry(self) -> Symmetry:
        """How they may be turned."""

    @property
    def psf_b(self) -> Volume | None:
        """The PSF of a second view; none where there is no such."""

    def pair(self, number: int) -> tuple[Pair, Volume | None]:
        """Return a pair and what is believed to be its PSF."""


@dataclass(frozen=True, kw_only=True)
class OnePsf:
    """Synthetic pairs of one PSF.

    Parameters
    ----------
    psf
        On the image's voxels, sum 1.
    structures, imaging
        What is seen, and with how much light.
    shape
        (Z, Y, X) of an example.
    seed
        Of all of them.
    one_kind
        Show one kind of structures at a time, by turns.
    psf_b
        Of a second view, on the same voxels, where there is one.
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
        """What the PSF allows, or both."""
        first = symmetry_of(self.psf)
        if self.psf_b is None:
            return first
        other = symmetry_of(self.psf_b)
        z, y, x = (a and b for a, b in zip(first.flips, other.flips, strict=True))
        return Symmetry(flips=(z, y, x), quarter_turn=first.quarter_turn and other.quarter_turn)

    def pair(self, number: int) -> tuple[Pair, Volume]:
        """Return a synthetic pair and the PSF."""
        psf, psf_b = _cropped(self.psf), self.psf_b and _cropped(self.psf_b)
        structures = _by_turns(self.structures, number) if self.one_kind else self.structures
        pair = simulate_pair(
            psf, structures, self.imaging, shape=self.shape, seed=(self.seed, number), psf_b=psf_b
        )
        return pair, psf


@dataclass(frozen=True, kw_only=True)
class AnyPsf:
    """Synthetic pairs, each of another PSF of the family.

    Parameters
    ----------
    family
        Of PSFs.
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
        """Return a synthetic pair and what is believed to be its PSF."""
        optics = draw_optics(self.family, seed=(self.seed, number, 2))
        structures = _by_turns(self.structures, number) if self.one_kind else self.structures
        seed = self.seed, number
        pair = simulate_pair(optics.psf, structures, self.imaging, shape=self.shape, seed=seed)
        return pair, optics.believed


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Pairs from files: ``input/NAME`` and ``ground_truth/NAME`` in a folder.

    Parameters
    ----------
    files
        Images and truths; see :func:`pairs_in`.
    psf
        Of all of them, for the started variant.
    symmetry
        How they may be turned.
    voxel_um
        Voxel size (z, y, x) in micrometres, where the files do not say it or are wrong.
    """

    files: Sequence[tuple[Path, Path]]
    psf: Volume | None
    symmetry: Symmetry
    voxel_um: VoxelUm | None = None
    psf_b: None = None

    def pair(self, number: int) -> tuple[Pair, Volume | None]:
        """Return the pair of a number, from the first again after the last.

        Raises
        ------
        RlnError
            If the two are not of one shape, or the image cannot be deconvolved by the PSF.
        """
        files = self.files[number % len(self.files)]
        image, truth = (read_volume(path, voxel_um=self.voxel_um) for path in files)
        if image.shape != truth.shape:
            raise RlnError(
                f"{files[0]} is {image.shape} but {files[1]} is {truth.shape}; "
                "a pair has one shape."
            )
        if not same_grid(image.voxel_um, truth.voxel_um):
            raise RlnError(
                f"{files[0]} has voxels of {image.voxel_um} um but {files[1]} of "
                f"{truth.voxel_um} um (z, y, x); correct the one that is wrong."
            )
        try:
            checked = (
                rld.check_image(image) if self.psf is None else rld.check_pair(image, self.psf)
            )
            calibrate(checked)
            rld.check_image(replace(truth, name=f"its truth, {files[1]},"))
        except RlnError as error:
            raise RlnError(f"nothing can be learnt from {files[0]}: {error}") from error
        return Pair(image=checked, truth=truth), self.psf

    def check(self, patch: int) -> None:
        """Raise unless all pairs can be learnt from in patches of a size.

        Raises
        ------
        RlnError
            Naming the first that cannot.
        """
        for number in range(len(self.files)):
            image = self.pair(number)[0].image
            if min(image.shape) < patch:
                raise RlnError(
                    f"{image.name} is {image.shape} voxels but patches are {patch} wide; make the "
                    "patches smaller (`patch`)."
                )


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Return the files of a folder's pairs, by name.

    Raises
    ------
    RlnError
        If there are none, or an image has no truth.
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
            raise RlnError(f"{image} has no truth: there is no {truth}.")
    return pairs


def example(
    source: ExampleSource,
    number: int,
    start: StartSettings,
    method: Method,
    *,
    output_scale: float = 1.0,
    by_truth: bool = False,
    views: Views = "single",
    prepared: Prepared | None = None,
) -> Example:
    """Return the example of a number.

    Parameters
    ----------
    source
        Of pairs.
    number
        From 0.
    start
        How the first estimate is made.
    method
        Of the normalisation.
    output_scale
        What of the truth becomes 1, in units of the map's scale.
    by_truth
        Where the start stops by itself, have the truth stop it instead, about where it would: it
        takes one run, not two.
    views
        How the network is given two, where there are two.
    prepared
        Keeps first estimates; none are kept when none.
    """
    pair, psf = source.pair(number)
    calibration = calibrate(pair.image)
    background = calibration.background
    second = x_b = None
    if pair.second is not None:
        assert source.psf_b is not None
        second = rld.Seen(
            image=pair.second, psf=_cropped(source.psf_b), calibration=calibrate(pair.second)
        )

    def estimated() -> FloatArray:
        if by_truth and psf is not None and start.needs_psf and start.iterations == "auto":
            return _stopped_by_truth(pair, psf, calibration, start, number, second)
        if second is not None and psf is not None and start.needs_psf:
            return _joint(pair, psf, calibration, start, second)
        cpu = torch.device("cpu")
        view = rld.Seen(image=pair.image, psf=psf, calibration=calibration)
        return finish(initial_estimate(Scene.of(view, cpu), start)).data

    volumes = (pair.image, pair.truth, psf, pair.second, source.psf_b)
    made_of = {
        "volumes": [volume and volume.hash for volume in volumes],
        "start": as_dict(start),
        "by_truth": by_truth and number,
        "version": __version__,
    }
    estimate = (prepared or Prepared()).estimate(made_of, estimated)
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
    """Return an example with another output scale, that many times the one before."""
    return replace(
        made,
        target=made.target / np.float32(factor),
        mean=made.mean / factor,
        power=max(made.power / factor**2, 1e-6),
    )


def _joint(
    pair: Pair, psf: Volume, calibration: Calibration, start: StartSettings, second: rld.Seen
) -> FloatArray:
    """Return the estimate that an application to two views would start from."""
    told, cpu = start.rld(), torch.device("cpu")
    if start.iterations == "auto":
        stop = finish(seek_stop(pair.image, psf, calibration, told, cpu, time.perf_counter()))
        iterations = start.after(stop.iterations)
    else:
        iterations = start.iterations
    first = rld.Seen(image=pair.image, psf=psf, calibration=calibration)
    run = rld.start_views([first, second], replace(told, start="image"), cpu)
    for _ in range(iterations):
        run.step(measure=False)
    return run.estimate()


def _stopped_by_truth(
    pair: Pair,
    psf: Volume,
    calibration: Calibration,
    start: StartSettings,
    number: int,
    second: rld.Seen | None = None,
) -> FloatArray:
    """Return about the estimate that an application would start from.

    It is that of the iteration nearest to the truth, missed as the noise misses it, and as far
    beyond as the start goes.
    """
    told = start.rld()
    seen = [rld.Seen(image=pair.image, psf=psf, calibration=calibration)]
    if second is not None:
        seen, told = [*seen, second], replace(told, start="image")
    run = rld.start_views(seen, told, torch.device("cpu"))
    truth = pair.truth.data - pair.truth.data.mean()
    kept: list[FloatArray] = []
    likeness: list[float] = []
    further = max(1.0, start.beyond)
    while len(kept) * _BETWEEN < further * told.max_iterations:
        for _ in range(_BETWEEN):
            run.step(measure=False)
        kept.append(run.estimate())
        off = kept[-1] - kept[-1].mean()
        likeness.append(float(np.vdot(off, truth) / max(float(np.linalg.norm(off)), 1e-30)))
        if len(kept) > 3 + _PAST * further * (1 + int(np.argmax(likeness))):
            break
    rng = np.random.default_rng((number, 3))
    best = 1 + int(np.argmax(likeness))
    missed = best * start.beyond * _MISS * np.exp(_MISS_SPREAD * rng.normal())
    return kept[int(np.clip(round(missed), 1, len(kept))) - 1]


def _by_turns(structures: StructureSettings, number: int) -> StructureSettings:
    """Return the settings of one kind only, and of haze with it where there may be such."""
    kinds = [kind for kind in structures.structures if kind != "haze"]
    if not kinds:
        return structures
    haze = tuple(kind for kind in structures.structures if kind == "haze")
    return replace(structures, structures=(kinds[number % len(kinds)], *haze))


def symmetry_of(psf: Volume) -> Symmetry:
    """Return how images of a PSF may be turned."""
    z, y, x = (share < _SYMMETRIC for share in asymmetry(psf.data))
    return Symmetry(flips=(z, y, x), quarter_turn=_round(psf))


def _round(psf: Volume) -> bool:
    """Tell whether a PSF looks the same with y and x exchanged."""
    if psf.shape[1] != psf.shape[2] or psf.voxel_um[1] != psf.voxel_um[2]:
        return False
    turned = psf.data.swapaxes(1, 2)
    return bool(0.5 * np.abs(psf.data - turned).sum() < _SYMMETRIC * psf.data.sum())


def _cropped(psf: Volume) -> Volume:
    """Return the middle of a PSF, of at most the largest size, sum 1."""
    if all(n <= most for n, most in zip(psf.shape, _LARGEST_PSF, strict=True)):
        return psf
    data = centre_crop(psf.data, _LARGEST_PSF)
    return psf.with_data(data / data.sum())
