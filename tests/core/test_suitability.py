"""Whether a model suits: its own PSF does, another is named with how far it is."""

import numpy as np
import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.networks.model import psf_difference
from napari_rln.networks.network import Network
from napari_rln.networks.suitability import grid_error, psf_warnings, widths_in_voxels

PSF = phantoms.gaussian_psf((15, 15, 15))
FWHM = 2 * np.sqrt(2 * np.log(2))
WIDTHS = {"axial": (3.0, 5.0), "lateral": (2.0, 4.0)}


def _gaussian(axial=1.6, lateral=1.2, shape=(33, 33, 33)):
    return phantoms.gaussian_psf(shape, (axial, lateral, lateral))


def _on(voxel_um):
    return Volume.from_array(np.ones((4, 8, 8)), voxel_um, name="image")


def test_widths_are_those_of_a_gaussian_in_voxels():
    widths = widths_in_voxels(_gaussian(3.0, 2.0))
    assert widths["axial"] == pytest.approx(3 * FWHM, rel=0.02)
    assert widths["lateral"] == pytest.approx(2 * FWHM, rel=0.02)


def test_nothing_speaks_against_the_models_own_psf_or_none_at_all():
    model = phantoms.small_model(psf=PSF, psf_widths=WIDTHS)
    assert psf_warnings(model, PSF) == ()
    assert psf_warnings(model, None) == ()
    assert psf_warnings(phantoms.small_model(psf=None), _gaussian(9.0, 6.0)) == ()


def test_a_little_wider_is_no_other_psf_and_a_lot_wider_is():
    model = phantoms.small_model(name="mine", psf=PSF)
    assert psf_warnings(model, _gaussian(1.65, 1.25)) == ()
    wide = _gaussian(2.4, 1.8)
    (doubt,) = psf_warnings(model, wide)
    assert f"{psf_difference(PSF, wide):.0%} of the light" in doubt
    assert "mine was trained for another PSF (psf)" in doubt


def test_psfs_on_other_voxels_are_not_compared():
    wide = _gaussian(2.4, 1.8)
    elsewhere = Volume.from_array(wide.data, (0.4, 0.2, 0.2))
    assert psf_warnings(phantoms.small_model(psf=PSF), elsewhere) == ()


@pytest.mark.parametrize(
    ("axial", "lateral", "said"),
    [
        (4.0, 3.0, []),
        (5.0 * 1.1, 4.0 * 1.1, []),  # within the tolerance
        (7.0, 3.0, ["7.0 voxels wide (axial FWHM) but model mine was trained on 3.0 to 5.0"]),
        (4.0, 5.0, ["5.0 voxels wide (lateral FWHM) but model mine was trained on 2.0 to 4.0"]),
        (2.4, 6.0, ["2.4 voxels wide (axial", "6.0 voxels wide (lateral"]),
    ],
)
def test_widths_beyond_the_family_are_named_with_their_limits(axial, lateral, said):
    model = phantoms.small_model(name="mine", psf=None, psf_widths=WIDTHS)
    found = psf_warnings(model, _gaussian(axial / FWHM, lateral / FWHM))
    assert len(found) == len(said)
    for doubt, words in zip(found, said, strict=True):
        assert words in doubt


def test_a_flat_psf_has_no_axial_width_to_doubt():
    model = phantoms.small_model(psf=None, psf_widths=WIDTHS)
    assert psf_warnings(model, _gaussian(1.0, 3.0 / FWHM, (1, 33, 33))) == ()


def test_voxels_may_differ_by_three_percent():
    network = Network(model=phantoms.small_model("paper", psf=PSF))
    z, y, x = PSF.voxel_um
    near = _on((z * 1.02, y * 0.98, x))
    network.check(near, None)
    assert network.grid_of(near) == near.voxel_um
    for off in ((z * 1.05, y, x), (z, y * 0.95, x), (z, y, 2 * x)):
        assert network.grid_of(_on(off)) == PSF.voxel_um
        with pytest.raises(RlnError, match="voxels of"):
            network.check(_on(off), None)
    any_voxels = Network(model=phantoms.small_model("paper", psf=None))
    any_voxels.check(_on((5.0, 1.0, 1.0)), None)
    assert any_voxels.grid_of(_on((5.0, 1.0, 1.0))) == (5.0, 1.0, 1.0)


def test_the_refusal_names_both_grids_and_the_ways_out():
    said = str(grid_error(phantoms.small_model(name="mine", psf=PSF), _on((0.4, 0.3, 0.3))))
    for words in (
        "image has voxels of (0.4, 0.3, 0.3)",
        "mine",
        str(PSF.voxel_um),
        "`grid=resample`",
    ):
        assert words in said
