"""Wiener deconvolution: one linear filter, as a method for whole images and for tiles.

With the OTF ``H``, 1 at frequency 0, and a noise-to-signal ratio ``r``, the spectrum of the image
without its background is multiplied by

    (1 + r) conj(H) / (|H|^2 + r)

which is the linear filter of least squared error for an object whose spectrum is flat; the factor
``1 + r`` keeps its light.

The ratio is chosen for the image. The squared error of the *object* is a quadratic function of the
filter, and is estimated without bias from the spectrum of the image, once it is known how much of
that is signal (Mallows, Technometrics 15, 661, 1973; Stein, Annals of Statistics 9, 1135, 1981).
Cross-validation would need no noise, but predicts the blurred image, whose error hardly depends on
the ratio.

The noise of the photons does not answer that. A PSF that is not exact, and light from beyond the
borders, leave power where the microscope transmits next to nothing. Taken for signal, it is that
of an enormous object, which the smallest ratio would restore. So a property of objects is used:
the power in natural images falls with frequency (Field, J. Opt. Soc. Am. A 4, 2379, 1987), as the
transmission does. A frequency that is transmitted less therefore holds no more of the object; the
power beyond that is noise, whatever its cause. Noise in turn is at least as strong where more is
transmitted, as an error of the PSF is: it is the least-squares fit of such an order to that power
(Barlow et al., Statistical Inference under Order Restrictions, Wiley 1972).
"""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from scipy import ndimage
from scipy.optimize import isotonic_regression

from napari_rln.core.device import computing, to_numpy
from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.report import Report
from napari_rln.core.volume import Box, Float64Array, FloatArray, Mask, OnGrid, Shape, Volume
from napari_rln.deconvolution.calibration import Gain, Level, Negatives, Offset, RepairImage
from napari_rln.deconvolution.classical import ADVICE, READ_BYTES, residual_bytes
from napari_rln.deconvolution.convolution import (
    Border,
    Convolution,
    check_tiled,
    padded_shape,
    tile_margin,
)
from napari_rln.deconvolution.method import (
    Json,
    Method,
    Observation,
    SampleEstimates,
    TileStage,
    WholeResult,
)
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import check_psf_fits
from napari_rln.deconvolution.stopping import (
    structured_crop,
    structured_shape,
    transmission,
)
from napari_rln.deconvolution.stopping_trial import Trial

ComplexArray = npt.NDArray[np.complexfloating]

ASSUMED = 1e-3
"""Noise-to-signal ratio for auto of an image without photon noise."""

RATIOS: Float64Array = np.logspace(-7, 1, 161)
"""Noise-to-signal ratios from which auto chooses."""

_WORK_BYTES, _VIEW_BYTES = 26, 8  # per voxel transformed and of the image; measured
_CHOICE_BYTES = 30  # per voxel of the part by which the ratio is chosen; measured
_DECADES, _BINS = 12, 5  # of |OTF|^2 below 1, and bins in each
_FREQUENCIES = 30  # in a bin, about: the power of fewer is one of chance
_TAIL = 1e-3  # fraction of the filter's absolute weights that a tile may lack


