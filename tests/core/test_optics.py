"""Drawn PSFs: repeatable, fit to deconvolve with, of every kind of microscope."""

import numpy as np
import pytest

from napari_rln.networks.model import psf_difference
from napari_rln.networks.suitability import widths_in_voxels
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.prepare import check_psf
from napari_rln.simulate import optics as module
from napari_rln.simulate.optics import draw_psf

SMALL = (21, 17, 17)


@pytest.fixture(scope="module")
def drawn():
    """Return a few PSFs and what is believed of them."""
    return [draw_psf(largest=SMALL, seed=seed) for seed in range(6)]


def test_a_seed_gives_the_same_psfs_again(drawn):
    again = draw_psf(largest=SMALL, seed=1)
    np.testing.assert_array_equal(again.psf.data, drawn[1].psf.data)
    np.testing.assert_array_equal(again.assumed.data, drawn[1].assumed.data)
    assert again.psf.voxel_um == drawn[1].psf.voxel_um
    assert len({optics.psf.hash for optics in drawn}) == len(drawn)


def test_psfs_are_odd_centred_and_of_sum_one(drawn):
    for optics in drawn:
        for psf in (optics.psf, optics.assumed):
            check_psf(psf)
            assert all(n % 2 for n in psf.shape)
            assert all(n <= m for n, m in zip(psf.shape, SMALL, strict=True))
            assert psf.data.sum(dtype=float) == pytest.approx(1, abs=1e-5)
            assert psf.data.min() >= 0
            middle = [n // 2 for n in psf.shape]
            np.testing.assert_allclose(peak_centre(psf.data), middle, atol=0.6)


def test_what_is_believed_lies_on_the_same_voxels_and_is_nearly_true(drawn):
    for optics in drawn:
        assert optics.assumed.shape == optics.psf.shape
        assert optics.assumed.voxel_um == optics.psf.voxel_um
        assert 0 < psf_difference(optics.psf, optics.assumed) < 0.3


def test_without_mismatch_the_true_psf_is_believed():
    optics = draw_psf(largest=SMALL, mismatch=0.0, seed=1)
    assert optics.assumed is optics.psf


def test_what_is_believed_does_not_change_what_is_true(drawn):
    optics = draw_psf(largest=SMALL, mismatch=3.0, seed=1)
    np.testing.assert_array_equal(optics.psf.data, drawn[1].psf.data)
    assert psf_difference(optics.psf, optics.assumed) > psf_difference(
        drawn[1].psf, drawn[1].assumed
    )


def test_microscopes_of_every_kind_are_drawn_as_often_as_said():
    kinds = [module._microscope(np.random.default_rng(seed))[0].modality for seed in range(600)]
    for kind, share in zip(module._MODALITIES, module._FREQUENCIES, strict=True):
        assert kinds.count(kind) / 600 == pytest.approx(share, abs=0.06)


def test_voxels_sample_the_microscope_within_the_limits():
    for seed in range(100):
        settings, (z, y, x) = module._microscope(np.random.default_rng(seed))
        assert x == y
        assert module._STEP[0] * x <= z * (1 + 1e-9)
        assert z <= module._STEP[1] * x * (1 + 1e-9)
        assert settings.na < min(settings.immersion_index, settings.sample_index)


def test_all_four_modalities_are_drawn_and_nearly_as_wide_as_the_family():
    seeds = {4: "light-sheet", 7: "confocal", 15: "two-photon", 25: "widefield"}
    for seed, modality in seeds.items():
        psf = draw_psf(largest=SMALL, mismatch=0.0, seed=seed).psf
        assert psf.record.settings["modality"] == modality
        for axis, width in widths_in_voxels(psf).items():
            low, high = module.FAMILY_WIDTHS[axis]
            assert low < width < high


def test_a_greater_mismatch_is_believed_further_from_the_truth():
    def apart(mismatch):
        limits = {"mismatch": mismatch, "largest": (15, 15, 15)}
        both = [draw_psf(seed=seed, **limits) for seed in (4, 5, 14, 31)]
        return np.mean([psf_difference(one.psf, one.assumed) for one in both])

    little, usual, much = (apart(mismatch) for mismatch in (0.2, 1.0, 4.0))
    assert 0 < little < 0.5 * usual
    assert much > 1.5 * usual
