"""Forms of settings."""

import dataclasses

import pytest

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.views import DualSettings
from napari_rln.deconvolution.wiener import Wiener
from napari_rln.engine.execution import Execution, OutputFormat
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import widget_for
from napari_rln.gui.forms import Form, label_of, tooltips
from napari_rln.gui.layouts import Collapsible
from napari_rln.networks.network import NetworkOptions
from napari_rln.psf.measure import MeasureSettings
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import PrepareSettings
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.simulate.structures import StructureSettings
from napari_rln.study.quick import QuickStudy
from napari_rln.train.training_settings import PRESETS, TrainSettings

KINDS = (
    RichardsonLucy, Wiener, NetworkOptions, MicroscopeSettings, MeasureSettings, PrepareSettings,
    StructureSettings, ImagingSettings, TrainSettings, DualSettings, Execution, OutputFormat,
    QuickStudy,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_come_back_and_every_field_is_explained(qtbot, kind):
    form = Form(kind, top=())
    qtbot.addWidget(form)
    assert form.settings() == kind()
    for name in form.fields:
        assert len(form.fields[name].tooltip) > 20, name


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_go_through_the_form(qtbot, preset):
    form = Form(TrainSettings, top=("minutes",), hidden=("device",))
    qtbot.addWidget(form)
    form.show_settings(PRESETS[preset])
    assert form.settings() == PRESETS[preset]


def test_changed_values_come_back(qtbot):
    form = Form(RichardsonLucy, top=("iterations", "back_projector"), hidden=("device",))
    qtbot.addWidget(form)
    wanted = RichardsonLucy(
        iterations=30, back_projector="wiener-butterworth", background=12.5, tv=0.002,
        beta=0.01, resolution_um=(0.5, 0.2, 0.2), tolerance=1e-4, device="cpu",
    )  # fmt: skip
    form.show_settings(wanted)
    assert form.settings() == wanted
    assert form.settings(device="auto") == dataclasses.replace(wanted, device="auto")


def test_classical_rivals_go_through_the_form(qtbot):
    form = Form(RichardsonLucy, top=("iterations", "back_projector"))
    qtbot.addWidget(form)
    assert "masked-wiener" in form.fields["back_projector"].choices
    for wanted in (
        RichardsonLucy(back_projector="masked-wiener", beta=0.02),
        RichardsonLucy(consensus=True),
        RichardsonLucy(tv=0.005),
    ):
        form.show_settings(wanted)
        assert form.settings() == wanted
    form.show_settings(RichardsonLucy(consensus=True))
    form.fields["back_projector"].value = "masked-wiener"
    with pytest.raises(FieldError, match="`consensus`"):
        form.settings()
    form = Form(Wiener, top=("noise_to_signal",))
    qtbot.addWidget(form)
    assert form.fields["noise_to_signal"].label == "Noise to signal"
    form.fields["noise_to_signal"].value = 0.02
    assert form.settings() == Wiener(noise_to_signal=0.02)


def test_words_stand_for_values(qtbot):
    form = Form(RichardsonLucy, top=("back_projector", "border"))
    qtbot.addWidget(form)
    for name, value, word in (
        ("back_projector", "masked-wiener", "masked Wiener"),
        ("border", "reflect", "mirrored"),
        ("precision", "float64", "double (64 bit)"),
        ("border", "periodic", "periodic"),  # a value that needs no other word
    ):
        form.fields[name].native.setCurrentText(word)
        assert getattr(form.settings(), name) == value
        form.show_settings(RichardsonLucy())
        form.show_settings(RichardsonLucy(**{name: value}))
        assert form.fields[name].native.currentText() == word
    assert "periodic and mirrored repeat the image" in tooltips(RichardsonLucy)["border"]
    form = Form(QuickStudy, top=("networks",))
    qtbot.addWidget(form)
    texts = [form.fields["networks"].native.item(i).text() for i in range(3)]
    assert texts == ["RLN", "RLN, as in the paper", "CARE"]
    form.show_settings(QuickStudy(networks=("rln-paper",)))
    assert form.settings().networks == ("rln-paper",)


def test_the_fields_under_advanced_are_made_when_they_are_needed(qtbot):
    form = Form(MicroscopeSettings, top=("na",), hidden=("size",))
    qtbot.addWidget(form)
    part = form.findChild(Deferred)
    wanted = MicroscopeSettings(na=1.2, pinhole_au=0.7, size=(9, 9, 9))
    with qtbot.waitSignal(form.changed):
        form.show_settings(wanted)
    assert form.settings() == wanted
    assert form.value("pinhole_au") == 0.7
    assert "pinhole_au" in form.fields
    assert not part.is_made
    form.findChild(Collapsible).open()
    assert part.is_made
    assert form.fields["pinhole_au"].value == 0.7
    assert "size" not in form.fields
    form.fields["pinhole_au"].value = 0.9
    assert form.settings().pinhole_au == 0.9
    assert part.isAncestorOf(form.fields["pinhole_au"].native)


def test_limits_are_the_dataclass_s(qtbot):
    form = Form(RichardsonLucy, top=())
    qtbot.addWidget(form)
    form.fields["tv"].value = 7.0
    with pytest.raises(RlnError, match="7"):  # and not another number
        form.settings()
    form = Form(MicroscopeSettings, top=())
    form.fields["na"].value = 1.6
    with pytest.raises(RlnError, match="`immersion_index`"):
        form.settings()


def test_changes_of_a_field_are_signalled(qtbot):
    form = Form(RichardsonLucy, top=("iterations",))
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.changed):
        form.fields["iterations"].value = 7


def test_only_some_rows_are_shown(qtbot):
    form = Form(MicroscopeSettings, top=("modality", "na", "pinhole_au"))
    qtbot.addWidget(form)
    form.show()
    form.show_only(("modality", "na"))
    assert not form.fields["pinhole_au"].visible
    assert form.fields["na"].visible


def test_the_word_for_none_is_that_of_the_annotation(qtbot):
    form = Form(MicroscopeSettings, top=("sample_index", "size"))
    qtbot.addWidget(form)
    index = form.fields["sample_index"]
    assert index.box.lineEdit().placeholderText() == "as immersion"
    assert form.fields["size"][0].box.lineEdit().placeholderText() == "auto"
    index.value = 1.38
    index.box.lineEdit().setText("As immersion")
    assert form.settings().sample_index is None


def test_marks_are_on_the_labels_of_the_named_fields_only(qtbot):
    form = Form(MicroscopeSettings, top=("na", "depth_um"))
    qtbot.addWidget(form)
    form.mark({"na": ("*", "From the file.")})
    label = form._row_labels["na"]
    assert (label.text(), label.toolTip()[:21]) == ("Objective NA *", "<p>From the file.</p>")
    form.mark({"depth_um": ("*", "")})
    assert label.text() == "Objective NA"
    assert "From the file" not in label.toolTip()


def test_labels_have_units_and_tips_wrap():
    assert label_of("wavelength_um", float) == "Wavelength (nm)"
    assert label_of("depth_um", float) == "Depth (\N{MICRO SIGN}m)"
    assert label_of("na", float) == "NA"
    assert label_of("minimum_snr", float) == "Minimum SNR"
    tips = tooltips(RichardsonLucy)
    assert tips["tolerance"].startswith("<p>Relative change per iteration")


def test_a_type_without_a_widget_is_an_error():
    with pytest.raises(ValueError, match="No widget found"):
        widget_for(dict)
