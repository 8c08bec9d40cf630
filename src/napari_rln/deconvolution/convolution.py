"""Forward model of the microscope: blur by the PSF and crop to the field of view, and its adjoint.

``A`` blurs an estimate with the PSF and cuts out the field of view, ``A_adjoint`` is its exact
transpose. The three borders differ in the extent of the estimate:

extended
    every voxel whose light can reach the image, so that nothing is assumed about the object
    outside the field of view (Bertero and Boccacci, Astronomy & Astrophysics 437, 369, 2005);
periodic
    the image's own voxels; light that leaves on one side enters on the other;
reflect
    the image's own voxels, mirrored at every border (edge voxels repeated).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.threads import parallel_map
from napari_rln.core.volume import FloatArray, Shape
from napari_rln.deconvolution.fft import fast_shape, plan

T = TypeVar("T")
Border = Annotated[
    Literal["extended", "periodic", "reflect"],
    {"label": "Edges", "words": {"reflect": "mirrored"}},
]

# Least fraction of a voxel's light that reaches the image for the voxel to be estimated: below, its
# value would be noise divided by almost nothing.
_LEAST_SENSITIVITY = 0.01

# Elements per piece of a pointwise pass. On a CPU, pieces that stay in the cache wait for memory
# once and not once per operation; on a GPU they keep temporary tensors small.
_PIECE_CPU, _PIECE_GPU = 1 << 17, 1 << 24


def pieces(count: int, device: torch.device) -> list[slice]:
    """Return slices that cut a flat tensor of ``count`` elements for pointwise passes."""
    step = _PIECE_CPU if device.type == "cpu" else _PIECE_GPU
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def map_pieces(work: Callable[[slice], T], parts: Sequence[slice], device: torch.device) -> list[T]:
    """Return the results of a function for every piece, in order; on a CPU from threads."""
    return parallel_map(work, parts) if device.type == "cpu" else [work(part) for part in parts]


def padded_shape(image_shape: Shape, psf_shape: Shape, border: Border) -> Shape:
    """Return the shape (z, y, x) of the volume that is transformed."""
    if border == "periodic":
        return image_shape
    z, y, x = (n + p - 1 for n, p in zip(image_shape, psf_shape, strict=True))
    return fast_shape((z, y, x))


def tile_margin(psf_shape: Shape, border: Border) -> Shape:
    """Return the padding of a tile for its transform, in voxels (z, y, x)."""
    if border == "periodic":
        return 0, 0, 0
    z, y, x = (n - 1 for n in psf_shape)
    return z, y, x


def check_tiled(border: Border) -> None:
    """Raise unless a volume with this border can be cut into tiles.

    Raises
    ------
    RlnError
        If it is periodic.
    """
    if border == "periodic":
        raise RlnError(
            "the periodic border needs the whole volume, which exceeds the memory limit; use the "
            "extended border."
        )


class Convolution:
    """Blur by a PSF and crop to the field of view, with its adjoint.

    Results are views of one work buffer, valid until the next call.

    Parameters
    ----------
    psf
        (z, y, x), sum 1, centre on voxel ``n // 2``.
    image_shape
        (Z, Y, X) of the image.
    border
        Extent of the estimate, see the module.
    device
        Compute device.
    dtype
        ``torch.float32`` or ``torch.float64``.

    Attributes
    ----------
    image_shape, estimate_shape : tuple of int
        (Z, Y, X) of the arguments of ``A_adjoint`` and ``A``.
    window : tuple of slice
        Field of view in an estimate.
    otf : torch.Tensor
        Fourier transform of the PSF divided by the number of voxels transformed; other transfer
        functions are fastest in the same memory layout.

    Raises
    ------
    RlnError
        If the PSF is larger than the image and the border does not allow it.
    """

    def __init__(
        self,
        psf: npt.NDArray[np.floating],
        image_shape: Shape,
        *,
        border: Border = "extended",
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = device or torch.device("cpu")
        if border != "extended" and any(p > n for p, n in zip(psf.shape, image_shape, strict=True)):
            raise RlnError(
                f"PSF is {psf.shape} but the image is {image_shape}; crop the PSF to at most the "
                f"image, or use the extended border instead of {border}."
            )
        self.border = border
        self.image_shape = image_shape
        self.work_shape = padded_shape(image_shape, psf.shape, border)
        # Kernel element j moves light by j - n // 2 voxels, so (n - 1) // 2 voxels before
        # the image's first and n // 2 after its last contribute to it.
        self._before = (0, 0, 0) if border == "periodic" else tuple((p - 1) // 2 for p in psf.shape)
        z, y, x = (slice(b, b + n) for b, n in zip(self._before, image_shape, strict=True))
        self._field = (z, y, x)
        self._halo = tuple((b, p // 2) for b, p in zip(self._before, psf.shape, strict=True))
        extended = border == "extended"
        self.estimate_shape: Shape = self.work_shape if extended else image_shape
        self.window = self._field if extended else (slice(None),) * 3
        self._transform = plan(self.work_shape, device, dtype)
        self.otf = self._otf(psf)

    def _otf(self, psf: npt.NDArray[np.floating]) -> torch.Tensor:
        real = self._transform.real
        real.zero_()
        places = [
            (torch.arange(p, device=real.device) - p // 2) % n
            for p, n in zip(psf.shape, real.shape, strict=True)
        ]
        real[torch.meshgrid(*places, indexing="ij")] = torch.from_numpy(
            np.ascontiguousarray(psf)
        ).to(real)
        return self._transform.spectrum(real).div_(real.numel())

    @property
    def device(self) -> torch.device:
        """Device of the buffers."""
        return self.otf.device

    def A(self, estimate: torch.Tensor, *, background: float = 0.0) -> torch.Tensor:
        """Return the blurred estimate in the field of view, shape ``image_shape``.

        A constant background is added at frequency 0, at no cost.
        """
        source = self._mirror(estimate) if self.border == "reflect" else estimate
        self._transform.filter(source, self.otf, constant=background, result_box=self._field)
        return self._transform.real[self._field]

    def A_adjoint(self, image: torch.Tensor) -> torch.Tensor:
        """Return the correlation of an image with the PSF, shape ``estimate_shape``.

        ``image`` may be the view that :meth:`A` returned, changed in place.
        """
        self._transform.filter(image, self.otf, conjugate=True, source_box=self._field)
        return self._fold() if self.border == "reflect" else self._transform.real

    def filter(
        self, image: torch.Tensor, transfer: torch.Tensor, *, joined: bool = False
    ) -> torch.Tensor:
        """Return an image filtered by a transfer function, shape ``estimate_shape``.

        The image is extended beyond the field of view: mirrored for the reflect border, by its
        edge voxels for the extended one, which on request pass smoothly into those of the opposite
        edge (``joined``): the transform is periodic, and a step would ring. It may be the view that
        :meth:`A` returned. The transfer function is divided by the number of voxels, like ``otf``.
        """
        real = self._transform.real
        field = real[self._field]
        if image.data_ptr() != field.data_ptr():
            field.copy_(image)
        if self.border == "reflect":
            self._mirror(field.clone())
        elif self.border == "extended":
            self._continue(joined=joined)
        self._transform.filter(real, transfer)
        return real[self._field] if self.border == "reflect" else real

    def sensitivity(self, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``A_adjoint(mask)``: the fraction of each voxel's light that reaches the image."""
        real = self._transform.real
        ones = real.new_ones(self.image_shape) if mask is None else mask.to(real)
        return self.A_adjoint(ones).clone(memory_format=torch.contiguous_format)

    def normaliser(self, sensitivity: torch.Tensor) -> torch.Tensor:
        """Return ``1 / sensitivity``, and 0 where it is almost 0; in place."""
        dark = sensitivity <= _LEAST_SENSITIVITY
        return sensitivity.reciprocal_().masked_fill_(dark, 0.0)

    def _continue(self, *, joined: bool) -> None:
        """Repeat the edge voxels of the field of view in all of the work buffer around it."""
        real = self._transform.real
        for axis, inside in enumerate(self._field):
            before = real.narrow(axis, 0, inside.start)
            after = real.narrow(axis, inside.stop, real.shape[axis] - inside.stop)
            first = real.narrow(axis, inside.start, 1)
            last = real.narrow(axis, inside.stop - 1, 1)
            if not joined:
                before.copy_(first.expand_as(before))
                after.copy_(last.expand_as(after))
                continue
            gap = before.shape[axis] + after.shape[axis]
            way = torch.arange(1, gap + 1, dtype=real.dtype, device=real.device) / (gap + 1)
            shares = (0.5 - 0.5 * torch.cos(torch.pi * way)).view(
                [-1 if a == axis else 1 for a in range(3)]
            )
            passing = last + (first - last) * shares
            after.copy_(passing.narrow(axis, 0, after.shape[axis]))
            before.copy_(passing.narrow(axis, after.shape[axis], before.shape[axis]))

    def _mirror(self, estimate: torch.Tensor) -> torch.Tensor:
        """Put an estimate into the work buffer with its mirror images around."""
        real = self._transform.real
        real.zero_()
        real[self._field] = estimate
        for axis, outside, inside in self._mirrors():
            real.narrow(axis, *outside).copy_(real.narrow(axis, *inside).flip(axis))
        return real

    def _fold(self) -> torch.Tensor:
        """Add the mirror images in the work buffer to their originals: the adjoint of mirroring."""
        real = self._transform.real
        for axis, outside, inside in self._mirrors():
            real.narrow(axis, *inside).add_(real.narrow(axis, *outside).flip(axis))
        return real[self._field]

    def _mirrors(self) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
        """Yield axis, and (start, length) of the halo and of its mirror image, of every border."""
        for axis, (n, (before, after)) in enumerate(zip(self.image_shape, self._halo, strict=True)):
            stop = before + n
            yield axis, (0, before), (before, before)
            yield axis, (stop, after), (stop - after, after)


def of_one_size(kernels: Sequence[FloatArray]) -> list[FloatArray]:
    """Return PSFs, (z, y, x) each with centre on ``n // 2``, zero-padded to one size."""
    sizes = [max(kernel.shape[axis] for kernel in kernels) for axis in range(3)]
    padded = []
    for kernel in kernels:
        before = [n // 2 - p // 2 for n, p in zip(sizes, kernel.shape, strict=True)]
        after = [n - p - b for n, p, b in zip(sizes, kernel.shape, before, strict=True)]
        padded.append(np.pad(kernel, list(zip(before, after, strict=True))))
    return padded
