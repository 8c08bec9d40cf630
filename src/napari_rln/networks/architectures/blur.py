"""The blur by a PSF and its adjoint as differentiable operators, for unrolled networks.

As :class:`napari_rln.deconvolution.convolution.Convolution`, whose border is ``"reflect"`` or
``"periodic"``, but for batches, and gradients pass through it.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch.nn.functional import pad

from napari_rln.core.volume import FloatArray, Shape

AXES = (-3, -2, -1)
"""Axes of images (N, C, D, H, W) that are transformed."""

_MOST_TRANSFERS = 4  # kept, of different shapes


class Blur:
    """Blur of images (N, C, D, H, W) by a PSF, with its adjoint.

    Parameters
    ----------
    psf
        (z, y, x), sum 1, centre on voxel ``n // 2``. Of n planes it is cropped to 2 n - 1, beyond
        which no light is in the image, and scaled to sum 1 again.
    """

    def __init__(self, psf: FloatArray) -> None:
        self._psf = torch.from_numpy(np.ascontiguousarray(psf, np.float32))
        self._transfers: dict[tuple[Shape, Shape, torch.device, torch.dtype], torch.Tensor] = {}

    @property
    def kernel(self) -> torch.Tensor:
        """The PSF, (z, y, x)."""
        return self._psf

    def A(self, x: torch.Tensor) -> torch.Tensor:
        """Return the blur of objects that are mirrored at their borders."""
        size = self.size_for(x.shape[-3:])
        before, after = reach_of(size)
        whole = self._filtered(mirrored(x, before, after), size, conjugate=False)
        return cropped(whole, before, after)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return the adjoint of :meth:`A`."""
        size = self.size_for(y.shape[-3:])
        before, after = reach_of(size)
        pads = [n for b, a in zip(before[::-1], after[::-1], strict=True) for n in (b, a)]
        x = self._filtered(pad(y, pads), size, conjugate=True)
        for axis, b, a in zip(AXES, before, after, strict=True):  # adds the mirror images
            n = x.shape[axis] - b - a
            first = x.narrow(axis, 0, b).flip(axis)
            last = x.narrow(axis, b + n, a).flip(axis)
            middle = x.narrow(axis, b, n) + pad(first, along(axis, 0, n - b))
            x = middle + pad(last, along(axis, n - a, 0))
        return x

    def transfer(self, shape: Shape, size: Shape, like: torch.Tensor) -> torch.Tensor:
        """Return the transfer function of periodic images of a shape, as from rfftn.

        Of the PSF cropped to a size, both (z, y, x), on the device and of the type of a tensor.
        """
        key = shape, size, like.device, like.dtype
        if key not in self._transfers:
            if len(self._transfers) >= _MOST_TRANSFERS:
                self._transfers.pop(next(iter(self._transfers)))
            self._transfers[key] = self._transfer(*key)
        return self._transfers[key]

    def size_for(self, shape: Sequence[int]) -> Shape:
        """Return the size (z, y, x) of the PSF, cropped for an image of a shape."""
        z, y, x = (min(p, 2 * n - 1) for p, n in zip(self._psf.shape, shape, strict=True))
        return z, y, x

    def _filtered(self, x: torch.Tensor, size: Shape, *, conjugate: bool) -> torch.Tensor:
        z, y, x_ = (scipy.fft.next_fast_len(n, real=True) for n in x.shape[-3:])
        otf = self.transfer((z, y, x_), size, x)
        spectrum = torch.fft.rfftn(x, s=(z, y, x_), dim=AXES)
        spectrum = spectrum * (otf.conj() if conjugate else otf)
        whole: torch.Tensor = torch.fft.irfftn(spectrum, s=(z, y, x_), dim=AXES)
        return whole[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]]

    def _transfer(
        self, shape: Shape, size: Shape, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        psf = self._psf.double()
        for axis, (p, n) in enumerate(zip(psf.shape, size, strict=True)):
            psf = psf.narrow(axis, p // 2 - n // 2, n)
        places = [(torch.arange(p) - p // 2) % n for p, n in zip(size, shape, strict=True)]
        kernel = torch.zeros(shape, dtype=torch.float64)
        kernel[torch.meshgrid(*places, indexing="ij")] = psf / psf.sum()
        otf: torch.Tensor = torch.fft.rfftn(kernel)
        return otf.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)


def reach_of(size: Shape) -> tuple[Shape, Shape]:
    """Return the voxels before and after an image from which light comes, for a PSF of a size."""
    z, y, x = size
    return ((z - 1) // 2, (y - 1) // 2, (x - 1) // 2), (z // 2, y // 2, x // 2)


def mirrored(x: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> torch.Tensor:
    """Return images with their mirror images around them."""
    for axis, b, a in zip(AXES, before, after, strict=True):
        n = x.shape[axis]
        first, last = x.narrow(axis, 0, b).flip(axis), x.narrow(axis, n - a, a).flip(axis)
        x = torch.cat((first, x, last), axis)
    return x


def cropped(x: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> torch.Tensor:
    """Return images without so many voxels before and after."""
    for axis, b, a in zip(AXES, before, after, strict=True):
        x = x.narrow(axis, b, x.shape[axis] - b - a)
    return x


def along(axis: int, before: int, after: int) -> list[int]:
    """Return the argument of torch's ``pad`` that pads a single axis."""
    return [0, 0] * (-1 - axis) + [before, after]
