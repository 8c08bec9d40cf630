"""PSFs with aberrations: the theory's without any, and different in the known ways with them."""

from dataclasses import replace

import numpy as np
import pytest

from napari_rln.networks.model import psf_difference
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.shape import asymmetry
from napari_rln.simulate.aberrations import Aberrations, aberrated_psf

SIZE = (31, 25, 25)
WIDEFIELD = MicroscopeSettings(model="scalar", na=1.2, wavelength_um=0.52, size=SIZE)
MICROSCOPES = {
    "widefield": WIDEFIELD,
    "confocal": replace(WIDEFIELD, modality="confocal", excitation_um=0.49),
    "two-photon": replace(WIDEFIELD, modality="two-photon", excitation_um=0.9),
    "light-sheet": replace(WIDEFIELD, modality="light-sheet", sheet_fwhm_um=1.0),
}


def voxel_um(axial, lateral):
    """Return the voxel size for so many voxels per theoretical FWHM."""
    z, x = theoretical_fwhm_um(WIDEFIELD.na, WIDEFIELD.immersion_index, WIDEFIELD.wavelength_um)
    return z / axial, x / lateral, x / lateral


@pytest.mark.parametrize("modality", MICROSCOPES)
@pytest.mark.parametrize("sampling", [(1.5, 1), (3, 2.5), (14, 8)])
def test_without_aberrations_it_is_the_psf_of_scalar_theory(modality, sampling):
    settings, voxels = MICROSCOPES[modality], voxel_um(*sampling)
    theory = compute_psf(settings, voxels)
    assert psf_difference(aberrated_psf(settings, voxels, Aberrations(), size=SIZE), theory) < 0.012


def test_sum_is_one_and_the_brightest_voxel_is_the_middle():
    terms = Aberrations(0.06, 0.08, 0.05, 0.04, 1.0, 2.0, 0.3)
    for settings in MICROSCOPES.values():
        psf = aberrated_psf(settings, voxel_um(4, 3), terms, size=SIZE)
        assert psf.data.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert psf.data.min() >= 0
        assert np.unravel_index(psf.data.argmax(), SIZE) == tuple(n // 2 for n in SIZE)
        np.testing.assert_allclose(peak_centre(psf.data), [n // 2 for n in SIZE], atol=0.5)


def test_spherical_aberration_differs_along_z_only_and_follows_the_order_of_planes():
    terms = Aberrations(spherical=0.1)
    psf = aberrated_psf(WIDEFIELD, voxel_um(4, 3), terms, size=SIZE).data
    z, y, x = asymmetry(psf)
    assert z > 0.1
    assert max(y, x) < 0.01
    turned = replace(WIDEFIELD, z_order="to coverslip")
    np.testing.assert_array_equal(
        aberrated_psf(turned, voxel_um(4, 3), terms, size=SIZE).data, psf[::-1]
    )


def test_one_sign_of_spherical_aberration_resembles_a_mismatch_of_indices_at_depth():
    deep = replace(WIDEFIELD, sample_index=1.4, depth_um=6.0)
    known = compute_psf(deep, voxel_um(4, 3)).data
    psfs = [
        aberrated_psf(WIDEFIELD, voxel_um(4, 3), Aberrations(spherical=waves), size=SIZE).data
        for waves in (-0.1, 0.1)
    ]
    apart = [float(np.abs(psf - known).sum()) for psf in psfs]
    assert min(apart) < 0.75 * max(apart)


def test_coma_points_where_its_angle_says():
    along_x, along_y = (
        aberrated_psf(
            WIDEFIELD, voxel_um(4, 3), Aberrations(coma=0.1, coma_angle=angle), size=SIZE
        ).data
        for angle in (0.0, np.pi / 2)
    )
    np.testing.assert_allclose(along_x.transpose(0, 2, 1), along_y, atol=1e-4 * along_x.max())
    _, y, x = asymmetry(along_x)
    assert x > 5 * y


def test_astigmatism_stretches_across_on_either_side_of_the_focus():
    psf = aberrated_psf(WIDEFIELD, voxel_um(4, 3), Aberrations(astigmatism=0.1), size=SIZE).data
    np.testing.assert_allclose(psf[::-1].transpose(0, 2, 1), psf, atol=1e-3 * psf.max())
    above = psf[SIZE[0] // 2 + 3]
    assert abs(above.sum(axis=0).max() - above.sum(axis=1).max()) > 0.1 * above.sum(axis=0).max()
