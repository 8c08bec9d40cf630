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
TERMS = ("spherical", "coma", "astigmatism", "trefoil")


@pytest.fixture(scope="module")
def drawn():
    """Return a few PSFs and what is believed of them."""
    return [draw_psf(largest=SMALL, seed=seed) for seed in range(6)]


@pytest.fixture(scope="module")
def many():
    """Return PSFs enough to count."""
    return [draw_psf(seed=(seed, 7)) for seed in range(40)]


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
    apart = []
    for optics in drawn:
        assert optics.assumed.shape == optics.psf.shape
        assert optics.assumed.voxel_um == optics.psf.voxel_um
        apart.append(psf_difference(optics.psf, optics.assumed))
    assert 0 < max(apart) < 0.4


def test_a_third_of_the_psfs_are_believed_as_they_are_and_few_are_far_off(many):
    apart = np.array([psf_difference(optics.psf, optics.assumed) for optics in many])
    assert 0.2 < np.mean(apart == 0) < 0.6
    assert np.mean(apart > 0.05) > 0.1
    assert np.mean(apart > 0.3) < 0.12


def test_most_psfs_are_as_wide_as_the_family(many):
    for axis, (low, high) in module.FAMILY_WIDTHS.items():
        widths = np.array([widths_in_voxels(optics.psf)[axis] for optics in many])
        assert np.mean((low <= widths) & (widths <= high)) >= 0.9
        assert widths.max() > 2.5 * widths.min()


def test_aberrated_psfs_are_drawn_and_believed_measured_or_of_theory(many):
    aberrated = [optics for optics in many if optics.psf.record.method == "aberrated psf"]
    assert 0.15 < len(aberrated) / len(many) < 0.55
    for optics in aberrated:
        waves = np.linalg.norm([optics.psf.record.facts[key] for key in TERMS])
        assert 0.029 < waves < 0.121
    assert any(optics.assumed is optics.psf for optics in aberrated)
    theory = [optics for optics in aberrated if optics.assumed.record]
    assert any(optics.assumed.record.method == "psf compute" for optics in theory)


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


def test_psfs_of_every_modality_are_drawn(many):
    assert {optics.psf.record.settings["modality"] for optics in many} == set(module._MODALITIES)


def test_a_greater_mismatch_is_believed_further_from_the_truth():
    def apart(mismatch):
        limits = {"mismatch": mismatch, "largest": (15, 15, 15)}
        both = [draw_psf(seed=seed, **limits) for seed in (4, 5, 14, 31)]
        return np.mean([psf_difference(one.psf, one.assumed) for one in both])

    little, usual, much = (apart(mismatch) for mismatch in (0.2, 1.0, 4.0))
    assert 0 < little < 0.5 * usual
    assert much > 1.5 * usual
