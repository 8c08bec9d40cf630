"""Scores of many results against one ground truth."""

from functools import cache

import numpy as np
from scipy import ndimage

from napari_rln.core import metrics
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Float64Array, FloatArray, VoxelUm
from napari_rln.evaluate.fourier_shell import Direction, fourier_shell_correlation

_FLAT_FRACTION = 0.05  # of the volume's range, below which a plane is flat


class Judge:
    """Scores of results against one ground truth, by the names of ``results.SCORES``.

    Equal to those of :mod:`napari_rln.evaluate.scores` and faster: what concerns the truth alone is
    kept, and the windows of the SSIM are matrices: those of the xz planes first, for all planes at
    once, and from these along y those of the volume.

    Parameters
    ----------
    truth
        (Z, Y, X), at least 11 voxels along every axis, not flat.
    voxel_um
        Voxel size (z, y, x) in micrometres.
    """

    def __init__(self, truth: FloatArray, voxel_um: VoxelUm = (1.0, 1.0, 1.0)) -> None:
        self._truth, self._voxel_um = truth.astype(np.float64), voxel_um
        self._peak = float(np.ptp(truth))
        if not self._peak > 0:
            raise RlnError(
                "the test image shows no structure; give larger images (shape), or other "
                "structures."
            )
        spans = np.ptp(self._truth, axis=(0, 2))
        self._planes = spans >= _FLAT_FRACTION * self._peak
        self._windows = [_window(n) for n in truth.shape]
        self._means, self._squares = self._seen(self._truth), self._seen(self._truth**2)

    def scores(self, result: FloatArray) -> dict[str, float]:
        """Return all scores of a result, (Z, Y, X) in the unit of the truth.

        Raises
        ------
        RlnError
            If the result has values that are not finite.
        """
        if not np.isfinite(result).all():
            raise RlnError("the result has values that are not finite.")
        fit = self.fitted(result)
        return {
            **self.quality(fit),
            "nrmse": metrics.nrmse(fit, self._truth, fit=False),
            "pearson": metrics.pearson(fit, self._truth),
            "lateral_um": self._resolution_um(fit, "lateral"),
            "axial_um": self._resolution_um(fit, "axial"),
            "flux": float(result.sum(dtype=np.float64) / self._truth.sum()),
        }

    def fitted(self, result: FloatArray) -> Float64Array:
        """Return a result after the fit of scale and offset to the truth."""
        return metrics.fitted(result, self._truth)

    def quality(self, fit: Float64Array) -> dict[str, float]:
        """Return PSNR and SSIM of a fitted result, of the volume and as means over xz planes."""
        errors = np.mean((fit - self._truth) ** 2, axis=(0, 2))
        seen = (self._seen(fit), self._seen(fit**2), self._seen(fit * self._truth))
        planes, volume = (
            self._similarity(*parts)
            for parts in zip(*seen, self._means, self._squares, strict=True)
        )
        inner = slice(metrics.SSIM_WINDOW // 2, -(metrics.SSIM_WINDOW // 2))
        return {
            "psnr_db": float(self._psnr(errors.mean())),
            "ssim": float(volume[inner, inner, inner].mean()),
            "psnr_xz_db": float(self._psnr(errors[self._planes]).mean()),
            "ssim_xz": float(planes[inner, self._planes, inner].mean()),
        }

    def _resolution_um(self, fit: Float64Array, direction: Direction) -> float:
        curve = fourier_shell_correlation(fit, self._truth, self._voxel_um, direction)
        return curve.resolution_um

    def _psnr(self, errors: Float64Array) -> Float64Array:
        with np.errstate(divide="ignore"):  # of a perfect result it is infinite
            levels: Float64Array = 20 * np.log10(self._peak) - 10 * np.log10(errors)
        return levels

    def _seen(self, data: Float64Array) -> tuple[Float64Array, ...]:
        """Return means under the windows of the xz planes, and under those of the volume."""
        z, y, x = self._windows
        planes = np.tensordot(z, data @ x.T, axes=1)
        return planes, y @ planes

    def _similarity(
        self, x: Float64Array, xx: Float64Array, xg: Float64Array, g: Float64Array,
        gg: Float64Array,
    ) -> Float64Array:  # fmt: skip
        """Return the map of the SSIM (Wang et al., IEEE TIP 13, 2004), equation 13."""
        c1, c2 = (0.01 * self._peak) ** 2, (0.03 * self._peak) ** 2
        structure = (2 * (xg - x * g) + c2) / (xx - x * x + gg - g * g + c2)
        similarity: Float64Array = (2 * x * g + c1) / (x * x + g * g + c1) * structure
        return similarity


@cache
def _window(n: int) -> Float64Array:
    """Return the (n, n) matrix that takes means under the Gaussian window."""
    window: Float64Array = ndimage.gaussian_filter1d(
        np.eye(n), metrics.SSIM_SIGMA, axis=0, truncate=3.5
    )
    return window
