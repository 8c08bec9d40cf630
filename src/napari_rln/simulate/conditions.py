"""Conditions of images in the field: uneven light, detectors, defects and interpolation.

What is drawn for a volume acts in this order: on the light that is expected (uneven background,
bleaching), at its detection (shot noise, multiplication, read noise), at its conversion to image
units (gain, offset, hot voxels, saturation), and on the file (interpolation, integers).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray
from napari_rln.simulate.ranges import Range, check_range, drawn

Detector = Literal["scmos", "emccd", "pmt", "ideal"]
Probability = Annotated[float, {"min": 0.0, "max": 1.0}]

_DETECTORS: tuple[Detector, ...] = get_args(Detector)
_BITS = (8, 12, 16)
_EMCCD_EXCESS = 2.0  # variance of the multiplied photons, relative to Poisson's
_PATTERN = ((0.003, 0.02), (0.1, 0.5))  # deviations of pixels' gains (relative), offsets (photons)
_HOT = (0.5, 8.0)  # light of a hot voxel, relative to the image's brightest
_BRIGHT = 99.9  # percentile of the image that is its brightest
_MOST_OFFSET = 0.25  # of the range of values
_SIGMAS = 6.0  # of noise above the brightest light, for which the range of values has room


@dataclass(frozen=True, kw_only=True)
class FieldConditions:
    """Probabilities and ranges of an image's conditions; about half of the images have no defect.

    Attributes
    ----------
    uneven, unevenness
        Probability of an uneven background, and its largest deviation from the mean.
    bleached, bleaching
        Probability of bleaching along z, up or down, and the loss over the stack.
    empty
        Probability of a background without light, in an image without read noise.
    detectors
        Relative frequencies of sCMOS, EMCCD, photomultiplier and ideal detector.
    read_noise
        Standard deviation in photons, of an sCMOS camera.
    pattern
        Probability of pixels of unequal gains and offsets, of an sCMOS camera.
    multiplied, excess
        Probability that a photomultiplier does not count photons, and the variance of its values
        relative to that of photons.
    gain
        Image units per photon, log-uniform; lower where the image would exceed its bits.
    no_offset, offset, high_offset, highest_offset
        Probability of no offset, range of offsets, probability of a high offset, and its range, in
        image units; at most a quarter of the range of values.
    bits
        Relative frequencies of 8, 12 and 16 bits.
    hot, hot_pixels, hot_fraction
        Probabilities of hot voxels and of hot pixels, the same in all planes; and their fraction,
        log-uniform.
    saturated, saturation
        Probability of saturation, and its level relative to the brightest voxels (99.9th
        percentile).
    interpolated, shift
        Probability of an interpolated image, as after a registration, and its shift in voxels
        along one or two axes.
    """

    uneven: Probability = 0.12
    unevenness: Range = (0.1, 0.5)
    bleached: Probability = 0.12
    bleaching: Range = (0.05, 0.4)
    empty: Probability = 0.04
    detectors: tuple[float, float, float, float] = (0.5, 0.15, 0.25, 0.1)
    read_noise: Range = (0.5, 3.0)
    pattern: Probability = 0.15
    multiplied: Probability = 0.5
    excess: Range = (1.2, 1.5)
    gain: Range = (0.2, 20.0)
    no_offset: Probability = 0.25
    offset: Range = (10.0, 500.0)
    high_offset: Probability = 0.1
    highest_offset: Range = (500.0, 2000.0)
    bits: tuple[float, float, float] = (0.05, 0.35, 0.6)
    hot: Probability = 0.08
    hot_pixels: Probability = 0.05
    hot_fraction: Range = (1e-5, 1e-3)
    saturated: Probability = 0.08
    saturation: Range = (0.6, 0.95)
    interpolated: Probability = 0.12
    shift: Range = (0.1, 0.5)

    def __post_init__(self) -> None:
        check_limits(self)
        for name, least, most in (
            ("unevenness", 0.0, 1.0),
            ("bleaching", 0.0, 0.99),
            ("read_noise", 0.0, 1e6),
            ("excess", 1.0, 10.0),
            ("gain", 1e-6, 1e6),
            ("offset", 0.0, 1e6),
            ("highest_offset", 0.0, 1e6),
            ("hot_fraction", 1e-9, 0.1),
            ("saturation", 0.01, 10.0),
            ("shift", 0.0, 1.0),
        ):
            check_range(self, name, least, most)
        for name, count in (("detectors", len(_DETECTORS)), ("bits", len(_BITS))):
            given = getattr(self, name)
            if len(given) != count or not (min(given) >= 0 and 0 < sum(given) < float("inf")):
                raise RlnError(
                    f"`{name}` is {given}; give {count} relative frequencies, not all of them 0."
                )

    def draw(self, rng: np.random.Generator, brightest: float) -> "DrawnConditions":
        """Return random conditions of an image whose brightest voxel expects that many photons."""

        def happens(probability: float) -> bool:
            return bool(rng.random() < probability)

        def maybe(probability: float, span: Range, *, log: bool = False) -> float:
            return drawn(rng, span, log=log) if happens(probability) else 0.0

        def one_of(frequencies: tuple[float, ...]) -> int:
            return int(rng.choice(len(frequencies), p=np.divide(frequencies, sum(frequencies))))

        z, y, x, bowl = (float(value) for value in rng.normal(size=4))
        empty = happens(self.empty)
        detector = _DETECTORS[one_of(self.detectors)]
        camera = detector == "scmos"
        excess = {"emccd": _EMCCD_EXCESS, "pmt": maybe(self.multiplied, self.excess) or 1.0}
        noise = drawn(rng, self.read_noise) if camera and not empty else 0.0
        uneven_pixels = camera and not empty and happens(self.pattern)
        bits = _BITS[one_of(self.bits)]
        span = self.highest_offset if happens(self.high_offset) else self.offset
        highest = float(2**bits - 1)
        offset = min(maybe(1 - self.no_offset, span), _MOST_OFFSET * highest)
        spread = (excess.get(detector, 1.0) * brightest + noise**2) ** 0.5
        room = (highest - offset) / (brightest + _SIGMAS * spread)
        axes = rng.permutation(3)[: rng.integers(1, 3)] if happens(self.interpolated) else ()
        shift = [0.0, 0.0, 0.0]
        for axis in axes:
            shift[axis] = float(rng.choice((-1, 1))) * drawn(rng, self.shift)
        return DrawnConditions(
            unevenness=maybe(self.uneven, self.unevenness),
            course=(z, y, x, bowl),
            bleaching=float(rng.choice((-1, 1))) * maybe(self.bleached, self.bleaching),
            empty=empty,
            detector=detector,
            excess=excess.get(detector, 1.0),
            read_noise=noise,
            pixel_gain=drawn(rng, _PATTERN[0]) if uneven_pixels else 0.0,
            pixel_offset=drawn(rng, _PATTERN[1]) if uneven_pixels else 0.0,
            gain=min(drawn(rng, self.gain, log=True), room),
            offset=offset,
            bits=bits,
            hot=maybe(self.hot, self.hot_fraction, log=True),
            hot_pixels=maybe(self.hot_pixels, self.hot_fraction, log=True),
            saturation=maybe(self.saturated, self.saturation),
            shift=(shift[0], shift[1], shift[2]),
        )


@dataclass(frozen=True, kw_only=True)
class DrawnConditions:
    """Conditions of one image; 0 where one does not apply.

    Attributes
    ----------
    unevenness, course
        Largest deviation of the background from its mean, and its course: slopes along z, y and x,
        and curvature in the plane.
    bleaching
        Loss over the stack; negative: from the last plane to the first.
    excess
        Variance of the detected photons relative to Poisson's.
    read_noise
        Standard deviation in photons.
    pixel_gain, pixel_offset
        Standard deviations between pixels, of the relative gain and of the offset in photons.
    gain, offset
        Image units per photon, and image value without light.
    hot, hot_pixels
        Fractions of voxels, and of pixels.
    saturation
        Level relative to the brightest voxels.
    shift
        Shift (z, y, x) of the interpolated image in voxels.
    """

    unevenness: float
    course: tuple[float, float, float, float]
    bleaching: float
    empty: bool
    detector: Detector
    excess: float
    read_noise: float
    pixel_gain: float
    pixel_offset: float
    gain: float
    offset: float
    bits: int
    hot: float
    hot_pixels: float
    saturation: float
    shift: tuple[float, float, float]

    def image(
        self,
        signal: FloatArray,
        background: float,
        rng: np.random.Generator,
        *,
        exposure: float = 1.0,
    ) -> FloatArray:
        """Return the image of the expected photons of signal and background, in image units.

        (Z, Y, X), integers as float32. A longer exposure detects more photons, in the same unit.
        """
        photons = self.detect(exposure * self.illuminate(signal, background), rng)
        return self.stored(self.convert(photons / np.float32(exposure), rng))

    def truth(self, objects: FloatArray) -> FloatArray:
        """Return the ground truth of an object (Z, Y, X) in image units, aligned with the image."""
        return _shifted(self._bleached(objects), self.shift, order=3).clip(0)

    def illuminate(self, signal: FloatArray, background: float) -> FloatArray:
        """Return the expected photons of signal and background, (Z, Y, X)."""
        return self._bleached(signal + np.float32(background) * self._course(signal.shape))

    def detect(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the detected values in photons, (Z, Y, X)."""
        photons = rng.poisson(expected).astype(np.float32)
        if self.excess > 1:
            # Of n photons: mean n, variance n (excess - 1).
            spread = np.float32(self.excess - 1)
            photons = spread * rng.standard_gamma(photons / spread, dtype=np.float32)
        if self.pixel_gain or self.pixel_offset:
            gains, offsets = rng.standard_normal((2, *expected.shape[1:]), dtype=np.float32)
            photons *= 1 + np.float32(self.pixel_gain) * gains
            photons += np.float32(self.pixel_offset) * offsets
        if self.read_noise:
            noise = rng.standard_normal(expected.shape, dtype=np.float32)
            photons += np.float32(self.read_noise) * noise
        return photons

    def convert(self, photons: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return detected photons in image units, with hot and saturated voxels, (Z, Y, X)."""
        light = np.float32(self.gain) * photons
        brightest = float(np.percentile(light, _BRIGHT)) if self._has_defects() else 0.0
        for fraction, shape in ((self.hot, light.shape), (self.hot_pixels, light.shape[1:])):
            if fraction:
                hot = rng.random(shape, dtype=np.float32) < fraction
                low, high = np.log(_HOT)
                levels = brightest * np.exp(rng.uniform(low, high, int(hot.sum())))
                light[..., hot] += levels.astype(np.float32)
        if self.saturation:
            light = np.minimum(light, np.float32(self.saturation * brightest))
        return light + np.float32(self.offset)

    def stored(self, image: FloatArray) -> FloatArray:
        """Return an image as in its file, interpolated and in whole numbers, (Z, Y, X)."""
        whole = np.rint(_shifted(image, self.shift, order=1))
        return whole.clip(0, 2**self.bits - 1)

    def _has_defects(self) -> bool:
        return bool(self.hot or self.hot_pixels or self.saturation)

    def _bleached(self, data: FloatArray) -> FloatArray:
        if not self.bleaching:
            return data
        course = np.linspace(0, 1, len(data), dtype=np.float32)[:, None, None]
        planes = course if self.bleaching > 0 else 1 - course
        return data * np.float32(1 - abs(self.bleaching)) ** planes

    def _course(self, shape: tuple[int, ...]) -> FloatArray:
        """Return the background relative to its mean, (Z, Y, X)."""
        if not self.unevenness:
            return np.ones((1, 1, 1), dtype=np.float32)
        axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        slopes = np.asarray(self.course, dtype=np.float32)
        course = slopes[0] * z + slopes[1] * y + slopes[2] * x + slopes[3] * (y**2 + x**2)
        course -= course.mean()
        most = float(np.abs(course).max()) or 1.0
        relative: FloatArray = 1 + np.float32(self.unevenness / most) * course
        return relative


def _shifted(data: FloatArray, shift: tuple[float, float, float], *, order: int) -> FloatArray:
    if not any(shift):
        return data
    shifted: FloatArray = ndimage.shift(data, shift, order=order, mode="nearest")
    return shifted
