"""Resolution without ground truth: correlation of results from two halves of the photons.

Each photon of an image is put into one of two images at random. These show the same object and, by
the statistics of photons, their noise is independent: what their deconvolutions have in common is
signal. The Fourier shell correlation of the two says up to which frequency.

Read the number with care.

- Each result is made from half of the photons, and so is noisier than that from all of them. The
  threshold, 1/7, is the one in use for two halves of the data (Rosenthal and Henderson, J. Mol.
  Biol. 333, 2003): it takes that into account for a linear reconstruction, which deconvolution
  is not.
- Whatever a method adds to any image (sharp edges where it allows no negative light, the habits of
  a network) is in both results, and correlates. It measures how well a result repeats, and not
  whether it is true.
- What the camera fixes to a voxel is in both halves too.
- The halves are independent only as far as the variance of the image equals its mean, in photons.
  That follows from gain and offset; a wrong gain makes noise correlate. Noise that interpolation
  has correlated between neighbours cannot be split by photons: noise of the same power and spectrum
  is added to one half and subtracted from the other instead (Pang et al., CVPR 2021, p. 2043).
  Saturated and filled voxels are not photons at all, and are the same in both halves; methods get
  them as unmeasured.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Mask, Volume, same_grid
from napari_rln.deconvolution.calibration import Calibration, Camera
from napari_rln.deconvolution.method import Method, Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import check_image
from napari_rln.deconvolution.shared import Shared
from napari_rln.evaluate.fourier_shell import Direction, ShellCurve, fourier_shell_correlation

LEAST_VOXELS = 8
"""Least number of voxels along a direction to measure the resolution there."""


class Halves(NamedTuple):
    """Two images (Z, Y, X), photons, with half of the light each, and their calibration."""

    first: FloatArray
    second: FloatArray
    calibration: Calibration


@dataclass(frozen=True, kw_only=True, eq=False)
class HalfPhotons:
    """Results from two halves of the photons, and their correlation.

    Attributes
    ----------
    results
        Results of the halves, photons; their sum is comparable with the result of the image.
    lateral, axial
        Fourier shell correlation of the two; none along a direction of fewer than eight voxels.
    cautions
        Sentences on what, in this image, is not independent in the halves.
    seconds
        Time of both deconvolutions.
    """

    results: tuple[Volume, Volume]
    lateral: ShellCurve | None
    axial: ShellCurve | None
    cautions: tuple[str, ...]
    seconds: float

    @property
    def lateral_um(self) -> float | None:
        """Resolution in xy, micrometres; twice the voxel where the correlation never falls."""
        return None if self.lateral is None else self.lateral.resolution_um

    @property
    def axial_um(self) -> float | None:
        """Resolution in z, micrometres; twice the voxel where the correlation never falls."""
        return None if self.axial is None else self.axial.resolution_um


def half_photons(
    image: Volume,
    psf: Volume | None,
    method: Method,
    *,
    seed: int = 0,
    shared: Shared | None = None,
) -> HalfPhotons:
    """Return the results from two halves of the photons; see :func:`half_photons_iter`."""
    return finish(half_photons_iter(image, psf, method, seed=seed, shared=shared))


def half_photons_iter(
    image: Volume,
    psf: Volume | None,
    method: Method,
    *,
    seed: int = 0,
    shared: Shared | None = None,
) -> Generator[Report, None, HalfPhotons]:
    """Yield reports, return the results of a method from two halves of an image's photons.

    Closing the generator cancels. It takes about twice the time of the method.

    Parameters
    ----------
    image
        (Z, Y, X), in any unit proportional to photons.
    psf
        On the image's voxels, as for :func:`napari_rln.engine.in_memory.deconvolve`.
    method
        Method; its background, offset and gain, or those estimated, convert the image to photons.
    seed
        Seed of the split.
    shared
        Calibration of the image, shared with other computations.

    Raises
    ------
    RlnError
        If the image has no photon noise and no gain was given, the method needs another voxel
        size, image and PSF do not match, or the image is too large to be deconvolved whole.
    """
    method.check(image, psf)
    image = check_image(image, method.negatives)
    if not same_grid(method.grid_of(image), image.voxel_um, 0.0):
        raise RlnError(
            f"{method.title} resamples {image.name}, whose noise then is correlated between voxels "
            "and cannot be split by photons; resample the image first."
        )
    shared = shared or Shared()
    calibration = shared.calibrate(image, method)
    clean, mask, _ = shared.prepare(image, psf, calibration, repair=method.repair_image)
    halves = split_photons(clean, calibration, seed)
    results = []
    started = time.perf_counter()
    for number, half in enumerate((halves.first, halves.second), 1):
        part = image.with_data(half, name=f"{image.name} · half {number}", record=None, fill=None)
        view = PreparedView(image=part, psf=psf, calibration=halves.calibration, mask=mask)
        results.append((yield from _deconvolved(view, method)))
    first, second = results
    lateral, axial = correlate(first, second)
    return HalfPhotons(
        results=(first, second),
        lateral=lateral,
        axial=axial,
        cautions=_cautions(calibration, mask),
        seconds=time.perf_counter() - started,
    )


def split_photons(image: Volume, calibration: Calibration, seed: int = 0) -> Halves:
    """Return an image split into two of half the light and independent noise, photons.

    With white noise each photon goes to either of them with equal probability. With correlated
    noise, noise like that of the image is added to one and subtracted from the other.

    Raises
    ------
    RlnError
        If the gain of the image is not known.
    """
    camera = calibration.camera
    if not camera.counts_photons:
        raise RlnError(
            f"{image.name} has no photon noise, so it cannot be split into halves of photons: it "
            "was smoothed, or simulated without noise. Give the image as acquired, or its gain "
            "(`gain`)."
        )
    rng = np.random.default_rng(seed)
    photons = camera.photons(image.data)
    if calibration.spectrum.white:
        # Values between whole photons are rounded to either, with their mean kept.
        whole = np.floor(photons + rng.random(photons.shape, dtype=np.float32)).astype(np.int64)
        first = rng.binomial(whole, 0.5)
        pair = first.astype(np.float32), (whole - first).astype(np.float32)
    else:
        variance = ndimage.uniform_filter(photons, 3, mode="nearest")
        noise = calibration.spectrum.draw(variance, rng)
        pair = (photons + noise) / 2, (photons - noise) / 2
    known = Calibration(
        camera=Camera(offset=0.0, gain=1.0),
        background=calibration.background_photons / 2,
        spectrum=calibration.spectrum,
    )
    return Halves(*pair, known)


def correlate(first: Volume, second: Volume) -> tuple[ShellCurve | None, ShellCurve | None]:
    """Return the lateral and axial correlation of two volumes on one grid.

    None along a direction of fewer than eight voxels.
    """
    sides: dict[Direction, int] = {"lateral": min(first.shape[1:]), "axial": first.shape[0]}
    lateral, axial = (
        fourier_shell_correlation(first.data, second.data, first.voxel_um, direction)
        if side >= LEAST_VOXELS
        else None
        for direction, side in sides.items()
    )
    return lateral, axial


def _deconvolved(view: PreparedView, method: Method) -> Generator[Report, None, Volume]:
    """Yield reports, return the result of a method for one half, photons."""
    whole = yield from method.whole(Observation.of(view, resolve_device(method.device)))
    if whole is None:
        raise RlnError(
            f"{view.image.name} is {view.image.shape}, too large to be deconvolved whole; crop it "
            "(`crop`)."
        )
    record = Record(
        method=f"{method.kind} half",
        settings=method.describe().settings,
        facts=view.calibration.facts() | whole.facts,
        inputs={"image": view.image.hash},
    )
    name = f"{view.image.name} · {method.title}"
    return view.image.with_data(whole.data, name=name, record=record)


def _cautions(calibration: Calibration, mask: Mask | None) -> tuple[str, ...]:
    """Return sentences on what is not independent in the halves."""
    cautions = []
    if not calibration.spectrum.white:
        cautions.append(
            "The noise is correlated between voxels, as after interpolation: the halves were made "
            "by adding and subtracting like noise, and are independent only as far as its spectrum "
            "is known."
        )
    if mask is not None:
        cautions.append(
            f"{1 - mask.mean():.2%} of the voxels are saturated or filled and the same in both "
            "halves: the resolution may be worse than measured."
        )
    if calibration.camera.gain_from == "given":
        cautions.append("The gain was given: if it is wrong, noise correlates between the halves.")
    return tuple(cautions)