@dataclass(frozen=True, kw_only=True)
class Wiener(Method):
    """Wiener deconvolution as a method.

    Parameters
    ----------
    noise_to_signal
        Ratio of the power of the noise to that of the object; ``auto``: the one with the least
        error of the object, as estimated from the spectrum of the image. Lower it for a sharper and
        noisier result.
    clip
        Set negative values of the result to 0, which adds the light that they take away; kept, the
        result is linear in the image. Switch it on for programs that expect no negative values.
    border
        What lies beyond the edges: ``extended`` continues the image by its edge voxels, and joins
        opposite edges smoothly; ``periodic`` and ``reflect`` repeat the image. Keep ``extended``
        for images of a microscope.
    background
        Background level in image units, camera offset included; ``auto`` measures the darkest
        regions of the image. Give it where no region is empty.
    offset
        Camera offset, the value without light, in image units; ``auto`` estimates it from the
        noise. Give the mean of a dark image if you have one.
    gain
        Camera gain, in image units per photon; ``auto`` estimates it from the noise. Give that of
        the camera if you know it.
    repair_image
        Replace isolated hot and cold pixels by the median of their neighbours. Switch it off where
        single bright voxels are structure.
    negatives
        Negative values, as after background subtraction: ``keep`` them (an automatic camera offset
        lies below them), ``clip`` them to 0, or stop with an ``error``. Choose ``keep`` unless they
        mean nothing.
    device
        Compute device: auto, cpu, cuda, cuda:1 or mps. Choose cpu if the memory of the GPU does not
        suffice.
    """

    kind: ClassVar[str] = "wiener"
    title: ClassVar[str] = "Wiener"
    needs_psf: ClassVar[bool] = True
    files: ClassVar[tuple[Path, ...]] = ()
    blocks: ClassVar[None] = None

    noise_to_signal: Annotated[float | Literal["auto"], {"min": 1e-9, "max": 1e3}] = "auto"
    clip: Annotated[bool, {"label": "Set negative results to 0"}] = False
    border: Border = "extended"
    background: Level = "auto"
    offset: Offset = "auto"
    gain: Gain = "auto"
    repair_image: RepairImage = True
    negatives: Negatives = "keep"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def tiles(self) -> "WienerTiles":
        """The filter, tile by tile."""
        return WienerTiles(self)

    def check(self, image: OnGrid, psf: Volume | None, *, views: int = 1) -> None:
        """Raise unless there is a PSF that matches the image, and a single view."""
        if psf is None:
            raise RlnError("Wiener deconvolution needs the PSF; give one (`psf`).")
        if views > 1:
            raise RlnError(
                "Wiener deconvolution is of one view; use Richardson-Lucy or a network for two."
            )
        check_psf_fits(image, psf)

    def needed_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the memory for a whole image, bytes, beside that already in use."""
        assert psf_shape is not None
        stage = self.tiles
        choice = stage.search_bytes(structured_shape(shape, psf_shape), psf_shape)
        largest = max(stage.memory_bytes(shape, psf_shape), choice)
        return READ_BYTES * math.prod(shape) + largest + residual_bytes(shape, psf_shape)

    def whole(self, observation: Observation) -> Generator[Report, None, WholeResult | None]:
        """Deconvolve a whole image; yield a report, return the result.

        None if it does not fit into memory.
        """
        (view,), device = observation.views, observation.device
        assert view.psf is not None
        needed = self.tiles.memory_bytes(view.image.shape, view.psf.shape)
        if not observation.fits_whole(needed):
            return None
        with computing(needed, device, ADVICE):
            facts = self.ratio_for(view)
            data = self.filtered(view, facts["noise_to_signal"], device)
            observation.memory.sample()
        seconds = time.perf_counter() - observation.started
        yield Report(phase="deconvolve", done=1, total=1, seconds=seconds)
        return WholeResult(data, facts)

    def ratio_for(self, view: PreparedView) -> Json:
        """Return the noise-to-signal ratio for an image and where it is from, as facts."""
        if self.noise_to_signal != "auto":
            ratio, source = self.noise_to_signal, "given"
        elif view.calibration.camera.counts_photons:
            assert view.psf is not None
            part = structured_crop(view.image.data, view.psf.shape)
            ratio, source = best_ratio(view, part), "estimated"
        else:
            ratio, source = ASSUMED, "assumed"
        return {"noise_to_signal": ratio, "noise_to_signal_from": source}

    def filtered(self, view: PreparedView, ratio: float, device: torch.device) -> FloatArray:
        """Return an image deconvolved with a noise-to-signal ratio, image units."""
        assert view.psf is not None
        blur = Convolution(view.psf.data, view.image.shape, border=self.border, device=device)
        data = view.image.data - np.float32(view.calibration.background)
        if view.mask is not None:
            data = _filled(data, view.mask)
        transfer = wiener_filter(blur, ratio)
        result = blur.filter(torch.from_numpy(data).to(device), transfer, joined=True)
        values = to_numpy(result[blur.window])
        return values.clip(0) if self.clip else values


def wiener_filter(blur: Convolution, ratio: float) -> torch.Tensor:
    """Return the transfer function of a Wiener filter, laid out and scaled like ``blur.otf``."""
    count = math.prod(blur.work_shape)
    squared = (torch.view_as_real(blur.otf).square().sum(-1)).mul_(count**2)
    return blur.otf.conj() * (1 + ratio) / squared.add_(ratio)


def best_ratio(view: PreparedView, part: tuple[slice, ...]) -> float:
    """Return the noise-to-signal ratio with the least error of the object, estimated in a part.

    With the power ``P`` of the image and ``S`` of the blurred object, the filter
    ``(1 + r) conj(H) / D`` and ``D = |H|^2 + r``, the squared error of the object at a frequency is

        (1 + r)^2 |H|^2 P / D^2 - 2 (1 + r) S / D

    but for a constant.
    """
    assert view.psf is not None
    calibration = view.calibration
    photons = calibration.camera.photons(view.image.data[part])
    light = photons - np.float32(calibration.background_photons)
    if view.mask is not None:
        light *= view.mask[part]
        photons = photons * view.mask[part]
    squared = np.square(transmission(view.psf.data, photons.shape)).clip(10.0**-_DECADES, 1)
    # In a real transform each frequency but the first and the last stands for two.
    weight = np.full_like(squared, 2)
    weight[:, :, 0] = 1
    if photons.shape[2] % 2 == 0:
        weight[:, :, -1] = 1
    weight[0, 0, 0] = 0  # a constant belongs to the background
    # The error depends on the frequency by |H|^2 alone.
    bins = (-np.log10(squared) * _BINS).astype(np.int32).ravel()

    spectrum = calibration.spectrum
    columns: list[FloatArray] = [
        squared,
        np.square(np.abs(_periodic(light))),
        np.ones_like(squared) if spectrum.white else spectrum.powers(light.shape),
    ]
    rows = [np.bincount(bins, (weight * values).ravel()) for values in columns]
    count = np.bincount(bins, weight.ravel())
    # Bins are joined up to that many frequencies.
    begins = (np.cumsum(count) - count) // _FREQUENCIES
    starts = np.flatnonzero(np.diff(begins, prepend=-1))
    sums = np.add.reduceat(np.stack([*rows, count]), starts, axis=1)
    passed, power, coloured, count = sums[:, sums[-1] > 0]
    signal = _signal(passed, power, coloured, float(photons.sum(dtype=np.float64)))
    transmitted = passed / count
    gain = (1 + RATIOS[:, None]) / (transmitted + RATIOS[:, None])
    error = gain**2 * transmitted * power - 2 * gain * signal
    return float(RATIOS[error.sum(axis=1).argmin()])


def _signal(
    passed: Float64Array, power: Float64Array, coloured: Float64Array, photons: float
) -> Float64Array:
    """Return the power of the blurred object in bins of falling transmission, see the module.

    ``passed`` is the sum of ``|H|^2`` in each bin, ``power`` that of the image, and ``coloured``
    that of the noise of one photon, of which the image has ``photons``.
    """
    objects = np.minimum.accumulate(np.maximum(power - photons * coloured, 0) / passed)
    most = objects * passed
    noise = isotonic_regression((power - most) / coloured, weights=coloured, increasing=False).x
    signal: Float64Array = np.clip(power - noise * coloured, 0, most)
    return signal


def _periodic(light: FloatArray) -> ComplexArray:
    """Return the transform of an image without the steps between opposite borders.

    The periodic component of Moisan, Journal of Mathematical Imaging and Vision 39, 161, 2011.
    """
    steps = np.zeros_like(light)
    curvature = np.zeros((1, 1, 1), np.float32)  # of a frequency, by the discrete Laplacian
    for axis, n in enumerate(light.shape):
        if n == 1:
            continue
        first, last = (np.take(light, [place], axis) for place in (0, n - 1))
        ends = np.moveaxis(steps, axis, 0)
        ends[0] += np.moveaxis(last - first, axis, 0)[0]
        ends[-1] -= np.moveaxis(last - first, axis, 0)[0]
        angles = 2 * np.pi * (np.fft.rfftfreq(n) if axis == 2 else np.fft.fftfreq(n))
        along = 2 * np.cos(angles).astype(np.float32) - 2
        curvature = curvature + np.expand_dims(along, [a for a in range(3) if a != axis])
    curvature[0, 0, 0] = -1  # there the steps sum up to 0
    threads = torch.get_num_threads()
    smooth = scipy.fft.rfftn(steps, workers=threads) / curvature
    periodic: ComplexArray = scipy.fft.rfftn(light, workers=threads) - smooth
    return periodic


class WienerTiles(TileStage):
    """The filter in tiles, with one noise-to-signal ratio."""

    def __init__(self, method: Wiener) -> None:
        self._method = method

    @property
    def estimates(self) -> int:
        """Number of estimates of a tile."""
        return 1

    def memory_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory for a tile with its halo, in bytes."""
        work = math.prod(padded_shape(shape, psf_shape, self._method.border))
        return _WORK_BYTES * work + _VIEW_BYTES * math.prod(shape)

    def search_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory of :meth:`search` for a part of a shape, in bytes."""
        return _CHOICE_BYTES * math.prod(shape) if self.depends_on_image else 0

    def search(
        self, crop: PreparedView, device: torch.device, started: float
    ) -> Generator[Report, None, tuple[Json, Trial | None]]:
        """Yield a report; return the noise-to-signal ratio."""
        shared = self._method.ratio_for(crop)
        yield Report(phase="sample", done=1, total=1, seconds=time.perf_counter() - started)
        return shared, None

    def sample(
        self,
        crops: Sequence[PreparedView],
        shared: Json,
        level: float | None,
        device: torch.device,
        started: float,
    ) -> Generator[Report, None, SampleEstimates]:
        """Yield reports; return the results of the crops."""
        results = []
        for done, crop in enumerate(crops, 1):
            results.append(self._method.filtered(crop, shared["noise_to_signal"], device))
            seconds = time.perf_counter() - started
            yield Report(phase="sample", done=done, total=len(crops), seconds=seconds)
        return SampleEstimates({}, results)

    def halo(self, psf: Volume, shared: Json) -> Shape:
        """Return the halo of tiles in voxels (z, y, x).

        Half of it is blended. Beyond the other half the absolute weights of the filter sum up to a
        thousandth along each axis, unless they reach farther than the PSF.
        """
        n = [2 * size for size in psf.shape]
        blur = Convolution(psf.data, (n[0], n[1], n[2]), border="periodic")
        point = torch.zeros(blur.image_shape)
        point[0, 0, 0] = 1
        weights = blur.filter(point, wiener_filter(blur, shared["noise_to_signal"])).abs()
        reach = []
        for axis, size in enumerate(psf.shape):
            others = [a for a in range(3) if a != axis]
            along = weights.sum(dim=others, dtype=torch.float64)
            sides = along[: size + 1].clone()  # by distance
            sides[1:size] += along[size + 1 :].flip(0)
            beyond = sides.sum() - sides.cumsum(0)
            inside = int((beyond > _TAIL * sides.sum()).sum())
            reach.append(2 * min(inside, size - 1))
        z, y, x = reach
        return z, y, x

    def margin(self, psf_shape: Shape) -> Shape:
        """Return the padding of a tile for its transform, in voxels (z, y, x)."""
        return tile_margin(psf_shape, self._method.border)

    def check_division(self) -> None:
        """Raise if tiles are impossible."""
        check_tiled(self._method.border)

    def tile(
        self,
        crop: PreparedView,
        shared: Json,
        level: float | None,
        device: torch.device,
        part: Box,
    ) -> FloatArray:
        """Return the result in a part of a tile's window, image units."""
        return self._method.filtered(crop, shared["noise_to_signal"], device)[part]

    def expected(self, *, most: bool = False) -> Json:
        """Return the usual, or with ``most`` the least, noise-to-signal ratio."""
        if self._method.noise_to_signal != "auto":
            return {"noise_to_signal": self._method.noise_to_signal}
        return {"noise_to_signal": float(RATIOS[0]) if most else ASSUMED}

    @property
    def depends_on_image(self) -> bool:
        """Whether the noise-to-signal ratio depends on the image's noise."""
        return self._method.noise_to_signal == "auto"

    def facts(self, shared: Json) -> Json:
        """Return the shared parameters of the tiles for the record."""
        return shared


def _filled(data: FloatArray, mask: Mask) -> FloatArray:
    """Return an image with the nearest measured value where none was measured."""
    if not mask.any():
        return np.zeros_like(data)
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    filled: FloatArray = data[tuple(nearest)]
    return filled
