"""The PSF dock: PSFs are computed, opened, measured, examined and repaired."""

import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QMessageBox

from napari_rln.core.volume import Volume
from napari_rln.gui.layers import OPTICS, record_of
from napari_rln.io.volumes import read, write_channels
from napari_rln.psf import from_optics
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.measure import MeasureSettings, measure_psf
from napari_rln.psf.optics import Optics
from napari_rln.psf.templates import Templates

pytest.importorskip("napari")

VOXEL_UM = (0.2, 0.1, 0.1)
FWHM_UM = (0.9, 0.32, 0.32)


def spots(shape, positions, light=1000.0):
    """Gaussian spots of FWHM_UM at sub-voxel positions."""
    grid = np.indices(shape, np.float64)
    sigma = np.array(FWHM_UM) / VOXEL_UM / 2.3548
    return sum(
        light * np.exp(-0.5 * sum((each / s) ** 2 for each, s in zip(away, sigma, strict=True)))
        for away in (grid - np.reshape(at, (3, 1, 1, 1)) for at in positions)
    )


@pytest.fixture
def settled(qtbot):
    """Return a function that waits until a dock is idle and shows its PSF."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.is_busy, timeout=90_000)

    return wait


def units(layer):
    return [str(unit) for unit in layer.units]


def test_compute_examine_and_repair(open_dock, viewer, settled, monkeypatch, clipboard):
    viewer.open_sample("napari-rln", "bead")
    _, dock = open_dock("PSF")
    settled(dock)
    assert (dock.image.layer.name, dock.psf.layer.name) == ("bead", "bead_psf")
    assert "The peak is off the middle voxel" in dock.thumbnails.findings.text()
    assert "64 \N{MULTIPLICATION SIGN} 64" in dock.thumbnails.size.text()
    assert dock.repairs.boxes["Centre"].isChecked()
    assert not dock.repairs.boxes["Crop"].isChecked()

    dock.repair_button.click()
    settled(dock)
    made = viewer.layers[-1]
    assert made.name == "bead_psf \N{MIDDLE DOT} prepared"
    assert dock.psf.layer is not None
    assert dock.psf.layer.name == made.name
    assert record_of(made).method == "psf prepare"
    assert made.data.sum() == pytest.approx(1, abs=1e-3)
    assert "off the middle" not in dock.thumbnails.findings.text()
    dock.copy.copy_command()
    assert "psf repair" in clipboard.text()

    form = dock.microscope.form
    form.fields["na"].value = 1.2
    form.fields["size"].value = (21, 31, 31)
    dock.microscope.button.click()
    settled(dock)
    made = viewer.layers[-1]
    record = record_of(made)
    assert made.name == "PSF widefield NA 1.2"
    assert not made.visible  # else it would lie over the image
    assert (record.method, record.settings["na"]) == ("psf compute", 1.2)
    assert units(made) == ["micrometer"] * 3
    np.testing.assert_allclose(made.scale, viewer.layers["bead"].scale)
    assert made.data.shape == (21, 31, 31)
    dock.microscope.copy.copy_python()
    assert "MicroscopeSettings(na=1.2, size=(21, 31, 31))" in clipboard.text()

    form.fields["modality"].value = "confocal"
    dock.microscope.button.click()
    assert "confocal PSF needs" in dock.bar.message.text()
    form.fields["modality"].value = "widefield"

    count = len(viewer.layers)

    def out_of_memory(*_, **__):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(from_optics, "compute_psf", out_of_memory)
    dock.microscope.button.click()
    settled(dock)
    assert "not enough memory" in dock.bar.message.text()
    assert dock.bar.message.property("error")

    def slow(*arguments, **options):
        time.sleep(0.5)
        return compute_psf(*arguments, **options)

    monkeypatch.setattr(from_optics, "compute_psf", slow)
    dock.microscope.button.click()
    assert dock.jobs.running
    dock.bar.cancel_button.click()
    settled(dock)
    assert dock.bar.message.text().endswith("cancelled")
    assert len(viewer.layers) == count


def test_a_file_without_voxel_size_asks_for_it_and_is_fitted_to_the_image(
    open_dock, viewer, settled, tmp_path, clipboard
):
    path = tmp_path / "mine.tif"
    tifffile.imwrite(path, spots((19, 24, 25), [(9.0, 14.6, 12.0)]).astype(np.uint16) + 40)
    _, dock = open_dock("PSF")
    assert "Choose a layer" in dock.thumbnails.size.text()
    dock.opening.button.click()
    assert "choose the file" in dock.bar.message.text().lower()
    dock.opening.path.value = str(path)
    dock.opening.button.click()
    settled(dock)
    assert "mine.tif has no voxel size" in dock.bar.message.text()
    assert len(viewer.layers) == 0
    dock.opening.voxel.value = (0.2, 0.0, 0.1)
    dock.opening.button.click()
    assert "or none of them" in dock.bar.message.text()
    dock.opening.voxel.value = VOXEL_UM
    dock.opening.button.click()
    settled(dock)
    np.testing.assert_allclose(viewer.layers["mine (PSF)"].scale, VOXEL_UM)
    text = dock.thumbnails.findings.text()
    assert "off the middle voxel" in text
    assert "background" in text
    assert not dock.repairs.boxes["Resample"].isEnabled()

    viewer.add_image(
        np.ones((30, 40, 40)), scale=(0.25, 0.1, 0.1), units=("um",) * 3, name="mine too"
    )
    dock.image.layer = viewer.layers["mine too"]
    settled(dock)
    assert "the image's is (0.25, 0.1, 0.1) \N{MICRO SIGN}m" in dock.thumbnails.findings.text()
    assert dock.repairs.boxes["Resample"].isChecked()
    dock.copy.copy_command()
    line = clipboard.text()
    assert "psf repair" in line
    assert "--voxel-um 0.25 0.1 0.1" in line
    dock.all_button.click()
    settled(dock)
    np.testing.assert_allclose(viewer.layers[-1].scale, (0.25, 0.1, 0.1))
    text = dock.thumbnails.findings.text()
    assert "middle voxel" not in text
    assert "the image's is" not in text

    dock.psf.layer = viewer.layers["mine too"]  # not a PSF
    settled(dock)
    assert dock.thumbnails.size.text()
    assert not dock.thumbnails.board.isVisible()


def test_beads_are_found_edited_and_averaged(open_dock, viewer, settled, clipboard):
    at = [(11.3, 15.2, 15.6), (12.4, 15.8, 46.1), (11.7, 46.3, 15.4), (12.0, 46.0, 46.7)]
    rng = np.random.default_rng(1)
    stack = rng.poisson(20 + spots((24, 62, 62), at)).astype(np.float32)
    layer = viewer.add_image(stack, scale=VOXEL_UM, units=("um",) * 3, name="stack")
    _, dock = open_dock("PSF")
    beads = dock.beads
    beads.form.fields["size"].value = (15, 15, 15)
    beads.find_button.click()
    settled(dock)
    points = viewer.layers["stack \N{MIDDLE DOT} beads"]
    assert [*points.features["status"]] == ["used"] * 4
    assert units(points) == ["micrometer"] * 2
    np.testing.assert_allclose(points.scale, VOXEL_UM[1:])
    assert beads.points.layer.name == points.name

    beads.average_button.click()
    settled(dock)
    psf = viewer.layers["stack \N{MIDDLE DOT} PSF"]
    expected = measure_psf(Volume.from_array(stack, VOXEL_UM), MeasureSettings(size=(15, 15, 15)))
    np.testing.assert_array_equal(psf.data, expected.data)
    np.testing.assert_allclose(record_of(psf).facts["fwhm_um"], FWHM_UM, rtol=0.03)
    assert "Mean of 4 of 4 beads" in dock.thumbnails.size.text()

    _, y, x = at[0]
    points.selected_data = {int(np.abs(points.data - (y, x)).sum(axis=1).argmin())}
    points.remove_selected()
    points.add([30.0, 30.0])  # no bead here
    assert [*points.features["status"]] == ["used"] * 3 + ["chosen"]
    points.selected_data = {3}
    points.remove_selected()
    beads.average_button.click()
    settled(dock)
    facts = record_of(viewer.layers[-1]).facts
    assert (facts["beads_used"], facts["beads_removed"], facts["beads_added"]) == (3, 1, 0)

    points.add([y + 1, x - 1])
    beads.average_button.click()
    settled(dock)
    facts = record_of(viewer.layers[-1]).facts
    assert (facts["beads_used"], facts["beads_added"]) == (4, 1)
    np.testing.assert_allclose(sorted(facts["beads_at"]), sorted(at), atol=0.1)
    beads.copy.copy_command()
    note, saving, line = clipboard.text().splitlines()
    assert "save the layer as stack.tif" in note
    assert "not an option of the command line: positions=((" in saving
    assert "psf measure" in line
    beads.copy.copy_python()
    text = clipboard.text()
    assert "positions=((" in text
    assert 'float("nan")' in text

    points.data = points.data[:0]
    beads.average_button.click()
    assert "no usable bead" in dock.bar.message.text()
    assert layer.name == "stack"


OPTICS_OF_FILE = Optics(
    modality="confocal", na=1.3, wavelength_um=0.525, excitation_um=0.488, channel="EGFP"
)


@pytest.fixture
def cells(viewer):
    """Return a function that adds an image, with optics as of a file."""

    def add(name, optics=None, **options):
        metadata = {} if optics is None else {OPTICS: optics.as_json()}
        return viewer.add_image(
            np.ones((8, 9, 10)), scale=VOXEL_UM, units=("um",) * 3, name=name, metadata=metadata,
            **options,
        )  # fmt: skip

    return add


def marked(form):
    """Fields marked as stated, and as assumed."""
    labels = {name: label.text() for name, label in form._row_labels.items()}
    return tuple({n for n, text in labels.items() if mark in text} for mark in "\u25cf\u25cb")


def test_the_form_fills_itself_from_the_file_and_remembers_edits(open_dock, viewer, cells, qtbot):
    _, dock = open_dock("PSF")
    page = dock.microscope
    fields = page.form.fields
    fields["depth_um"].value = 3.0
    plain = cells("plain")
    assert fields["na"].value == 1.4  # nothing changes without optics
    assert page.source.isVisibleTo(page)
    words = "Assumed, as no file states them: widefield, NA 1.4, immersion index 1.515"
    assert words in page.source.text()
    assert marked(page.form) == (set(), {"modality", "na", "wavelength_um", "immersion_index"})

    filled = cells("filled", OPTICS_OF_FILE)
    dock.image.layer = filled
    settings = page.form.settings()
    assert (settings.modality, settings.na, settings.excitation_um) == ("confocal", 1.3, 0.488)
    assert (settings.immersion_index, settings.depth_um) == (1.515, 3.0)
    stated = {"modality", "na", "wavelength_um", "excitation_um"}
    assert marked(page.form) == (stated, {"immersion_index", "pinhole_au"})
    text = page.source.text()
    assert "From filled: confocal, NA 1.3, emission 525 nm, excitation 488 nm." in text
    assert "Assumed: oil immersion, as usual at NA 1.3; a pinhole of 1 Airy unit" in text
    assert "Use these again" not in text

    fields["na"].value = 1.2
    assert marked(page.form)[0] == stated - {"na"}
    dock.image.layer = plain  # before the timer: the edit is remembered for the right image
    assert fields["na"].value == 1.2
    fields["na"].value = 1.1
    dock.image.layer = filled
    assert fields["na"].value == 1.2
    page.source.linkActivated.emit("fill")
    assert (fields["na"].value, marked(page.form)[0]) == (1.3, stated)
    dock.image.layer = plain
    assert fields["na"].value == 1.1
    assert not marked(page.form)[1]  # the user has confirmed them
    assert not page.source.isVisibleTo(page)

    fields["na"].value = 1.25
    qtbot.waitUntil(lambda: not page._timer.isActive())
    viewer.window.remove_dock_widget("all")
    viewer.layers.clear()
    _, dock = open_dock("PSF")
    assert dock.microscope.form.fields["na"].value == 1.25  # as last used


def test_a_file_with_little_says_what_is_missing(open_dock, cells):
    _, dock = open_dock("PSF")
    fields = dock.microscope.form.fields
    fields["na"].value = 0.9
    dock.image.layer = cells("two photons", Optics(modality="two-photon", wavelength_um=0.61))
    page = dock.microscope
    assert page.form.fields["na"].value == 0.9  # of the user
    assert marked(page.form) == ({"modality", "wavelength_um"}, set())
    missing = "Not in the file: the numerical aperture and the laser's wavelength; type it here."
    assert missing in page.source.text()


def test_what_nobody_states_is_asked_for_and_the_record_says_who_stated_what(
    open_dock, viewer, cells, settled
):
    _, dock = open_dock("PSF")
    page, fields = dock.microscope, dock.microscope.form.fields
    fields["size"].value = (9, 15, 15)
    dock.image.layer = cells("whole", replace(OPTICS_OF_FILE, immersion_index=1.47))
    dock.image.layer = cells("little", Optics(modality="confocal", wavelength_um=0.52))
    page.button.click()  # neither the default of the NA nor that of the other file is taken
    assert dock.bar.message.text() == "Objective NA is missing; type it."
    assert fields["immersion_index"].value == 1.515
    assert dock.window().focusWidget() is fields["na"].box
    assert not dock.jobs.running
    fields["na"].value = 0.8
    page.button.click()
    assert "confocal PSF needs" in dock.bar.message.text()
    fields["excitation_um"].value = 0.47
    fields["wavelength_um"].value = 0.51
    page.button.click()
    settled(dock)
    sources = record_of(viewer.layers[-1]).facts["optics"]
    assert sources["stated"] == {"modality": "confocal"}
    given = {"na": 0.8, "excitation_um": 0.47, "wavelength_um": 0.51, "immersion_index": 1.515}
    assert sources["given"] == given
    assert [text.split(",")[0] for text in sources["assumed"]] == ["a pinhole of 1 Airy unit"]

    fields["na"].value = 1.1
    dock.image.layer = cells("least", Optics(modality="widefield"))
    assert fields["na"].value == 1.1
    assert not fields["na"].is_marked
    assert fields["wavelength_um"].value == 0.51


def test_templates_and_dyes_fill_the_form(open_dock, monkeypatch):
    _, dock = open_dock("PSF")
    page, choice = dock.microscope, dock.microscope.templates
    fields = page.form.fields

    def choose(box, text):
        box.setCurrentIndex(box.findText(text, Qt.MatchFlag.MatchStartsWith))
        box.activated.emit(box.currentIndex())

    assert choice.box.currentText() == "63x/1.4 oil widefield"  # as the form at first
    choose(page.dyes, "DAPI")
    assert (fields["wavelength_um"].value, fields["excitation_um"].value) == (0.461, None)
    choose(choice.box, "40x/1.2 water confocal")
    settings = page.form.settings()
    assert (settings.modality, settings.na, settings.immersion_index) == ("confocal", 1.2, 1.33)
    assert (settings.wavelength_um, settings.excitation_um) == (0.461, 0.358)
    choose(choice.box, "25x/1.05 water two-photon")
    assert page.form.settings().excitation_um == pytest.approx(0.716)
    choose(page.dyes, "mCherry")
    assert page.form.settings().excitation_um == pytest.approx(1.174)
    fields["wavelength_um"].value = 0.6
    assert page.dyes.dye is None

    fields["na"].value = 0.95
    assert choice.template is None
    choose(page.dyes, "TRITC")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("Room 12", True))
    choice.save()
    assert choice.template.name == "Room 12"
    assert [dye.name for dye in Templates().load("Room 12").dyes] == ["TRITC"]
    choose(choice.box, "20x/0.8 air widefield")
    choose(choice.box, "Room 12")
    assert (fields["modality"].value, fields["na"].value) == ("two-photon", 0.95)
    assert page.dyes.itemText(0).startswith("TRITC")

    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("a/b", True))
    choice._try(choice.save)
    assert "cannot be called 'a/b'" in dock.bar.message.text()
    path = Templates().folder / "Room 12.json"
    path.write_text("{")
    choose(choice.box, "Room 12")
    assert "Room 12 cannot be read" in dock.bar.message.text()
    yes = QMessageBox.StandardButton.Yes
    monkeypatch.setattr(QMessageBox, "question", lambda *_, **__: yes)
    choice.delete()
    assert not path.exists()
    assert choice.box.findText("Room 12") == -1


def test_a_psf_is_dropped_chosen_among_channels_and_saved(
    open_dock, viewer, settled, tmp_path, monkeypatch, clipboard
):
    at = (9.0, 12.0, 12.0)
    volumes = [
        Volume.from_array(spots((19, 25, 25), [at], light=light), VOXEL_UM, name="both")
        for light in (1.0, 7.0)
    ]
    path = tmp_path / "both.ome.tif"
    write_channels(volumes, path)
    _, dock = open_dock("PSF")
    page = dock.opening
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    enter = QDragEnterEvent(
        QPoint(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(dock, enter)
    assert enter.isAccepted()
    drop = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(dock, drop)
    settled(dock)
    assert "choose one, then open it" in page.note.text()
    assert "done" not in dock.bar.message.text()  # as nothing is open yet
    assert len(viewer.layers) == 0
    assert page.isVisibleTo(dock)
    assert not page.parts["time"].isVisibleTo(page)
    assert page.parts["channel"].count() == 2
    page.parts["channel"].setCurrentIndex(1)
    page.button.click()
    settled(dock)
    layer = viewer.layers[-1]
    assert layer.data.max() == pytest.approx(volumes[1].data.max())

    def save_as(name):
        chosen = str(tmp_path / name)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (chosen, ""))
        dock.save_button.click()
        settled(dock)

    save_as("mine.png")
    assert "png must end in .tif" in dock.bar.message.text()
    save_as("mine, NA 1.4")
    saved = read(tmp_path / "mine, NA 1.4.ome.tif")
    np.testing.assert_array_equal(saved.data, layer.data)
    assert saved.voxel_um == VOXEL_UM
    save_as("mine, NA 1.4")  # the dialog has asked about a name that does not exist
    assert "There is a file mine, NA 1.4.ome.tif already; choose it" in dock.bar.message.text()
    save_as("mine, NA 1.4.ome.tif")
    assert "The PSF is in" in dock.bar.message.text()
    dock.copy.copy_command()
    assert clipboard.text().startswith(f"napari-rln psf repair '{tmp_path}/mine, NA 1.4.ome.tif'")
    page.path.value = str(tmp_path / "mine, NA 1.4.ome.tif")
    assert not page.parts["channel"].isVisibleTo(page)


def test_only_what_can_be_used_is_shown(open_dock, viewer, settled):
    _, dock = open_dock("PSF")
    settled(dock)
    for part in (dock.repair_part, dock.check_optics, dock.save_button, dock.thumbnails.board):
        assert not part.isVisibleTo(dock)
    dock.microscope.form.fields["size"].value = (21, 31, 31)
    dock.microscope.button.click()
    settled(dock)
    assert dock.save_button.isVisibleTo(dock)
    assert dock.thumbnails.board.isVisibleTo(dock)
    assert not dock.check_optics.isVisibleTo(dock)  # has been computed
    assert not dock.repair_part.isVisibleTo(dock)
    viewer.open_sample("napari-rln", "bead")
    dock.psf.layer = viewer.layers["bead_psf"]
    settled(dock)
    assert dock.check_optics.isVisibleTo(dock)
    assert dock.repair_part.isVisibleTo(dock)
    findings = dock.thumbnails.findings.text()
    assert findings.rindex("\N{BLACK UP-POINTING TRIANGLE}") < findings.index("\N{BULLET}")
