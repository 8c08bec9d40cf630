"""The microscope that follows from what a file states, the user gives, and is assumed."""

from dataclasses import replace

import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.dyes import DYES, dye_named
from napari_rln.psf.from_optics import GivenOptics, complete_optics, sources_of
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.optics import Optics, common_optics

VOXEL_UM = (0.3, 0.1, 0.1)
WHOLE = Optics(modality="widefield", na=1.4, immersion_index=1.518, wavelength_um=0.52)


def test_what_is_stated_needs_no_assumption():
    settings, assumed = WHOLE.microscope()
    assert assumed == ()
    assert settings == MicroscopeSettings(na=1.4, immersion_index=1.518, wavelength_um=0.52)


@pytest.mark.parametrize(
    ("optics", "expected", "sentence"),
    [
        (Optics(na=0.8, wavelength_um=0.5), {"immersion_index": 1.0}, "air immersion"),
        (Optics(na=1.2, wavelength_um=0.5), {"immersion_index": 1.33}, "water immersion"),
        (Optics(na=1.4, wavelength_um=0.5), {"immersion_index": 1.515}, "oil immersion"),
        (Optics(na=1.4, channel="AF488-T1"), {"wavelength_um": 0.519}, "that of Alexa Fluor 488"),
        (Optics(na=1.4, excitation_um=0.488), {"wavelength_um": 0.513}, "above the excitation"),
        (
            Optics(modality="confocal", na=1.4, channel="EGFP"), {"excitation_um": 0.488},
            "excitation 488 nm, that of EGFP",
        ),
        (
            Optics(modality="confocal", na=1.4, wavelength_um=0.52, excitation_um=0.488),
            {"pinhole_au": 1.0}, "a pinhole of 1 Airy unit",
        ),
        (
            Optics(modality="light-sheet", na=0.8, wavelength_um=0.52), {"sheet_fwhm_um": 2.0},
            "a light sheet 2 µm thick",
        ),
    ],
)  # fmt: skip
def test_every_assumption_is_said(optics, expected, sentence):
    settings, assumed = optics.microscope()
    assert {name: getattr(settings, name) for name in expected} == expected
    assert sum(sentence in each for each in assumed) == 1


@pytest.mark.parametrize(
    ("optics", "lacking"),
    [
        (Optics(wavelength_um=0.5), "`na`"),
        (Optics(na=1.4, channel="Channel 1"), "`wavelength_um`"),
        (Optics(na=1.4, modality="two-photon", excitation_um=0.9), "`wavelength_um`"),
        (Optics(na=1.4, modality="confocal", wavelength_um=0.5), "`excitation_um`"),
        (Optics(), r"`na`.* and .*`wavelength_um`"),
    ],
)
def test_what_is_missing_is_named_with_how_to_give_it(optics, lacking):
    with pytest.raises(RlnError, match=rf"cells.czi, channel 2.*{lacking}.*`psf`"):
        complete_optics(optics, GivenOptics(), channel=2, name="cells.czi")


def test_what_is_given_replaces_what_is_stated_and_each_has_its_source():
    given = GivenOptics(na=1.2, immersion_index=1.33, wavelength_um=(0.45, 0.6), depth_um=5.0)
    known = complete_optics(WHOLE, given, channel=1)
    assert known.settings == MicroscopeSettings(
        na=1.2, immersion_index=1.33, wavelength_um=0.6, depth_um=5.0
    )
    assert known.stated == {"modality": "widefield"}
    assert known.given["wavelength_um"] == 0.6
    psf = known.psf(VOXEL_UM, 5)
    assert psf.hash == compute_psf(known.settings, VOXEL_UM, planes=5).hash
    assert psf.record.facts["optics"] == {
        "stated": known.stated, "given": known.given, "assumed": [],
    }  # fmt: skip
    with pytest.raises(RlnError, match="2 values but there is a channel 2"):
        complete_optics(WHOLE, given, channel=2)


def test_the_psf_of_a_plane_is_a_plane():
    known = complete_optics(WHOLE, GivenOptics())
    plane, stack = known.psf(VOXEL_UM, 1), known.psf(VOXEL_UM, 9)
    assert plane.shape == (1, *plane.shape[1:])
    middle = stack.data[stack.shape[0] // 2]
    n = (np.array(middle.shape) - plane.shape[1:]) // 2
    middle = middle[n[0] : n[0] + plane.shape[1], n[1] : n[1] + plane.shape[2]]
    np.testing.assert_allclose(plane.data[0], middle / middle.sum(), atol=1e-5)


def test_a_contradiction_names_both_values():
    with pytest.raises(RlnError, match=r"`na` is 1\.4 but must be below `immersion_index` 1\.33"):
        complete_optics(WHOLE, GivenOptics(immersion_index=1.33))


def test_wavelengths_in_nanometres_are_recognised():
    with pytest.raises(RlnError, match=r"give it in micrometres, 0\.52 for 520 nm"):
        complete_optics(WHOLE, GivenOptics(wavelength_um=(520.0,)))


def test_optics_go_through_json():
    assert Optics.from_json(WHOLE.as_json()) == WHOLE
    assert Optics().as_json() == {}
    with pytest.raises(RlnError, match="no setting colour"):
        Optics.from_json({"colour": 1})


def test_common_optics_are_those_of_all_channels():
    other = Optics(modality="widefield", na=1.4, wavelength_um=0.6)
    assert common_optics([WHOLE, other]) == Optics(modality="widefield", na=1.4)
    assert common_optics([]) == Optics()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DAPI", "DAPI"), ("EGFP-T2", "EGFP"), ("Alexa 647", "Alexa Fluor 647"),
        ("af-488", "Alexa Fluor 488"), ("Hoechst", "Hoechst 33342"), ("Cy5.5", "Cy5.5"),
        ("m-cherry", "mCherry"), ("Channel 1", None), ("", None), ("AF4880", None),
    ],
)  # fmt: skip
def test_dyes_by_the_names_of_channels(text, name):
    dye = dye_named(text)
    assert (dye and dye.name) == name


def test_dyes_emit_above_what_excites_them():
    assert all(0.3 < dye.excitation_um < dye.emission_um < 0.8 for dye in DYES)
    assert all(dye_named(dye.name) == dye for dye in DYES)


def test_where_the_values_of_a_whole_microscope_are_from():
    stated = Optics(modality="confocal", na=1.2, wavelength_um=0.52, excitation_um=0.488)
    names = ("modality", "na", "immersion_index", "wavelength_um", "excitation_um", "pinhole_au")
    likely, _ = stated.microscope()
    known = sources_of(likely, stated, names)
    assert (known.settings, known.stated, known.given) == (likely, stated.stated, {})
    assert len(known.assumed) == 2  # immersion and pinhole
    other = replace(likely, immersion_index=1.515, wavelength_um=0.53, model="scalar")
    known = sources_of(other, stated, names)
    assert known.settings == other
    assert known.given == {"immersion_index": 1.515, "wavelength_um": 0.53}
    assert "wavelength_um" not in known.stated
    assert known.assumed == ("a pinhole of 1 Airy unit, as the file does not state it",)
    least = MicroscopeSettings(na=0.8, immersion_index=1.0)
    known = sources_of(least, Optics(modality="widefield"), ("modality", "na", *names[2:4]))
    assert known.given == {"na": 0.8, "wavelength_um": 0.52}
    assert known.assumed == ("air immersion, as usual at NA 0.8",)
