"""When to stop: before the estimate follows the noise.

The photons of an image are split by chance into nine tenths to deconvolve and one tenth to judge
by: as long as the estimate comes nearer to the object it predicts the unseen tenth better; once it
follows the noise of the seen photons, worse.

What it predicts is a blurred image, and noise in an estimate hardly shows once it is blurred. So
what is unexplained of the unseen photons is first sharpened by a Wiener filter of the PSF: its
size is then, but for the noise of the unseen photons, which no estimate knows, that of the
estimate's own error in all frequencies that the microscope passes.

Noise that neighbouring voxels share, as after an interpolation, cannot be split by photons: both
parts would have it. There, noise of the same size and spectrum is added to the one part and taken,
larger, from the other, so that the two are independent again (Pang et al., CVPR 2021, p. 2043).
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from scipy import ndimage
from scipy.special import ndtri
from scipy.stats import binom

from napari_rln.core.tiles import Shape
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.convolution import each, pieces
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.psf.shape import centre_crop

BANDS: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
"""Limits of the bands of frequencies of which predictions are compared, as what the PSF passes."""

EXPLAINED = 1.1
"""Error, in that of noise alone, up to which noise explains what is left of the image."""

SHARE = 0.7  # of the photons, deconvolved while the rest is asked: less is asked more surely
_GROWTH = 0.27  # power of the photons by which the best number of iterations grows, measured
_ALPHA = 1e-3  # of the Wiener filter; measured: 1e-2 stops late, 1e-4 follows its own noise
_TAPER = 4  # voxels over which the residual fades at the border: its transform is periodic
_LEAST_TAPERED = 16  # voxels of an axis that is tapered
_FEW = 64  # photons in a voxel up to which their split is looked up
_PATIENCE = 0.15  # of the iterations done so far, without a better prediction
_LEAST_PATIENCE = 8  # iterations: unmatched back projectors overshoot before they settle
_SETTLED = 4e-5  # gain of an iteration, of all gained so far, that is not worth another
_WORTHWHILE = 0.05  # gain of an iteration, of what noise cannot explain, that is worth another
_NOISE_LIMITED = 1.3  # error up to which noise, and not the PSF, is what limits a result
_HARDLY = 0.04  # of what noise cannot explain, by which a prediction is hardly worse; measured
_BY_NOISE = 1.01  # error that noise and its estimate explain
_MOST_UNEXPLAINED = 3.0  # error beyond noise: with more of it noise is too little to be followed
_WINDOW, _LEAST_WINDOW = 0.1, 3  # of the iterations done so far, whose mean gain counts
_LEAST_VARIANCE = 0.05  # of the mean one: dark voxels shall not rule a fit
_CROP_VOXELS = 2**20  # more photons than these hold would not move the answer


@dataclass
class Watch:
    """Follows how well unseen photons are predicted and says when to look no further.

    That is when predictions get worse, or when they no longer gain: against all that was gained,
    or, where the PSF is unlike the microscope's and noise does not explain the difference,
    against what stays unexplained. Such an image has no best iteration: the error of the PSF,
    alike in seen and unseen photons, would be followed for ever.

    Attributes
    ----------
    best
        The least error so far.
    """

    best: float = math.inf
    _at: int = 0
    _errors: list[float] = field(default_factory=list)

    @property
    def iteration(self) -> int:
        """The best so far, counted from 1; 0 before the first.

        Where noise does not explain what is left, the first that is hardly worse: what is gained
        after it is mostly error of the model that is followed.
        """
        hardly = self.best + _HARDLY * min(max(self.best - _BY_NOISE, 0.0), _MOST_UNEXPLAINED)
        return next((i for i, e in enumerate(self._errors, 1) if e <= hardly), 0)

    def add(self, error: float) -> bool:
        """Take how badly the next iteration's estimate predicts; return whether to stop looking.

        Parameters
        ----------
        error
            As of :class:`SplitPhotons`: 1 where only the noise of the unseen photons is left.
        """
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
        hopeless = error > EXPLAINED and gain < _WORTHWHILE * unexplained
        return gain >= 0 and (settled or hopeless)


class Merit(NamedTuple):
    """How two estimates predict unseen photons, one against the other.

    Attributes
    ----------
    error
        Of the first, as :meth:`SplitPhotons.error` gives it.
    shares
        Of the first in the mixture that predicts them best, one for each of the :data:`BANDS`.
    """

    error: float
    shares: tuple[float, ...]


class SplitPhotons:
    """An image in two parts of independent noise: one to deconvolve, one to judge by.

    Parameters
    ----------
    photons
        (Z, Y, X).
    psf
        (z, y, x) sum 1, centre on voxel ``n // 2``.
    background
        Photons.
    spectrum
        Of the noise.
    seed
        Of the random numbers.
    seen
        (Z, Y, X) bool, voxels that can be believed; all when none.
    device
        Where the run computes.

    Attributes
    ----------
    image
        (Z, Y, X) float32, the part to deconvolve.
    background
        Of that, photons.
    share
        Of the photons that are in it.
    """

    def __init__(
        self,
        photons: FloatArray,
        psf: FloatArray,
        background: float,
        spectrum: Spectrum,
        seed: int,
        seen: npt.NDArray[np.bool_] | None = None,
        device: torch.device | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        if spectrum.white:
            self.image, unseen = _thinned(photons, rng)
            self.share, self._per_seen = SHARE, (1 - SHARE) / SHARE
            variance = 1 - SHARE
        else:
            self.image, unseen = _recorrupted(photons, spectrum, rng)
            self.share = self._per_seen = 1.0
            variance = 1 / (1 - SHARE)
        self.background = self.share * background
        self._photons = torch.from_numpy(photons).to(device)
        self._seen = None if seen is None else torch.from_numpy(seen).to(device)
        passed = _passed(psf, photons.shape)
        weight = (passed / (passed**2 + _ALPHA)) ** 2
        window = np.broadcast_to(_window(photons.shape), photons.shape)
        if seen is not None:
            window = window * seen
        # Of real transforms each frequency but those of the ends stands for two.
        double = np.full(weight.shape[2], 2.0, np.float32)
        double[0] = 1
        if photons.shape[2] % 2 == 0:
            double[-1] = 1
        weight *= double
        weight[0, 0, 0] = 0  # a constant is the background's
        # What is left of the noise of the unseen photons.
        light = float((window**2 * photons).sum(dtype=np.float64))
        coloured = weight if spectrum.white else weight * spectrum.powers(photons.shape)
        noise = variance * light * float(coloured.sum(dtype=np.float64))
        self._noise = max(noise, 1e-30)
        self._weight, self._window = (
            torch.from_numpy(np.array(array, np.float32)).to(device) for array in (weight, window)
        )
        self._weight = self._weight.view(-1)
        self._passed = torch.from_numpy(passed).to(device).view(-1)
        rest = torch.from_numpy(unseen).to(device)
        self._unseen = self._spectrum(rest, self._per_seen * self.background)
        self._pieces = pieces(self._unseen.numel(), self._unseen.device)
        self._power = math.fsum(self._product(self._unseen, self._unseen, p) for p in self._pieces)
        self._last: torch.Tensor | None = None

    def whole(self, watch: Watch) -> int:
        """Return how many iterations the whole image takes where the part takes so many.

        They are more where noise is the limit. Where it is the PSF, more photons change nothing.
        """
        longer = float(SHARE**-_GROWTH) if watch.best <= _NOISE_LIMITED else 1.0
        return max(1, round(watch.iteration * longer))

    def error(self, expected: torch.Tensor, ahead: float) -> float:
        """Return how badly an estimate predicts the unseen photons.

        Parameters
        ----------
        expected
            The image that the run expects by the point from which its next step is taken.
        ahead
            How far beyond the estimate that point lies, in last changes of it.

        Returns
        -------
        float
            Power of what is unexplained, sharpened, over that of the noise alone. A factor of the
            whole estimate is no error: unmatched back projectors settle on it late.
        """
        now = self._spectrum(expected, self.background)
        last = self._last if ahead else None

        def compare(part: slice) -> tuple[float, float]:
            if last is not None:
                # The blur is linear: what the estimate itself predicts needs no further blur.
                now[part] += ahead * last[part]
                now[part] /= 1 + ahead
            return self._product(self._unseen, now, part), self._product(now, now, part)

        products = each(compare, self._pieces, now.device)
        common, own = (math.fsum(column) for column in zip(*products, strict=True))
        self._last = now
        return (self._power - common**2 / max(own, 1e-30)) / self._noise

    def compare(self, one: torch.Tensor, other: torch.Tensor, outside: torch.Tensor) -> Merit:
        """Return how two estimates predict the unseen photons, one against the other.

        Parameters
        ----------
        one, other
            What they lead to expect in the seen part of the field of view, photons without
            background.
        outside
            Photons in it from beyond the field of view.
        """
        first, second = (self._spectrum(blurred + outside, 0.0) for blurred in (one, other))
        per_seen = self._per_seen
        left = self._unseen - per_seen * second
        gained = per_seen * (first - second)
        missing = self._unseen - per_seen * first
        everything = slice(None)
        error = self._product(missing, missing, everything) / self._noise
        shares = []
        for low, high in itertools.pairwise(BANDS):
            band = (self._passed >= low) & (self._passed < high if high < 1 else self._passed <= 1)
            common, power = (self._product(x, gained, band) for x in (left, gained))
            shares.append(min(max(common / power, 0.0), 1.0) if power > 0 else 0.0)
        return Merit(error, tuple(shares))

    def scale(self, expected: torch.Tensor, outside: torch.Tensor) -> float:
        """Return the factor on what an estimate leads to expect that fits all photons best.

        Parameters
        ----------
        expected, outside
            As for :meth:`compare`.
        """
        own, beyond = (there.double() / self.share for there in (expected, outside))
        level = self.background / self.share
        wanted = self._photons.double() - level - beyond
        variance = own + beyond + level
        weight = 1 / variance.clamp_min(_LEAST_VARIANCE * float(variance.mean()))
        if self._seen is not None:
            weight *= self._seen
        power = float((weight * own * own).sum())
        return float((weight * own * wanted).sum()) / power if power > 0 else 1.0

    def _spectrum(self, expected: torch.Tensor, background: float) -> torch.Tensor:
        """Return the transform, flat, of light above a background that fades at the border."""
        if expected.device.type != "cpu":
            there = (expected.to(self._window.dtype) - background) * self._window
            flat: torch.Tensor = torch.fft.rfftn(there).view(-1)
            return flat
        light = np.subtract(expected.numpy(), background, dtype=np.float32)
        light *= self._window.numpy()
        found = scipy.fft.rfftn(light, workers=torch.get_num_threads())
        return torch.from_numpy(found).view(-1)

    def _product(self, one: torch.Tensor, other: torch.Tensor, part: slice | torch.Tensor) -> float:
        """Return the scalar product of a part of two spectra, sharpened."""
        pairs = torch.view_as_real(one[part]) * torch.view_as_real(other[part])
        sharpened = pairs.sum(-1) * self._weight[part]
        return float((sharpened.double() if sharpened.device.type == "cpu" else sharpened).sum())


def _passed(psf: FloatArray, shape: Shape) -> FloatArray:
    """Return how much of each frequency a PSF passes, |OTF| over its maximum, for an image."""
    kernel = centre_crop(psf, shape)
    whole = np.zeros(shape, np.float32)
    whole[tuple(slice(n) for n in kernel.shape)] = kernel
    found = np.abs(scipy.fft.rfftn(whole, workers=torch.get_num_threads()))
    passed: FloatArray = found / found.max()
    return passed


def _thinned(photons: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return two images, each photon sent to one of them by chance: both are Poisson again.

    What chance does to a voxel depends on its place alone, so that where another voxel is hot, or
    repaired, all the others are split as they were.
    """
    whole = np.floor(photons + rng.random(photons.shape, dtype=np.float32))
    chance = rng.random(photons.shape)
    # Of many photons the share is Gaussian; of few it is looked up.
    spread = np.sqrt(whole * (SHARE * (1 - SHARE))) * ndtri(chance)
    first = np.clip(np.floor(SHARE * whole + spread + 0.5), 0, whole)
    few = whole <= _FEW
    counts = whole[few].astype(np.intp)
    table = np.concatenate([n + binom.cdf(np.arange(n + 1), n, SHARE) for n in range(_FEW + 1)])
    begins = np.cumsum(np.arange(_FEW + 1))
    found = np.searchsorted(table, counts + chance[few]) - begins[counts]
    first[few] = np.minimum(found, counts)
    return first.astype(np.float32), (whole - first).astype(np.float32)


