import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.evaluate.fourier_shell import fourier_shell_correlation


def test_lateral_and_axial_resolution_of_a_band_limited_volume():
    rng = np.random.default_rng(2)
    voxel_um = (0.2, 0.1, 0.1)
    truth = rng.normal(size=(48, 64, 64))
    fz, fy, fx = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(truth.shape, voxel_um, strict=True)), indexing="ij"
    )
    kept = (np.hypot(fy, fx) < 1 / 0.4) & (abs(fz) < 1 / 0.8)
    signal = np.fft.ifftn(np.fft.fftn(truth) * kept).real
    result = signal + rng.normal(0, 1e-2, truth.shape)
    lateral = fourier_shell_correlation(result, truth, voxel_um, "lateral")
    axial = fourier_shell_correlation(result, truth, voxel_um, "axial")
    # The window smears the band's edge by about one shell.
    assert axial.resolution_um == pytest.approx(0.8, rel=0.1)
    assert lateral.resolution_um == pytest.approx(0.4, rel=0.1)
    assert (lateral.correlation <= 1 + 1e-12).all()


def test_resolution_without_a_fall_is_the_nyquist_limit():
    truth = np.random.default_rng(0).normal(size=(24, 40, 48))
    curve = fourier_shell_correlation(truth, 2 * truth + 1, (0.3, 0.1, 0.1), "axial")
    assert curve.resolution_um == pytest.approx(0.6)
    np.testing.assert_allclose(curve.correlation, 1)


def test_too_few_planes_are_named():
    thin = np.ones((2, 40, 48))
    with pytest.raises(RlnError, match="needs 4 voxels"):
        fourier_shell_correlation(thin, thin, (1, 1, 1), "axial")
