"""Stopping criterion: prediction of held-out photons.

The photons of an image are split at random, 70 % to deconvolve and 30 % held out. While the
estimate approaches the object it predicts the held-out photons better; once it fits the noise of
the others, worse.

The prediction is a blurred image, in which noise of the estimate hardly shows. So the residual of
the held-out photons is first sharpened by a Wiener filter of the PSF: apart from the noise of the
held-out photons, its power is then that of the error of the estimate at all frequencies that the
microscope transmits.

Noise that is correlated between voxels, as after interpolation, cannot be split by photons: both
parts would contain it. Instead, noise of the same power and spectrum is added to one part and
subtracted, scaled, from the other, which makes them independent (Pang et al., CVPR 2021, p. 2043).
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import torch
from scipy import ndimage
from scipy.special import ndtri
from scipy.stats import binom

from napari_rln.core.volume import FloatArray, Mask, Shape
from napari_rln.deconvolution.convolution import map_pieces, pieces
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.psf.shape import centre_crop

BANDS: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
"""Limits of the frequency bands of a comparison, as transmission of the PSF (1 at its maximum)."""

EXPLAINED = 1.1
"""Highest error, relative to noise alone, that counts as explained by noise."""

DECONVOLVED_FRACTION = 0.7  # of the photons; fewer held-out ones give noisier errors
_GROWTH = 0.27  # exponent of the best number of iterations in the number of photons; measured
_ALPHA = 1e-3  # Wiener parameter; measured: 1e-2 stops late, 1e-4 is dominated by noise
_TAPER = 4  # voxels of taper at the border, as the transform is periodic
_LEAST_TAPERED = 16  # least voxels of a tapered axis
_FEW = 64  # highest photon count whose split is looked up
_PATIENCE = 0.15  # fraction of the iterations so far without improvement, to stop
_LEAST_PATIENCE = 8  # iterations; unmatched back projectors overshoot before they converge
_SETTLED = 4e-5  # gain per iteration, relative to the total gain, below which to stop
_SLOWER = 0.5  # fraction of the greatest gain below which gains become smaller
_WORTHWHILE = 0.05  # least gain per iteration to continue, relative to the error beyond noise
_NOISE_LIMITED = 1.3  # highest error of a result limited by noise, not by the PSF
_TOLERANCE = 0.04  # tolerance of the best error, relative to the error beyond noise; measured
_BY_NOISE = 1.01  # error explained by noise and the uncertainty of its estimate
_MOST_UNEXPLAINED = 3.0  # cap on the error beyond noise; above, noise is too weak to be fitted
_WINDOW, _LEAST_WINDOW = 0.1, 3  # fraction of the iterations so far whose gain is averaged
_LEAST_VARIANCE = 0.05  # relative to the mean, so that dark voxels do not dominate a fit
_CROP_VOXELS = 2**20  # more photons than in these do not change the result


@dataclass
class StoppingRule:
    """Record of prediction errors, which detects when to end a trial.

    A trial ends when errors increase, or no longer decrease: relative to the total gain, or, if the
    PSF differs from the microscope's beyond noise, relative to the error that remains, and to half
    the fastest decrease before. Such an image has no best iteration: the error of the PSF, equal in
    both parts of the photons, would be fitted without end.
    """

    best: float = math.inf
    """Lowest error so far."""
    _at: int = 0
    _errors: list[float] = field(default_factory=list)

    @property
    def iteration(self) -> int:
        """Best iteration so far, counted from 1; 0 before the first.

        With an error beyond noise, the first iteration within a tolerance of the best: later gains
        mostly come from fitting the error of the PSF.
        """
        limit = self.best + _TOLERANCE * min(max(self.best - _BY_NOISE, 0.0), _MOST_UNEXPLAINED)
        return next((i for i, e in enumerate(self._errors, 1) if e <= limit), 0)

    def add(self, error: float) -> bool:
        """Add :meth:`SplitPhotons.error` of the next iteration; return whether to end the trial."""
        self._errors.append(error)
        done = len(self._errors)
        if error < self.best:
            self._at, self.best = done, error
        if done - self._at > max(_LEAST_PATIENCE, _PATIENCE * done):
            return True
        window = max(_LEAST_WINDOW, round(_WINDOW * done))
        if done <= 5 + window:
            return False
        gain = (self._errors[-1 - window] - error) / window
        settled = gain < _SETTLED * (self._errors[0] - self.best)
        unexplained = min(error - 1, _MOST_UNEXPLAINED)
        # A dim object on a bright background appears slowly: errors fall faster and faster.
        pairs = zip(self._errors, self._errors[window:], strict=False)
        slows_down = gain <= _SLOWER * max(a - b for a, b in pairs) / window
        futile = error > EXPLAINED and gain < _WORTHWHILE * unexplained and slows_down
        return gain >= 0 and (settled or futile)


class SplitPhotons:
    """An image split into two parts of independent noise: one to deconvolve, one held out.

    ``photons`` and ``mask``, of measured voxels, are (Z, Y, X); the PSF is (z, y, x), sum 1, centre
    on voxel ``n // 2``; the background is in photons.

    Attributes
    ----------
    image
        (Z, Y, X) float32, part to deconvolve.
    background
        Background of ``image``, photons.
    deconvolved_fraction
        Fraction of the photons in ``image``.
    """

    def __init__(
        self,
        photons: FloatArray,
        psf: FloatArray,
        background: float,
        spectrum: Spectrum,
        seed: int,
        mask: Mask | None = None,
        device: torch.device | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        if spectrum.white:
            self.image, held_out = _thinned(photons, rng)
            self.deconvolved_fraction = DECONVOLVED_FRACTION
            self._held_out_ratio = (1 - DECONVOLVED_FRACTION) / DECONVOLVED_FRACTION
            variance = 1 - DECONVOLVED_FRACTION
        else:
            self.image, held_out = _recorrupted(photons, spectrum, rng)
            self.deconvolved_fraction = self._held_out_ratio = 1.0
            variance = 1 / (1 - DECONVOLVED_FRACTION)
        self.background = self.deconvolved_fraction * background
        self._photons = torch.from_numpy(photons).to(device)
        self._mask = None if mask is None else torch.from_numpy(mask).to(device)
        passed = transmission(psf, photons.shape)
        weight = (passed / (passed**2 + _ALPHA)) ** 2
        window = np.broadcast_to(_window(photons.shape), photons.shape)
        if mask is not None:
            window = window * mask
        # In a real transform each frequency but the first and the last stands for two.
        double = np.full(weight.shape[2], 2.0, np.float32)
        double[0] = 1
        if photons.shape[2] % 2 == 0:
            double[-1] = 1
        weight *= double
        weight[0, 0, 0] = 0  # a constant belongs to the background
        # Power of the sharpened noise of the held-out photons.
        light = float((window**2 * photons).sum(dtype=np.float64))
        coloured = weight if spectrum.white else weight * spectrum.powers(photons.shape)
        noise = variance * light * float(coloured.sum(dtype=np.float64))
        self._noise = max(noise, 1e-30)
        self._weight, self._window = (
            torch.from_numpy(np.array(array, np.float32)).to(device) for array in (weight, window)
        )
        self._weight = self._weight.view(-1)
        self._passed = torch.from_numpy(passed).to(device).view(-1)
        rest = torch.from_numpy(held_out).to(device)
        self._held_out = self._spectrum(rest, self._held_out_ratio * self.background)
        self._pieces = pieces(self._held_out.numel(), self._held_out.device)
        self._power = math.fsum(
            self._product(self._held_out, self._held_out, p) for p in self._pieces
        )
        self._last: torch.Tensor | None = None

    def whole(self, rule: StoppingRule, pace: int = 1) -> int:
        """Return the number of iterations for the whole image after a trial of the part.

        Higher than in the trial if limited by noise; equal if limited by the PSF. ``pace`` is the
        number of iterations from one error that the rule was told to the next.
        """
        factor = float(DECONVOLVED_FRACTION**-_GROWTH) if rule.best <= _NOISE_LIMITED else 1.0
        return max(1, round(rule.iteration * pace * factor))

    def error(self, expected: torch.Tensor, extrapolation: float) -> float:
        """Return the error with which an estimate predicts the held-out photons.

        It is the power of the sharpened residual over that of the noise alone. A factor on the
        whole estimate is no error: unmatched back projectors converge to it late.

        Parameters
        ----------
        expected
            Blurred prediction from which the next step is taken, photons.
        extrapolation
            Distance of the prediction beyond the estimate, in units of the estimate's last change.
        """
        now = self._spectrum(expected, self.background)
        last = self._last if extrapolation else None

        def compare(part: slice) -> tuple[float, float]:
            if last is not None:
                # The blur is linear: that of the estimate itself follows from two predictions.
                now[part] += extrapolation * last[part]
                now[part] /= 1 + extrapolation
            return self._product(self._held_out, now, part), self._product(now, now, part)

        products = map_pieces(compare, self._pieces, now.device)
        common, own = (math.fsum(column) for column in zip(*products, strict=True))
        self._last = now
        return (self._power - common**2 / max(own, 1e-30)) / self._noise

    def compare(
        self, one: torch.Tensor, other: torch.Tensor, outside: torch.Tensor
    ) -> tuple[float, tuple[float, ...]]:
        """Compare two estimates by their prediction of the held-out photons.

        ``one`` and ``other`` are blurred estimates of the part to deconvolve, photons without
        background; ``outside`` are photons in that part from beyond the field of view. Returns
        the error of the first, see :meth:`error`, and its weight in the best mixture of both, for
        each of the :data:`BANDS`.
        """
        first, second = (self._spectrum(blurred + outside, 0.0) for blurred in (one, other))
        ratio = self._held_out_ratio
        left = self._held_out - ratio * second
        gained = ratio * (first - second)
        missing = self._held_out - ratio * first
        everything = slice(None)
        error = self._product(missing, missing, everything) / self._noise
        fractions = []
        for low, high in itertools.pairwise(BANDS):
            band = (self._passed >= low) & (self._passed < high if high < 1 else self._passed <= 1)
            common, power = (self._product(x, gained, band) for x in (left, gained))
            fractions.append(min(max(common / power, 0.0), 1.0) if power > 0 else 0.0)
        return error, tuple(fractions)

    def scale(self, expected: torch.Tensor, outside: torch.Tensor) -> float:
        """Return the factor on a blurred estimate that best fits all photons."""
        own, beyond = (part.double() / self.deconvolved_fraction for part in (expected, outside))
        level = self.background / self.deconvolved_fraction
        return fitted_factor(self._photons, own, beyond, level, self._mask)

    def _spectrum(self, expected: torch.Tensor, background: float) -> torch.Tensor:
        """Return the transform, flat, of light minus a background, tapered at the border."""
        if expected.device.type != "cpu":
            light = (expected.to(self._window.dtype) - background) * self._window
            flat: torch.Tensor = torch.fft.rfftn(light).view(-1)
            return flat
        values = np.subtract(expected.numpy(), background, dtype=np.float32)
        values *= self._window.numpy()
        spectrum = scipy.fft.rfftn(values, workers=torch.get_num_threads())
        return torch.from_numpy(spectrum).view(-1)

    def _product(self, one: torch.Tensor, other: torch.Tensor, part: slice | torch.Tensor) -> float:
        """Return the scalar product of a part of two spectra after sharpening."""
        pairs = torch.view_as_real(one[part]) * torch.view_as_real(other[part])
        sharpened = pairs.sum(-1) * self._weight[part]
        return float((sharpened.double() if sharpened.device.type == "cpu" else sharpened).sum())


def fitted_factor(
    photons: torch.Tensor,
    blurred: torch.Tensor,
    outside: torch.Tensor,
    background: float,
    mask: torch.Tensor | None,
) -> float:
    """Return the factor on a blurred estimate that best fits an image, (Z, Y, X) photons.

    ``outside`` are photons from beyond the field of view; ``mask`` is of measured voxels.
    """
    own, beyond = blurred.double(), outside.double()
    target = photons.double() - background - beyond
    variance = own + beyond + background
    weight = 1 / variance.clamp_min(_LEAST_VARIANCE * float(variance.mean()))
    if mask is not None:
        weight *= mask
    power = float((weight * own * own).sum())
    return float((weight * own * target).sum()) / power if power > 0 else 1.0


def transmission(psf: FloatArray, shape: Shape) -> FloatArray:
    """Return the transmission of a PSF, absolute OTF over its maximum, on the grid of an image."""
    kernel = centre_crop(psf, shape).astype(np.float32, copy=False)
    otf = np.abs(scipy.fft.rfftn(kernel, shape, workers=torch.get_num_threads()))
    passed: FloatArray = otf / otf.max()
    return passed


def _thinned(photons: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return two images with each photon in one of them at random: both are Poisson-distributed.

    The random number of a voxel depends on its position alone, so that repairing one voxel leaves
    the split of all others unchanged.
    """
    whole = np.floor(photons + rng.random(photons.shape, dtype=np.float32))
    chance = rng.random(photons.shape)
    # The fraction of many photons is Gaussian; that of few is looked up.
    spread = np.sqrt(whole * (DECONVOLVED_FRACTION * (1 - DECONVOLVED_FRACTION))) * ndtri(chance)
    first = np.clip(np.floor(DECONVOLVED_FRACTION * whole + spread + 0.5), 0, whole)
    few = whole <= _FEW
    counts = whole[few].astype(np.intp)
    table = np.concatenate(
        [n + binom.cdf(np.arange(n + 1), n, DECONVOLVED_FRACTION) for n in range(_FEW + 1)]
    )
    begins = np.cumsum(np.arange(_FEW + 1))
    drawn = np.searchsorted(table, counts + chance[few]) - begins[counts]
    first[few] = np.minimum(drawn, counts)
    return first.astype(np.float32), (whole - first).astype(np.float32)


