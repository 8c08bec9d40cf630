"""Gradient consensus: corrections that two random halves of the photons agree on.

Richardson-Lucy amplifies noise because it fits it. Each photon is put into one of two halves at
random; the noise of the halves is independent, so that what both want to correct is the object, and
what they dispute is noise. An iteration changes only voxels whose neighbourhood agrees (Manton and
York, "Gradient consensus", doi:10.5281/zenodo.10278919): with the corrections ``c`` of the halves,

    A_adjoint(A((c1 - 1) (c2 - 1))) >= 0

The halves are drawn anew in each iteration. Their corrections are ``c + d`` and ``c - d``, with the
correction ``c`` by all photons and ``d`` by half of the difference between the halves; so the
product is ``(c - 1)^2 - d^2``, and where the halves agree the step is that of Richardson-Lucy.

The random number of a voxel depends on its position in the whole image, so that tiles draw the
halves of the whole.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.special import ndtri

from napari_rln.core.volume import FloatArray, Shape
from napari_rln.deconvolution.convolution import Convolution, map_pieces, pieces
from napari_rln.deconvolution.noise_spectrum import Spectrum

_Bits = npt.NDArray[np.uint64]

_FEW = 64  # highest photon count that is split photon by photon, a bit each
_AXIS_BITS = 21  # of a position along an axis

# SplitMix64 (Steele et al., OOPSLA 2014, p. 453): its increment, and its mixing function below.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class GradientConsensus:
    """Random halves of the photons of an image, and the agreement of their corrections.

    Parameters
    ----------
    blur
        Forward model.
    photons
        (Z, Y, X), the image.
    spectrum
        Spectrum of its noise. Correlated noise cannot be split by photons; halves then differ by
        noise of the same power and spectrum instead.
    seed
        Random seed.
    origin
        Position (z, y, x) of the image in a larger one that it is a tile of.
    """

    def __init__(
        self,
        blur: Convolution,
        photons: FloatArray,
        *,
        spectrum: Spectrum,
        seed: int,
        origin: Shape = (0, 0, 0),
    ) -> None:
        self._blur, self._photons, self._seed, self._origin = blur, photons, seed, origin
        self._spectrum, self._smooth = spectrum, photons
        if not spectrum.white:
            self._smooth = ndimage.uniform_filter(photons, 3, mode="nearest")
        self._pieces = pieces(math.prod(blur.estimate_shape), blur.device)
        self._draws = 0

    def difference(self) -> torch.Tensor:
        """Draw the next halves; return the first minus the second, photons, (Z, Y, X)."""
        halves = np.empty(self._photons.shape, np.float32)
        rounding, splitting = (_key(self._seed, self._draws, number) for number in range(2))
        self._draws += 1

        def draw(planes: slice) -> None:
            for z in range(planes.start, planes.stop):
                where = self._positions(z)
                if self._spectrum.white:
                    whole = np.floor(self._photons[z] + _uniform(_random(where, rounding)))
                    halves[z] = _split(whole, _random(where, splitting))
                else:
                    halves[z] = ndtri(_uniform(_random(where, splitting)))
                    halves[z] *= np.sqrt(self._smooth[z])

        planes = [slice(z, z + 1) for z in range(len(halves))]
        map_pieces(draw, planes, torch.device("cpu"))
        if not self._spectrum.white:
            halves = self._spectrum.coloured(halves)
        return torch.from_numpy(halves).to(self._blur.otf.real)

    def agreed(
        self,
        correction: torch.Tensor,
        difference: torch.Tensor,
        normalise: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return a correction, 1 where the halves disagree; valid after further convolutions.

        Parameters
        ----------
        correction
            That of all photons, from :meth:`.Convolution.A_adjoint`, not normalised.
        difference
            Halves of :meth:`difference`, divided by the expected image.
        normalise
            Factor on corrections, 0 where nothing is known.
        mask
            Measured voxels; all when none.
        """
        whole = correction.clone(memory_format=torch.contiguous_format)
        half = self._blur.A_adjoint(difference).clone(memory_format=torch.contiguous_format)
        flat, product, factor = whole.view(-1), half.view(-1), normalise.view(-1)

        def multiply(part: slice) -> None:
            flat[part].mul_(factor[part])
            product[part].mul_(factor[part]).square_().neg_()
            product[part].add_((flat[part] - 1).square_())
            product[part].masked_fill_(factor[part] == 0, 0)

        map_pieces(multiply, self._pieces, whole.device)
        blurred = self._blur.A(half)
        if mask is not None:
            blurred.masked_fill_(~mask, 0)
        agreement = self._blur.A_adjoint(blurred).contiguous().view(-1)

        def keep(part: slice) -> None:
            flat[part].masked_fill_((agreement[part] < 0) & (factor[part] > 0), 1)

        map_pieces(keep, self._pieces, whole.device)
        return whole

    def _positions(self, z: int) -> _Bits:
        """Return the positions of a plane's voxels in the whole image, as numbers, (Y, X)."""
        plane, row, column = (np.uint64(start) for start in self._origin)
        rows, columns = (np.arange(n, dtype=np.uint64) for n in self._photons.shape[1:])
        bits = np.uint64(_AXIS_BITS)
        lines = (((plane + np.uint64(z)) << bits) + row + rows) << bits
        places: _Bits = lines[:, None] + column + columns
        return places


def _split(whole: FloatArray, bits: _Bits) -> FloatArray:
    """Return the number of photons in one half minus that in the other."""
    counts = whole.clip(0, _FEW).astype(np.uint64)
    # A random bit for each photon; a shift by all 64 bits is undefined.
    chosen = np.bitwise_count(bits >> np.minimum(np.uint64(_FEW) - counts, np.uint64(_FEW - 1)))
    difference: FloatArray = 2 * chosen.astype(np.float32) - whole
    difference[counts == 0] = 0
    many = whole > _FEW
    difference[many] = np.sqrt(whole[many]) * ndtri(_uniform(bits[many]))
    return difference


def _uniform(bits: _Bits) -> FloatArray:
    """Return random numbers between 0 and 1, both excluded."""
    numbers = (bits >> np.uint64(41)).astype(np.float32)
    numbers += np.float32(0.5)
    numbers *= np.float32(2.0**-23)
    return numbers


def _key(*numbers: int) -> _Bits:
    """Return the key of a sequence of random bits, (1,)."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = _random(key, np.array([number % 2**64], np.uint64))
    return key


def _random(places: _Bits, key: _Bits) -> _Bits:
    """Return 64 random bits for each place."""
    return _mixed(places * _INCREMENT + key)


def _mixed(bits: _Bits) -> _Bits:
    """Return well mixed bits: numbers that differ in one bit become independent."""
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        bits = (bits ^ (bits >> shift)) * factor
    return bits ^ (bits >> _SHIFTS[2])
