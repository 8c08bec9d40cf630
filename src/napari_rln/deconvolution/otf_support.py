"""Support of an OTF: the frequencies that a microscope transmits, found from the OTF itself."""

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull

from napari_rln.core.volume import Float64Array, Shape

_SHARE = 0.9  # of the sum of |OTF|, in the support
_LEAST_LEVEL = 2.5e-3  # of |OTF| over its maximum: below, a measured PSF is mostly noise
_FLAT = 0.8  # fraction of the way from frequency 0 to the edge over which the window is 1
_SAMPLES = 20  # of that way along an axis, between which distances are interpolated


def support_window(
    psf: npt.NDArray[np.floating], work_shape: Shape, level: float | None = None
) -> torch.Tensor:
    """Return a window that is 1 in the support of an OTF, falls at its edge and is 0 outside.

    The support is the convex hull of the frequencies around 0 with an absolute OTF above a level.
    So it follows the OTF, however anisotropic, and holds what that encloses, such as the missing
    cone of a widefield microscope. Over the last fifth of the way from frequency 0 to the edge, in
    each direction, the window falls as the square of a cosine.

    Parameters
    ----------
    psf
        (z, y, x). Along an axis of one voxel there is no edge.
    work_shape
        Shape of the volume that is transformed.
    level
        Absolute OTF at the edge over its maximum; when none, nine tenths of its sum are above it,
        and it is at least 0.0025.

    Returns
    -------
    torch.Tensor
        (z, y, x // 2 + 1) float32.
    """
    axes = [axis for axis, n in enumerate(psf.shape) if n > 1]
    edge = _edge(psf.squeeze(), level)
    extent = np.abs(edge).max(axis=0)
    window = torch.from_numpy(_distances(edge / extent))
    # Interpolated, a convex function is nowhere lower: what is outside stays outside.
    for axis, limit in zip(axes, extent, strict=True):
        n = work_shape[axis]
        frequencies = np.fft.rfftfreq(n) if axis == 2 else np.fft.fftfreq(n)
        weights = torch.from_numpy(_weights(frequencies / limit))
        window = torch.tensordot(window, weights, dims=([0], [0]))
    fall = window.sub_(_FLAT).div_(1 - _FLAT).clamp_(0, 1)
    window = torch.cos(fall * (np.pi / 2)).square_().masked_fill_(fall == 1, 0)
    for axis in range(3):
        if axis not in axes:
            window = window.unsqueeze(axis)
    z, y, x = work_shape
    return window.to(torch.float32).expand(z, y, x // 2 + 1)


def _edge(psf: npt.NDArray[np.floating], level: float | None) -> Float64Array:
    """Return the outermost frequencies of the support, (n, axes), cycles per voxel.

    Sampled twice as finely as the PSF's box demands, so that the connected parts of its OTF are
    connected in the samples too.
    """
    shape = tuple(2 * n for n in psf.shape)
    amplitude = np.fft.fftshift(np.abs(scipy.fft.fftn(psf, shape)))
    amplitude /= amplitude.max()
    if level is None:
        values = np.sort(amplitude, axis=None)[::-1]
        total = np.cumsum(values, dtype=np.float64)
        level = max(float(values[np.searchsorted(total, _SHARE * total[-1])]), _LEAST_LEVEL)
    cross = ndimage.generate_binary_structure(psf.ndim, 1)
    # Opened, so that noise just above the level does not reach out of the support.
    above = ndimage.binary_opening(amplitude >= level, cross)
    centre = np.array(shape) // 2
    above[tuple(slice(c - 1, c + 2) for c in centre)] |= cross  # has an extent in any case
    parts, _ = ndimage.label(above, ndimage.generate_binary_structure(psf.ndim, psf.ndim))
    support = parts == parts[tuple(centre)]
    outermost = support & ~ndimage.binary_erosion(support, cross)
    edge: Float64Array = (np.argwhere(outermost) - centre) / np.array(shape)
    return np.concatenate([edge, -edge])  # the Nyquist frequency is sampled on one side only


def _distances(edge: Float64Array) -> Float64Array:
    """Return distances from the centre relative to the edge of a convex hull in that direction.

    ``edge`` is symmetric about 0, with an extent of 1 along each axis, as the grid of the result.
    """
    grid = np.linspace(-1, 1, 2 * _SAMPLES + 1)
    dimensions = edge.shape[1]
    if dimensions == 1:
        return np.abs(grid)
    planes = np.unique(ConvexHull(edge).equations.round(12), axis=0)  # (normal, offset)
    facets = planes[:, :-1] / -planes[:, -1:]
    points = np.stack(np.meshgrid(*[grid] * dimensions, indexing="ij"), axis=-1)
    return np.stack([(part @ facets.T).max(axis=-1) for part in points])


def _weights(positions: Float64Array) -> Float64Array:
    """Return the weights of samples in linear interpolation at positions, (samples, positions)."""
    grid = np.linspace(-1, 1, 2 * _SAMPLES + 1)
    places = np.clip(positions, -1, 1)  # where the distance is at least 1 already
    return np.stack([np.interp(places, grid, sample) for sample in np.eye(len(grid))])