def _recorrupted(
    photons: FloatArray, spectrum: Spectrum, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return two images of independent noise, as strong as after a split of the photons."""
    noise = spectrum.draw(ndimage.uniform_filter(photons, 3, mode="nearest"), rng)
    more = np.float32(math.sqrt((1 - DECONVOLVED_FRACTION) / DECONVOLVED_FRACTION))
    return np.maximum(photons + more * noise, 0), photons - noise / more


def _window(shape: Shape) -> FloatArray:
    """Return a taper, broadcastable to (Z, Y, X), float32: 1 except near the border."""
    window = np.ones((1, 1, 1), np.float32)
    for axis, n in enumerate(shape):
        if n >= _LEAST_TAPERED:
            fades = np.minimum(1, (np.arange(n) + 0.5) / _TAPER)
            fades = np.minimum(fades, fades[::-1]).astype(np.float32)
            window = window * np.expand_dims(fades, [a for a in range(3) if a != axis])
    return window


def structured_shape(image_shape: Shape, psf_shape: Shape) -> Shape:
    """Return the size (z, y, x) of the crop of :func:`structured_crop`.

    All of z, along which light spreads most; in y and x at most a square, of at least twice the
    PSF's width.
    """
    planes, height, width = image_shape
    side = max(round(math.sqrt(_CROP_VOXELS / planes)), 2 * max(psf_shape[1:]))
    return planes, min(side, height), min(side, width)


def structured_crop(image: FloatArray, psf_shape: Shape) -> tuple[slice, ...]:
    """Return the crop of a large image with the most structure, (z, y, x) slices."""
    _, height, width = image.shape
    _, *crop = structured_shape(image.shape, psf_shape)
    if crop == [height, width]:
        return (slice(None),) * 3
    structure = image.var(axis=0, dtype=np.float64) + image.mean(axis=0, dtype=np.float64) ** 2
    total = ndimage.uniform_filter(structure, size=crop, mode="constant")
    inner = tuple(
        slice(c // 2, n - (c - 1) // 2) for c, n in zip(crop, (height, width), strict=True)
    )
    y, x = np.unravel_index(int(total[inner].argmax()), total[inner].shape)
    return slice(None), slice(int(y), int(y) + crop[0]), slice(int(x), int(x) + crop[1])