def _recorrupted(
    photons: FloatArray, spectrum: Spectrum, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return two images of independent noise, as large as in nine tenths and a tenth of photons."""
    noise = spectrum.draw(ndimage.uniform_filter(photons, 3, mode="nearest"), rng)
    more = np.float32(math.sqrt((1 - SHARE) / SHARE))
    return np.maximum(photons + more * noise, 0), photons - noise / more


def _window(shape: Shape) -> FloatArray:
    """Return (Z, Y, X) float32, 1 but near the border."""
    window = np.ones((1, 1, 1), np.float32)
    for axis, n in enumerate(shape):
        if n >= _LEAST_TAPERED:
            fades = np.minimum(1, (np.arange(n) + 0.5) / _TAPER)
            sides = [1, 1, 1]
            sides[axis] = n
            window = window * np.minimum(fades, fades[::-1]).astype(np.float32).reshape(sides)
    return window


def telling_shape(
    image_shape: tuple[int, int, int], psf_shape: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return the size (z, y, x) of what :func:`telling_crop` cuts out.

    All of z, since light spreads along it most; a square or less of y and x, at least twice
    the PSF's width.
    """
    planes, height, width = image_shape
    side = max(round(math.sqrt(_CROP_VOXELS / planes)), 2 * max(psf_shape[1:]))
    return planes, min(side, height), min(side, width)


def telling_crop(image: FloatArray, psf_shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the part of a large image with most structure, (z, y, x) slices."""
    _, height, width = image.shape
    _, *crop = telling_shape(image.shape, psf_shape)
    if crop == [height, width]:
        return (slice(None),) * 3
    structure = image.var(axis=0, dtype=np.float64) + image.mean(axis=0, dtype=np.float64) ** 2
    total = ndimage.uniform_filter(structure, size=crop, mode="constant")
    inner = tuple(
        slice(c // 2, n - (c - 1) // 2) for c, n in zip(crop, (height, width), strict=True)
    )
    y, x = np.unravel_index(int(total[inner].argmax()), total[inner].shape)
    return slice(None), slice(int(y), int(y) + crop[0]), slice(int(x), int(x) + crop[1])
