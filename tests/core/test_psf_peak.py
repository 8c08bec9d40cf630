"""Oracles: computed PSFs, which have no hot voxel, and noisy beads whose hot voxels are known."""

import itertools

import numpy as np
import pytest

from napari_rln.core.volume import Volume
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import examine_psf, fit_psf
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um
from napari_rln.psf.peak import isolated_voxels, peak_centre
from napari_rln.psf.prepare import prepare_psf

# NA, immersion index, lateral and axial voxel in micrometres of everyday objectives.
COARSE = [
    (1.2, 1.33, 0.51, 0.5),
    (1.3, 1.515, 0.325, 0.5),
    (1.05, 1.33, 0.5, 1.0),
    (0.45, 1.0, 0.65, 4.0),
    (0.8, 1.0, 0.65, 2.0),
]


def computed(na, index, lateral_um, axial_um, **more):
    optics = MicroscopeSettings(
        na=na, immersion_index=index, model="scalar", size=(13, 21, 21), **more
    )
    return compute_psf(optics, (axial_um, lateral_um, lateral_um))


def without_record(psf):
    return Volume.from_array(psf.data, psf.voxel_um, name="a user's own")


def bead(shape, centre, sigma, amplitude, seed):
    """Return a noisy bead on an offset, with a little haze."""
    z, y, x = np.indices(shape)
    lines = [((a - c) / s) ** 2 for a, c, s in zip((z, y, x), centre, sigma, strict=True)]
    light = np.exp(-0.5 * sum(lines)) + 0.05 * np.exp(-0.5 * sum(lines) / 9)
    rng = np.random.default_rng(seed)
    return rng.poisson(100 + amplitude * light).astype(np.float64), rng


@pytest.mark.parametrize("setup", COARSE)
def test_everyday_psfs_keep_their_peak_with_and_without_a_record(setup):
    psf = computed(*setup)
    for given in (psf, without_record(psf)):
        ready, findings = fit_psf(given)
        assert "hot pixels" not in {f.check for f in findings}
        np.testing.assert_allclose(ready.data, psf.data, atol=1e-6)
    whole = prepare_psf(without_record(psf))
    assert whole.data.max() == pytest.approx(psf.data.max(), rel=0.02)


@pytest.mark.parametrize("modality", ["widefield", "confocal", "light-sheet"])
def test_no_voxel_of_a_computed_psf_is_hot_however_it_is_sampled(modality):
    more = {"excitation_um": 0.4} if modality == "confocal" else {}
    for (na, index, wavelength), lateral, axial in itertools.product(
        [(0.3, 1.0, 0.67), (0.8, 1.0, 0.52), (1.45, 1.515, 0.45)], [0.7, 2.5], [0.25, 1.0]
    ):
        depth, width = theoretical_fwhm_um(na, index, wavelength)
        psf = computed(
            na, index, lateral * width, axial * depth,
            modality=modality, wavelength_um=wavelength, **more,
        )  # fmt: skip
        assert not isolated_voxels(psf.data).hot.any()
        np.testing.assert_allclose(peak_centre(psf.data), (6, 10, 10), atol=0.2)


def test_a_computed_psf_is_not_repaired_for_noise():
    psf = computed(0.8, 1.0, 0.65, 2.0)
    spoilt = psf.data.copy()
    spoilt[3, 4, 4] = 0.5 * spoilt.max()
    known, unknown = psf.with_data(spoilt), without_record(psf.with_data(spoilt))
    assert examine_psf(unknown).facts.hot_pixels == 1
    assert examine_psf(known).facts.hot_pixels == 0
    ready = prepare_psf(known)
    assert ready.record is not None
    assert ready.record.facts["hot_pixels"] == 0
    again = prepare_psf(ready)
    assert again.record is not None
    assert again.record.facts["hot_pixels"] == 0


@pytest.mark.parametrize("sigma", [(1.1, 0.6, 0.6), (2.5, 1.3, 1.3)])
@pytest.mark.parametrize("amplitude", [600, 3000])
def test_hot_pixels_of_a_measured_bead_are_found_and_its_peak_is_left(sigma, amplitude):
    shape, centre = (21, 31, 31), (10.2, 14.8, 15.3)
    data, rng = bead(shape, centre, sigma, amplitude, seed=1)
    far = np.zeros(shape, dtype=bool)
    far[rng.integers(0, 21, 33), rng.integers(0, 10, 33), rng.integers(0, 31, 33)] = True
    far[:, 24, 6] = True  # a pixel of the camera
    near = np.zeros(shape, dtype=bool)
    near[10, 15, 18] = near[9, 12, 15] = True
    data[far] += amplitude
    data[near] += 6 * amplitude
    found = isolated_voxels(data).hot
    assert (found & far).sum() >= 0.9 * far.sum()
    assert found[near].all()
    assert not (found & ~far & ~near).any()
    np.testing.assert_allclose(peak_centre(data), centre, atol=0.2)


def test_a_hot_pixel_in_front_of_the_peak_is_not_the_peak():
    centre = (10.0, 15.0, 15.0)
    data, _ = bead((21, 31, 31), centre, (2.0, 1.3, 1.3), 300, seed=2)
    data[15, 15, 15] += 5000
    assert isolated_voxels(data).hot[15, 15, 15]
    np.testing.assert_allclose(peak_centre(data), centre, atol=0.2)
