"""Fourier shell correlation of a result with the ground truth, and the resolution it gives."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.fft import rfftn
from scipy.signal.windows import hann

from napari_rln.core.errors import RlnError
from napari_rln.core.metrics import fitted_pair
from napari_rln.core.volume import Array, Float64Array, VoxelUm

Direction = Literal["lateral", "axial"]

FSC_THRESHOLD = 1 / 7
"""Correlation that defines the resolution (Rosenthal and Henderson, J. Mol. Biol. 333, 2003)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShellCurve:
    """Correlation (N,) with the truth, from -1 to 1, as a function of spatial frequency.

    The frequencies (N,) are the means of the shells in cycles per micrometre, increasing, up to the
    Nyquist frequency of the voxel grid in this direction.
    """

    frequency_per_um: Float64Array
    correlation: Float64Array
    nyquist_per_um: float

    @property
    def resolution_um(self) -> float:
        """Period at the first crossing of 1/7; that of the Nyquist frequency without a crossing."""
        low = np.flatnonzero(self.correlation < FSC_THRESHOLD)
        if not low.size:
            return 1 / self.nyquist_per_um
        i, f, c = int(low[0]), self.frequency_per_um, self.correlation
        if i == 0:
            return float(1 / f[0])
        fraction = (c[i - 1] - FSC_THRESHOLD) / (c[i - 1] - c[i])
        return float(1 / (f[i - 1] + fraction * (f[i] - f[i - 1])))


def fourier_shell_correlation(
    result: Array, truth: Array, voxel_um: VoxelUm, direction: Direction
) -> ShellCurve:
    """Return the Fourier shell correlation of a result with the truth along one direction.

    A shell consists of all frequencies with the same lateral, or the same axial, component: a
    cylinder about the z axis, or a pair of planes normal to it (Nieuwenhuizen et al., Nat. Methods
    10, 2013). A cone about the z axis would lie inside the missing cone of a widefield microscope
    and contain no axial detail. The mean is subtracted and a Hann window applied, so that the
    borders do not correlate; scale and offset have no influence. The width of a shell is the
    frequency step along the shortest side in the direction. Raise an RlnError if the shapes differ,
    or there are fewer than four voxels along the direction.
    """
    x, g = fitted_pair(result, truth)
    axes = (0,) if direction == "axial" else (1, 2)
    if min(g.shape[a] for a in axes) < 4:
        raise RlnError(
            f"The {direction} shell correlation needs 4 voxels along each of its axes but the "
            f"shape is {g.shape}; compare a larger region."
        )
    component = _component(g.shape, voxel_um, direction)
    nyquist = min(0.5 / voxel_um[a] for a in axes)
    inside = (component > 0) & (component <= nyquist)
    component = component[inside]
    width = max(1 / (g.shape[a] * voxel_um[a]) for a in axes)
    shell = np.rint(component / width).astype(np.intp)
    a, b = (_windowed_spectrum(v)[inside] for v in (x, g))
    cross, aa, bb, count, total = (
        np.bincount(shell, weights)
        for weights in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2, None, component)
    )
    used = (count > 0) & (bb > 0)
    # The correlation of a result without power is 0.
    scale = np.sqrt(np.where(aa > 0, aa * bb, np.inf))
    return ShellCurve(
        frequency_per_um=total[used] / count[used],
        correlation=cross[used] / scale[used],
        nyquist_per_um=nyquist,
    )


def _component(shape: tuple[int, ...], voxel_um: VoxelUm, direction: Direction) -> Float64Array:
    """Return the magnitude of the lateral or axial frequency, on the half spectrum of rfftn."""
    frequencies = [np.fft.fftfreq(n, d) for n, d in zip(shape, voxel_um, strict=True)]
    frequencies[2] = np.fft.rfftfreq(shape[2], voxel_um[2])
    fz, fy, fx = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    component = np.abs(fz) if direction == "axial" else np.hypot(fy, fx)
    return np.broadcast_to(component, (*shape[:2], frequencies[2].size))


def _windowed_spectrum(volume: Float64Array) -> npt.NDArray[np.complex128]:
    """Return the half spectrum of rfftn, without the mean and with a Hann window."""
    volume = volume - volume.mean()
    for axis, n in enumerate(volume.shape):
        if n > 1:
            shape = [n if a == axis else 1 for a in range(volume.ndim)]
            volume = volume * hann(n, sym=False).reshape(shape)
    spectrum: npt.NDArray[np.complex128] = rfftn(volume)
    return spectrum
