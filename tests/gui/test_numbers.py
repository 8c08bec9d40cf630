"""Numbers typed key by key on desktops of several languages."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QLocale, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QScrollArea, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.views import DualSettings
from napari_rln.engine.execution import Execution
from napari_rln.gui.field_errors import FieldError, show_field
from napari_rln.gui.fields import Numbers, VoxelField, widget_for
from napari_rln.gui.forms import Form, know_labels, with_labels
from napari_rln.gui.layers import is_psf, is_raw, voxel_um_of
from napari_rln.gui.layouts import ScrollArea
from napari_rln.gui.number import Number, commit_number
from napari_rln.gui.pickers import LayerPicker, VolumePicker
from napari_rln.networks.network import NetworkOptions
from napari_rln.psf.measure import MeasureSettings
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import PrepareSettings
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.training_settings import TrainSettings

FORMS = (
    RichardsonLucy, NetworkOptions, MicroscopeSettings, MeasureSettings, PrepareSettings,
    StructureSettings, ImagingSettings, TrainSettings, DualSettings, Execution,
)  # fmt: skip
COUNTRIES = (QLocale.Country.Germany, QLocale.Country.France, QLocale.Country.UnitedStates)
LANGUAGES = (QLocale.Language.German, QLocale.Language.French, QLocale.Language.English)
UM = ("um",) * 3


@pytest.fixture(params=zip(LANGUAGES, COUNTRIES, strict=True), ids=("de", "fr", "en"))
def desktop(request):
    """Set the language of the desktop."""
    before = QLocale()
    QLocale.setDefault(QLocale(*request.param))
    yield
    QLocale.setDefault(before)


def numbers(field):
    """Return the numbers in a field."""
    if isinstance(field, Number):
        return [field]
    return [*field] if isinstance(field, Numbers) else []


def write(qtbot, number, text, key=Qt.Key.Key_Return):
    number.box.selectAll()
    qtbot.keyClick(number.box, Qt.Key.Key_Delete)
    qtbot.keyClicks(number.box, text)
    if key is not None:
        qtbot.keyClick(number.box, key)


@pytest.mark.parametrize("kind", FORMS)
def test_in_every_form_a_number_is_what_is_typed(qtbot, desktop, kind):
    form = Form(kind, top=())
    qtbot.addWidget(form)
    for name, field in form.fields.items():
        for number in numbers(field):
            in_nm = name in ("wavelength_um", "excitation_um")
            per = 1000 if in_nm else 1
            texts = {"461": 461, "-3": -3, "987654321": 987654321}
            if not number.is_whole:
                texts |= {"0,0645": 0.0645, "0.0645": 0.0645, "461.5": 461.5, "461,5": 461.5}
            for text, expected in texts.items():
                write(qtbot, number, text, key=None)
                low, high = number.limits
                if low <= expected <= high:
                    assert number.value == expected / per, (name, text)
                else:
                    with pytest.raises(FieldError, match=f"is {expected}"):
                        _ = number.value
                qtbot.keyClick(number.box, Qt.Key.Key_Return)
                assert number.box.text() == text.replace(",", "."), name
                assert number.is_marked != (low <= expected <= high)
                assert number.is_marked or number.value == expected / per
            write(qtbot, number, "seven")
            with pytest.raises(RlnError, match="seven"):
                _ = number.value
            assert number.box.text() == "seven"  # and not something else


@pytest.mark.parametrize("kind", FORMS)
def test_a_number_outside_its_limits_is_marked_and_raises(qtbot, kind):
    form = Form(kind, top=())
    qtbot.addWidget(form)
    for name, field in form.fields.items():
        for number in numbers(field):
            if number.limits[1] == np.inf:
                continue
            assert not number.is_marked, name
            write(qtbot, number, f"{10 * number.limits[1]:.0f}")
            assert number.is_marked, name
            with pytest.raises(RlnError):
                form.settings()
            form.show_settings(kind())


@pytest.mark.parametrize(
    "text",
    ["", "abc", "1.234,5", "1,234.5", "1 234", "1.2.3", "1,2,3", "0x10", "nan", "inf", "1_000",
     "1e999", "12 um", "--3", "1,234", "12,000"],
)  # fmt: skip
def test_invalid_and_ambiguous_numbers_are_refused(qtbot, desktop, text):
    number = widget_for(float)
    qtbot.addWidget(number.native)
    number.value = 5.0
    write(qtbot, number, text)
    with pytest.raises(FieldError, match="type") as error:
        _ = number.value
    assert (repr(text) if text else "missing") in str(error.value)
    assert error.value.field is number.box
    assert number.box.text() == text
    assert number.is_marked
    number.value = 5.0
    assert (number.value, number.is_marked) == (5.0, False)


def test_a_comma_before_three_digits_is_decimal_where_thousands_cannot_be(qtbot, desktop):
    form = Form(MicroscopeSettings, top=())
    qtbot.addWidget(form)
    write(qtbot, form.fields["immersion_index"], "1,515")
    assert form.settings().immersion_index == 1.515
    write(qtbot, form.fields["depth_um"], "1,500")  # 1.5 or 1500 um
    with pytest.raises(RlnError, match=r"1\.5 or 1500"):
        form.settings()


@pytest.mark.parametrize("text", ["10,000", "10.000", "3.5", "1e-1"])
def test_an_integer_has_no_decimals_and_no_groups(qtbot, desktop, text):
    number = widget_for(int)
    qtbot.addWidget(number.native)
    write(qtbot, number, text)
    with pytest.raises(RlnError, match=r"integer.*10"):
        _ = number.value


def test_wavelengths_are_in_nanometres(qtbot, desktop):
    form = Form(MicroscopeSettings, top=())
    qtbot.addWidget(form)
    box = form.fields["wavelength_um"]
    assert box.box.text() == "520"
    write(qtbot, box, "461")
    assert form.settings().wavelength_um == 0.461
    for text in ("0.52", "0,52"):
        write(qtbot, box, text)
        with pytest.raises(FieldError, match=r"Emission \(nm\).*0\.52.*520"):
            form.settings()
    write(qtbot, box, "46")
    with pytest.raises(RlnError, match=r"46.*200.*2000"):
        form.settings()
    form.show_settings(MicroscopeSettings(modality="confocal", excitation_um=0.488))
    assert form.fields["excitation_um"].box.text() == "488"
    assert form.settings().excitation_um == 0.488


def test_digits_that_are_not_shown_are_not_lost(qtbot):
    row = widget_for(tuple[float, float, float])
    qtbot.addWidget(row.native)
    row.value = (0.123456789, 0.51189233, 0.51189233)
    assert row[1].box.text() == "0.511892"
    write(qtbot, row[0], "0.5")
    assert row.value == (0.5, 0.51189233, 0.51189233)


def test_arrows_step_within_the_limits(qtbot):
    number = Number(min=0.0, max=1.0)
    qtbot.addWidget(number.native)
    number.value = 0.98
    for _ in range(4):
        qtbot.keyClick(number.box, Qt.Key.Key_Up)
    assert number.value == 1.0


@pytest.mark.parametrize(
    ("annotation", "keywords"),
    [(int | Literal["auto"], {"auto": "auto"}), (float | None, {"default": None}),
     (Literal["auto", "none"] | float, {"auto": "auto", "none": "none"})],
)  # fmt: skip
def test_keywords_are_typed_like_numbers_and_an_empty_line_is_the_first(
    qtbot, annotation, keywords
):
    number = widget_for(annotation)
    qtbot.addWidget(number.native)
    first = next(iter(keywords))
    assert number.box.lineEdit().placeholderText() == first
    for text, value in {**keywords, "": keywords[first], first.upper(): keywords[first]}.items():
        number.value = 7
        write(qtbot, number, text)
        assert (number.value, number.is_keyword, number.is_marked) == (value, True, False)
        assert number.box.text() == ("" if value == keywords[first] else text)
        qtbot.keyClick(number.box, Qt.Key.Key_Up)
        assert number.value == value  # no number to step from
    number.value = 7
    assert (number.value, number.is_keyword) == (7, False)
    write(qtbot, number, "car")
    with pytest.raises(FieldError, match=f"'car'; type .*, {', '.join(keywords)}"):
        _ = number.value


def test_three_lengths_are_all_typed_or_none(qtbot):
    row = widget_for(tuple[float, float, float] | None, label="Size")
    qtbot.addWidget(row.native)
    assert row.value is None
    for number, text in zip(row, ("3", "", "1"), strict=True):
        write(qtbot, number, text)
    with pytest.raises(FieldError, match="Size lacks 1 of its 3 numbers") as error:
        _ = row.value
    assert error.value.field is row[1].box
    write(qtbot, row[1], "2")
    assert row.value == (3.0, 2.0, 1.0)
    row.value = None
    assert [number.box.text() for number in row] == [""] * 3


def test_tab_goes_through_the_rows(qtbot):
    form = Form(RichardsonLucy, top=("back_projector", "iterations"))
    qtbot.addWidget(form)
    inputs = {getattr(field, "box", field.native): name for name, field in form.fields.items()}
    chain, widget = [], form.nextInFocusChain()
    while widget is not form:
        chain.append(inputs.get(widget))
        widget = widget.nextInFocusChain()
    rest = [name for name in form.fields if name not in ("back_projector", "iterations")]
    assert [name for name in chain if name] == ["back_projector", "iterations", *rest]


def _scroll(box):
    """Turn the wheel over a widget; return whether its parents get the event."""
    middle = QPointF(box.rect().center())
    event = QWheelEvent(
        middle, box.mapToGlobal(middle), QPoint(0, 0), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(box, event)
    return not event.isAccepted()


def test_the_wheel_scrolls_a_dock_and_changes_nothing_below_the_pointer(qtbot, monkeypatch):
    form = Form(RichardsonLucy, top=("iterations", "back_projector", "seed"))
    content = QWidget()
    rows = QVBoxLayout(content)
    rows.addWidget(form)
    area = ScrollArea(content)
    qtbot.addWidget(area)
    later = Number(min=0.0, max=1.0)
    rows.addWidget(later.native)
    area.show()
    qtbot.waitExposed(area)
    QApplication.processEvents()
    before = form.settings()
    choice = form.fields["back_projector"].native
    boxes = (choice, form.fields["iterations"].box, form.fields["seed"].box, later.box)
    assert all(_scroll(box) for box in boxes)
    assert form.settings() == before
    assert later.value == 0
    # A display without a window manager gives no window the focus.
    monkeypatch.setattr(choice, "hasFocus", lambda: True)
    assert not _scroll(choice)
    assert form.settings() != before


def test_a_message_points_to_its_field_and_has_its_label(qtbot):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        """Of a test.

        Parameters
        ----------
        first_um
            A length.
        second
            A number.
        """

        first_um: float = 1.0
        second: int = 2

        def __post_init__(self):
            if self.second > 5:
                raise RlnError("`second` is more than 5 beside `first_um` and `some_thing`.")

    form = Form(Settings, top=("first_um",))
    area = QScrollArea()
    area.setWidget(form)
    qtbot.addWidget(area)
    area.show()
    second = form.fields["second"]
    write(qtbot, second, "6")
    with pytest.raises(FieldError) as error:
        form.settings()
    assert with_labels(str(error.value)) == (
        "Second is more than 5 beside First (\N{MICRO SIGN}m) and some thing."
    )
    assert not second.visible
    show_field(error.value.field)
    assert second.visible
    assert area.focusWidget() is second.box


def test_labels_for_names_in_messages():
    know_labels(Execution)
    know_labels(NetworkOptions)
    assert with_labels("give `voxel_um` and `memory_gb`") == (
        "give Voxel size (\N{MICRO SIGN}m) and Memory limit (GB)"
    )
    assert with_labels("keep them (`negatives=keep`), or set them to 0 (`negatives=clip`)") == (
        "keep them (Negative values: keep), or set them to 0 (Negative values: set to 0)"
    )
    assert with_labels("voxels of (0.2, 0.1, 0.1) um, 3 um") == (
        "voxels of (0.2, 0.1, 0.1) \N{MICRO SIGN}m, 3 \N{MICRO SIGN}m"
    )
    assert with_labels("adapt it (`napari-rln train`), or") == "adapt it on the page Train, or"
    assert with_labels("`napari-rln models` lists them") == "`napari-rln models` lists them"


@pytest.mark.parametrize(
    ("voxel_um", "warning"),
    [((0.2, 0.1, 0.1), ""), ((0.2, 6.5, 6.5), "divided by the magnification"),
     ((0.2, 0.1, 0.2), "not square"), ((8.0, 0.1, 0.1), "large for a microscope"),
     ((200.0, 65.0, 65.0), "did you mean 0.2 0.065 0.065")],
)  # fmt: skip
def test_an_unlikely_voxel_size_has_a_warning(qtbot, voxel_um, warning):
    field = VoxelField("?")
    qtbot.addWidget(field)
    for size, number in zip(voxel_um, field.sizes, strict=True):
        write(qtbot, number, f"{size:g}")
    assert warning in field.warning.text()
    assert bool(field.warning.text()) == bool(warning)
    if max(voxel_um) > 25:
        with pytest.raises(FieldError, match="did you mean"):
            field.voxel_um("the PSF")
    else:
        assert field.voxel_um("the PSF") == voxel_um


def picker_of(qtbot, layer_options, shape=(4, 6, 8)):
    viewer = ViewerModel()
    layer = viewer.add_image(np.ones(shape, np.float32), name="stack", **layer_options)
    picker = VolumePicker(viewer)
    qtbot.addWidget(picker)
    return picker, layer


def test_a_typed_voxel_size_is_written_into_the_layer(qtbot, desktop):
    picker, layer = picker_of(qtbot, {})
    sizes = picker.voxel.sizes
    assert [size.box.text() for size in sizes] == [""] * 3
    with pytest.raises(FieldError, match="stack") as error:
        picker.source("the image")
    assert error.value.field is picker.voxel
    for size, text in zip(sizes, ("0,3", "0,0645", "0.0645"), strict=True):
        write(qtbot, size, text)
    assert voxel_um_of(layer) == (0.3, 0.0645, 0.0645)
    write(qtbot, sizes[1], "64,5")  # nanometres
    assert voxel_um_of(layer) == (0.3, 0.0645, 0.0645)
    assert "did you mean 0.0645" in picker.voxel.warning.text()
    with pytest.raises(FieldError, match=r"0\.0645"):
        picker.source("the image")
    write(qtbot, sizes[1], "x")
    with pytest.raises(FieldError, match="'x'"):
        picker.source("the image")
    write(qtbot, sizes[1], "0.07")
    assert picker.source("the image").voxel_um == (0.3, 0.07, 0.0645)


def test_a_button_commits_the_number_being_typed(qtbot):
    picker, layer = picker_of(qtbot, {"scale": (0.3, 0.1, 0.1), "units": UM})
    picker.show()
    picker.voxel.sizes[0].box.setFocus()
    write(qtbot, picker.voxel.sizes[0], "0.4", key=None)
    assert voxel_um_of(layer) == (0.3, 0.1, 0.1)
    commit_number(picker)
    assert voxel_um_of(layer) == (0.4, 0.1, 0.1)


def test_a_click_sets_the_missing_unit_of_a_scale_to_micrometres(qtbot):
    picker, layer = picker_of(qtbot, {"scale": (0.3, 0.1, 0.1)})
    assert picker.voxel.value == (0.3, 0.1, 0.1)
    assert not picker.as_um_button.isHidden()
    with pytest.raises(FieldError, match=r"0\.3 0\.1 0\.1.*unit"):
        picker.source("the image")
    picker.as_um_button.click()
    assert voxel_um_of(layer) == (0.3, 0.1, 0.1)
    assert picker.as_um_button.isHidden()
    assert picker.source("the image").voxel_um == (0.3, 0.1, 0.1)


def test_the_view_stays_when_the_voxel_size_is_typed(qtbot):
    picker, layer = picker_of(qtbot, {})
    viewer = picker._viewer
    viewer.dims.set_current_step(0, 3)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 2.5, 3.5), 40.0
    picker.voxel.value = (0.3, 0.1, 0.1)
    picker.voxel.changed.emit()
    assert voxel_um_of(layer) == (0.3, 0.1, 0.1)
    assert viewer.scene.camera.center == pytest.approx((0, 0.25, 0.35))
    assert viewer.scene.camera.zoom == pytest.approx(400)
    assert viewer.dims.current_step[0] == 3


def test_the_view_stays_on_the_image_when_the_voxel_size_of_its_psf_is_typed(qtbot):
    viewer = ViewerModel()
    viewer.add_image(
        np.ones((8, 60, 80), np.float32), name="cells", scale=(0.3, 0.1, 0.1), units=UM
    )
    psf = viewer.add_image(np.ones((5, 7, 7), np.float32), name="psf")
    picker = VolumePicker(viewer, of_psf=True)
    qtbot.addWidget(picker)
    picker.layer = psf
    viewer.dims.point = (1.2, 0, 0)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 3.0, 4.0), 90.0
    picker.voxel.value = (0.3, 0.1, 0.1)
    picker.voxel.changed.emit()
    assert voxel_um_of(psf) == (0.3, 0.1, 0.1)
    assert viewer.scene.camera.center == pytest.approx((0, 3.0, 4.0))
    assert viewer.scene.camera.zoom == pytest.approx(90)
    assert viewer.dims.point[0] == pytest.approx(1.2)
    viewer.layers["cells"].visible = False  # nothing but the PSF to look at
    picker.voxel.value = (0.3, 0.2, 0.2)
    picker.voxel.changed.emit()
    assert viewer.scene.camera.zoom == pytest.approx(45)


def test_a_plane_needs_no_depth(qtbot):
    picker, layer = picker_of(qtbot, {}, shape=(6, 8))
    for size in picker.voxel.sizes[1:]:
        write(qtbot, size, "0.1")
    assert voxel_um_of(layer) == (0.1, 0.1, 0.1)
    assert picker.source("the image").shape == (1, 6, 8)


def test_after_the_image_is_deleted_its_psf_is_no_image(qtbot):
    viewer = ViewerModel()
    image, psf = (
        viewer.add_image(np.ones((4, 6, 8), np.float32), name=name, scale=(1, 1, 1), units=UM)
        for name in ("cells", "psf")
    )
    images, psfs = (
        LayerPicker(viewer, prefer=is_raw), LayerPicker(viewer, prefer=is_psf, optional="none")
    )  # fmt: skip
    for picker in (images, psfs):
        qtbot.addWidget(picker)
    assert (images.layer, psfs.layer) == (image, psf)
    viewer.layers.remove(image)
    assert (images.layer, psfs.layer) == (None, psf)
    with pytest.raises(FieldError, match="choose the image"):
        images.source("the image")
    other = viewer.add_image(np.ones((4, 6, 8), np.float32), name="others")
    assert images.layer is other
    viewer.layers.remove(psf)
    assert psfs.layer is None
    images.layer = other
    third = viewer.add_image(np.ones((4, 6, 8), np.float32), name="third")
    assert images.layer is other
    viewer.layers.remove(other)
    assert images.layer is third  # an older image


def test_a_renamed_layer_stays_chosen_in_its_place(qtbot):
    viewer = ViewerModel()
    for name in ("one", "two", "three"):
        viewer.add_image(np.ones((4, 6, 8), np.float32), name=name)
    picker = LayerPicker(viewer, optional="none")
    qtbot.addWidget(picker)
    picker.layer = viewer.layers["two"]
    with qtbot.assertNotEmitted(picker.changed):
        viewer.layers["two"].name = "cells"
    assert picker.layer is viewer.layers["cells"]
    texts = [picker.box.itemText(i) for i in range(picker.box.count())]
    assert texts == ["none", "one", "cells", "three"]
