"""A study of a few choices."""

from typing import get_args

import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.io.volumes import read
from napari_rln.networks.architectures.registry import ArchitectureName
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.study.plan import plan_study, trainings_of
from napari_rln.study.quick import Classical, QuickStudy, Trained


def test_a_measured_psf_is_written_and_used(tmp_path):
    psf = phantoms.comatic_psf()
    choices = QuickStudy(structures=("dots",), networks=("rln", "care"), images=2)
    settings = choices.settings(psf, tmp_path, {"RLN universal": "universal"})
    (file,) = tmp_path.glob("psf-*.ome.tif")
    written = read(file)
    assert written.shape == psf.shape
    assert [c.name for c in settings.conditions] == ["EMCCD", "z step +10 %"]
    names = [method.name for method in settings.methods]
    assert names[-3:] == ["RLN universal", "rln trained", "care trained"]
    plan = plan_study(settings)
    assert {t.settings.architecture for t in trainings_of(plan.cells).values()} == {"rln", "care"}
    assert {c.photons for c in (p.cell for p in plan.cells)} == {30.0, 100.0, 300.0}
    assert {t.photons for t in trainings_of(plan.cells).values()} == {100.0}


def test_a_computed_psf_may_be_a_little_wrong(tmp_path):
    optics = MicroscopeSettings(na=0.8, immersion_index=1.333, size=(15, 15, 15))
    psf = compute_psf(optics, (0.4, 0.2, 0.2))
    settings = QuickStudy(networks=()).settings(psf, tmp_path)
    assert not [*tmp_path.iterdir()]
    wrong = {p.cell.condition for p in plan_study(settings).cells if p.wrong_psf}
    assert wrong == {"wavelength +10 %", "NA -5 %", "z step +10 %", "20 um deep in tissue"}
    (image,) = {p.image.assumed.hash for p in plan_study(settings).cells}
    assert image == psf.hash


def test_without_a_method_there_is_no_study(tmp_path):
    nothing = QuickStudy(classical=(), networks=())
    with pytest.raises(RlnError, match="tick some `classical` or `networks`"):
        nothing.settings(phantoms.comatic_psf(), tmp_path)
    models = nothing.settings(phantoms.comatic_psf(), tmp_path, {"RLN universal": "universal"})
    assert [m.name for m in models.methods] == ["RLN universal"]


@pytest.mark.parametrize(
    ("optics", "deep"),
    [({}, True), ({"immersion_index": 1.405}, False),
     ({"sample_index": 1.36, "depth_um": 5.0}, False)],
)  # fmt: skip
def test_a_psf_that_is_deep_or_as_in_tissue_is_not_put_deep(optics, deep, tmp_path):
    settings = MicroscopeSettings(na=0.8, size=(15, 15, 15), **{"immersion_index": 1.333} | optics)
    study = QuickStudy(networks=()).settings(compute_psf(settings, (0.4, 0.2, 0.2)), tmp_path)
    assert ("20 um deep in tissue" in [c.name for c in study.conditions]) == deep
    assert plan_study(study).cells


def test_a_single_plane_has_no_distance_of_planes(tmp_path):
    psf = phantoms.comatic_psf()
    plane = psf.with_data(psf.data[psf.shape[0] // 2][None])
    settings = QuickStudy(networks=()).settings(plane, tmp_path)
    assert [c.name for c in settings.conditions] == ["EMCCD"]


def test_all_methods_can_be_chosen(tmp_path):
    every = QuickStudy(classical=get_args(Classical), networks=get_args(Trained))
    settings = every.settings(phantoms.comatic_psf(), tmp_path)
    classical = [m for m in settings.methods if m.kind != "train"]
    kinds = {(m.kind, m.stop, *sorted(map(str, m.settings.items()))) for m in classical}
    assert len(kinds) == len(classical) == 11
    trained = {(m.settings["architecture"], m.settings.get("variant")) for m in settings.methods
               if m.kind == "train"}  # fmt: skip
    assert trained == {("rln", "paper"), *((name, None) for name in get_args(ArchitectureName))}
    none = QuickStudy(classical=(), networks=("kld",)).settings(phantoms.comatic_psf(), tmp_path)
    assert [m.name for m in none.methods] == ["kld trained"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"structures": ()}, "at least one kind"),
        ({"photons": (30.0, 30.0, 100.0)}, "three different"),
        ({"photons": (-1.0, 30.0, 100.0)}, "positive"),
        ({"minutes": 0.0}, "`minutes`"),
    ],
)
def test_wrong_choices_are_said(choices, message):
    with pytest.raises(RlnError, match=message):
        QuickStudy(**choices)
