"""Templates of microscopes: they come back as saved, and no file is lost."""

import pytest

from napari_rln.core.errors import RlnError
from napari_rln.psf.dyes import Dye
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.templates import SHIPPED, MicroscopeTemplate, Templates

OWN = MicroscopeTemplate(
    name="Room 12, 60x",
    microscope=MicroscopeSettings(
        modality="confocal", na=1.3, immersion_index=1.4, sample_index=1.38, pinhole_au=0.6,
        wavelength_um=0.6, excitation_um=0.561, z_order="to coverslip",
    ),
    pixel_um=0.1083,
    dyes=(Dye("our red", 0.561, 0.6),),
)  # fmt: skip


def test_a_template_comes_back_without_its_wavelengths(tmp_path):
    templates = Templates(tmp_path / "microscopes")
    templates.save(OWN)
    assert templates.names() == (OWN.name, *(template.name for template in SHIPPED))
    back = templates.load(OWN.name)
    assert (back.optics, back.pixel_um, back.dyes) == (OWN.optics, 0.1083, OWN.dyes)
    assert back.optics["sample_index"] == 1.38
    assert "wavelength_um" not in back.optics
    assert "0.561" not in str(OWN.as_json()["microscope"])
    assert templates.is_own(OWN.name)
    templates.delete(OWN.name)
    assert not templates.is_own(OWN.name)
    assert [*templates.folder.iterdir()] == []


def test_shipped_templates_load_and_stay(tmp_path):
    templates = Templates(tmp_path / "microscopes")
    for template in SHIPPED:
        assert templates.load(template.name) is template
        na, immersion, modality = template.name.split("/")[1].split()
        assert template.optics["modality"] == modality
        assert template.optics["na"] == float(na)
        index = {"oil": 1.515, "water": 1.33, "air": 1.0}[immersion]
        assert template.optics["immersion_index"] == index
    with pytest.raises(RlnError, match="only those can be deleted"):
        templates.delete(SHIPPED[0].name)
    assert not templates.folder.exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", " a", "x" * 51, "a?"])
def test_names_that_files_cannot_have_are_refused(tmp_path, name):
    template = MicroscopeTemplate(name=name, microscope=OWN.microscope)
    with pytest.raises(RlnError, match="cannot be called"):
        Templates(tmp_path).save(template)
    assert [*tmp_path.iterdir()] == []


def test_a_taken_name_is_replaced_only_on_demand(tmp_path):
    templates = Templates(tmp_path)
    templates.save(OWN)
    other = MicroscopeTemplate(name=OWN.name.upper(), microscope=MicroscopeSettings(na=1.1))
    with pytest.raises(RlnError, match="already"):
        templates.save(other)
    templates.save(other, replace=True)
    assert len([*tmp_path.iterdir()]) == 1
    assert templates.load(OWN.name).optics["na"] == 1.1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"microscope": {"na": 1.', "delimiter|Expecting|Unterminated"),
        ('{"microscope": {"na": 1.8}}', "`na` is 1.8"),
        ('{"microscope": {"aperture": 1.2}}', "no setting aperture"),
        (
            '{"microscope": {}, "dyes": '
            '[{"name": "red", "excitation_um": 561.0, "emission_um": 600.0}]}',
            "600.0",
        ),
        ('{"microscope": {}, "pixel_um": 0}', "pixel size is 0"),
        ("[]", "list"),
    ],
)
def test_a_damaged_file_is_reported_and_kept(tmp_path, text, reason):
    templates = Templates(tmp_path)
    path = tmp_path / f"{OWN.name}.json"
    path.write_text(text)
    assert OWN.name in templates.names()
    with pytest.raises(RlnError, match=reason) as caught:
        templates.load(OWN.name)
    assert str(path) in str(caught.value)
    with pytest.raises(RlnError, match="cannot be read"):
        templates.save(OWN, replace=True)
    assert path.read_text() == text
