"""The training dock: trainings that are stopped, cancelled and resumed, and their models."""

import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.views import rotated
from napari_rln.gui.layers import OPTICS, record_of
from napari_rln.gui.training import model_list as models
from napari_rln.gui.training import training_run as run
from napari_rln.gui.training.expected_time import expected_time
from napari_rln.gui.training.interrupted import InterruptedTraining, checkpoint_of
from napari_rln.gui.training.loss_curves import Curves
from napari_rln.psf.optics import Optics
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train import validation
from napari_rln.train.training_settings import Baseline, Quality, TrainSettings

TINY = {
    "steps": 8,
    "validate": 2,
    "validate_every": 4,
    "shape": (32, 32, 32),
    "patch": 16,
    "batch": 1,
    "examples": 2,
    "start_iterations": 3,
}


@pytest.fixture
def dock(open_dock, viewer, library, monkeypatch):
    """Return the dock, ready to train on the PSF of the hollow bead for a few steps."""
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))  # a short search for the best RLD
    viewer.open_sample("napari-rln", "bead")
    psf = viewer.layers["bead_psf"]
    psf.data = psf.data[20:45, 20:45, 20:45]  # a smaller one trains faster
    _, widget = open_dock("Train")
    widget.form.psf.layer, widget.form.image.layer = viewer.layers["bead_psf"], None
    widget.form.name.setText("mine")
    settings = widget.form.training.settings()
    widget.form.training.show_settings(dataclasses.replace(settings, **TINY))
    widget.test_viewer = viewer
    return widget


PLANES = [f"training · {what}" for what in ("image", "initial estimate", "truth", "network now")]


def test_a_training_is_plotted_and_its_model_listed(dock, library, idle):
    assert "No training yet" in dock.page.phases.text()
    dock.bar.run_button.click()
    assert dock.tabs.currentWidget() is dock.page
    assert dock.page.phases.isVisibleTo(dock.page)
    said = []
    dock.jobs.reported.connect(lambda job, update: said.append(dock.bar.message.text()))
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    assert said[0] == "Training mine: preparing the PSF"
    assert any(text.startswith("Training mine: preparing volume ") for text in said)
    curves = dock.page.curves
    assert curves.steps == [*range(1, 9)]
    assert [step for step, _ in curves.qualities] == [0, 4, 8]
    assert curves.isVisibleTo(dock.page)
    entry = {entry.name: entry for entry in library.entries()}["mine"]
    assert set(entry.validation) == {"network", "image", "rld", "wiener_butterworth"}
    assert dock.models.selected == "mine"
    assert "this network" in dock.models.details.text()
    message = dock.bar.message.text()
    assert f"{entry.validation['network']['psnr_db']:.1f} dB on test volumes" in message
    assert f"best RLD reaches {entry.validation['rld']['psnr_db']:.1f} dB" in message
    assert not checkpoint_of(library, "mine").exists()
    assert library.load("mine").record.inputs["psf layer"] == "bead_psf"
    assert not dock.page.stop_button.isVisibleTo(dock.page)

    used = []
    dock.use_requested.connect(used.append)
    dock.page.use_button.click()
    dock.models.select("universal")
    dock.models.use_button.click()
    assert used == ["mine", "universal"]


def test_a_preview_leaves_the_users_view_as_it_was(dock, qtbot, idle):
    """Hidden and restored layers, camera, sliders and grid; the selection is never changed."""
    viewer = dock.test_viewer
    image, psf = viewer.layers["bead"], viewer.layers["bead_psf"]
    psf.visible = False
    viewer.layers.selection = {image}
    viewer.dims.current_step, viewer.canvas.grid.enabled = (7, 3, 5), True
    viewer.scene.camera.zoom, viewer.scene.camera.center = 37.0, (0.0, 1.25, 2.5)
    chosen = []
    viewer.layers.selection.events.active.connect(lambda event: chosen.append(event.value))
    dock.form.training.fields["steps"].value = 5000
    dock.form.training.fields["validate_every"].value = 1000
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: all(name in viewer.layers for name in PLANES), timeout=60000)
    planes = [viewer.layers[name] for name in PLANES]
    assert all(layer.data.shape == (32 + 2 + 32, 32) for layer in planes)
    assert all(layer.scale == pytest.approx((0.1, 0.1)) for layer in planes)
    assert planes[0].translate[-1] > image.extent.world[1][-1]
    assert not image.visible
    assert {*viewer.layers.selection} == {image}
    assert chosen[-1:] in ([], [image])
    first = viewer.layers["training · network now"].data
    qtbot.waitUntil(
        lambda: not np.array_equal(viewer.layers["training · network now"].data, first, True),
        timeout=30000,
    )  # it follows the training, also between tests

    viewer.scene.camera.zoom = 5.0  # to see more of the preview
    dock.page.view_button.click()
    assert [layer.name for layer in viewer.layers if layer.visible and layer.opacity] == ["bead"]
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    assert (image.visible, psf.visible) == (True, False)
    assert viewer.dims.current_step == (7, 3, 5)
    assert viewer.canvas.grid.enabled
    assert (viewer.scene.camera.zoom, *viewer.scene.camera.center[1:]) == (37.0, 1.25, 2.5)
    qtbot.wait(3500)
    assert not any(name in viewer.layers for name in PLANES)  # the user is not disturbed

    dock.page.show_button.click()
    qtbot.waitUntil(lambda: all(name in viewer.layers for name in PLANES), timeout=10000)
    psf.visible = True  # the user looks at a layer of his own
    viewer.scene.camera.zoom = 11.0
    dock.page.stop_button.click()
    idle(dock.jobs)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    assert (image.visible, psf.visible) == (True, True)
    assert viewer.scene.camera.zoom == 11.0


def test_the_time_of_a_training_is_known_before_and_measured(dock, idle):
    form = dock.form
    assert form.time.text().startswith("About ")
    assert "of preparation" in form.time.text()
    dock.bar.run_button.click()
    idle(dock.jobs)
    settings = form.training.settings(device="cpu")
    measured = expected_time(settings, (25, 25, 25))
    more = expected_time(dataclasses.replace(settings, steps=80), (25, 25, 25))
    assert more.training == pytest.approx(10 * measured.training)
    assert more.preparation == measured.preparation
    timed = dataclasses.replace(settings, steps=None, minutes=4.0)
    whole = expected_time(timed, (25, 25, 25))
    assert whole.preparation + whole.training == pytest.approx(240)


def test_stop_keeps_the_best_also_while_paused(dock, library, qtbot, idle):
    dock.form.training.fields["steps"].value = 5000
    dock.bar.run_button.click()
    page = dock.page
    assert not page.stop_button.isVisibleTo(page)  # there is no model yet
    qtbot.waitUntil(lambda: len(page.curves.qualities) > 1, timeout=60000)
    dock.bar.pause_button.click()
    qtbot.waitUntil(lambda: dock.jobs.paused, timeout=30_000)
    assert "), nothing is computed. Press Resume" in dock.bar.message.text()
    before, used = len(page.curves.steps), time.process_time()
    qtbot.wait(500)
    assert len(page.curves.steps) == before
    assert time.process_time() - used < 0.4
    dock.bar.pause_button.click()
    qtbot.waitUntil(lambda: len(page.curves.steps) > before, timeout=30_000)
    dock.bar.pause_button.click()
    qtbot.waitUntil(lambda: dock.jobs.paused, timeout=30_000)
    page.stop_button.click()
    assert not page.stop_button.isEnabled()
    idle(dock.jobs)
    facts = library.load("mine").record.facts
    assert 0 < facts["steps"] < 5000
    assert facts["best_step"] <= facts["steps"]
    assert not dock.interrupted.isVisibleTo(dock)
    assert page.use_button.isVisibleTo(page)


def test_stopped_before_the_first_step_there_is_no_model(dock, library, idle):
    dock.bar.run_button.click()
    dock.stop()
    idle(dock.jobs)
    assert "there is no model yet" in dock.bar.message.text().lower()
    assert "mine" not in library.names()


def cancelled_after_the_first_checkpoint(dock, library, idle):
    def cancel(job, update):
        if checkpoint_of(library, "mine").exists():
            dock.bar.cancel_button.click()
            dock.jobs.reported.disconnect(cancel)

    dock.jobs.reported.connect(cancel)
    dock.bar.run_button.click()
    idle(dock.jobs)


def test_a_cancelled_training_is_resumed(dock, library, idle, in_step):
    in_step(dock.jobs)
    dock.form.training.fields["steps"].value = 24
    dock.form.structures.fields["structures"].value = ("spheres", "filaments")
    cancelled_after_the_first_checkpoint(dock, library, idle)
    assert "its steps are kept. Press Resume" in dock.bar.message.text()
    assert not any(layer.name in PLANES for layer in dock.test_viewer.layers)
    assert "mine, step" in dock.interrupted.box.currentText()
    dock.bar.run_button.click()  # the name is that of the interrupted training
    assert "resume or discard it" in dock.bar.message.text()

    # As after a restart: the PSF is not open, then renamed; other settings.
    dock.form.psf.layer = None
    psf = dock.test_viewer.layers.pop(dock.test_viewer.layers.index("bead_psf"))
    dock.test_viewer.layers.remove(dock.test_viewer.layers["bead"])
    dock.interrupted.resume_button.click()
    assert "was started with the PSF bead_psf, which is not open" in dock.bar.message.text()
    dock.test_viewer.open_sample("napari-rln", "bead")
    dock.test_viewer.layers.remove("bead_psf")  # whose voxels are those of the sample
    dock.test_viewer.add_layer(psf)
    dock.form.structures.fields["structures"].value = ("dots",)
    dock.form.training.fields["steps"].value = 10
    dock.test_viewer.layers["bead_psf"].name = "renamed"
    dock.form.psf.layer = dock.test_viewer.layers["bead"]
    dock.interrupted.resume_button.click()
    idle(dock.jobs)
    assert "psf differ now" in dock.bar.message.text()
    dock.form.psf.layer = dock.test_viewer.layers["renamed"]
    dock.interrupted.resume_button.click()
    idle(dock.jobs)
    assert dock.form.structures.fields["structures"].value == ("dots",)  # of the next training
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    assert library.load("mine").record.facts["steps"] == 24
    assert not dock.interrupted.isVisibleTo(dock)


def test_an_interrupted_training_can_be_discarded(dock, library, monkeypatch):
    library.folder.mkdir(parents=True)
    (library.folder / "foreign.checkpoint").write_text("something else")
    path = checkpoint_of(library, "mine")
    monkeypatch.setattr(
        InterruptedTraining, "read", lambda p: _interrupted(p) if p == path else _refuse(p)
    )
    path.touch()
    dock.interrupted.refresh()
    assert [dock.interrupted.box.itemText(i) for i in range(dock.interrupted.box.count())] == [
        "mine, step 3 of 8"
    ]
    for answer in (QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes):
        assert path.exists()
        monkeypatch.setattr(QMessageBox, "question", lambda *_, answer=answer: answer)
        dock.interrupted.discard_button.click()
    assert not path.exists()
    assert not dock.interrupted.isVisibleTo(dock)


def _interrupted(path):
    return InterruptedTraining(
        name=path.stem,
        path=path,
        step=3,
        total=8,
        settings=TrainSettings(),
        structures=StructureSettings(),
        inputs={},
    )


def _refuse(path):
    raise RlnError(f"{path.name} is no checkpoint of a training.")


def test_an_error_of_torch_is_reported_in_the_dock(dock, monkeypatch, idle):
    def failing(*_, **__):
        yield from ()
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(run, "train_model_iter", failing)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert dock.bar.message.property("error")
    assert "shapes do not fit" in dock.bar.message.text()
    assert dock.bar.details_button.isVisibleTo(dock)
    dock.form.psf.layer = dock.test_viewer.layers["bead"]
    dock.form.image.layer = dock.test_viewer.layers["bead"]
    dock.bar.run_button.click()
    assert "as the PSF and as the image" in dock.bar.message.text()


def test_a_pair_is_drawn_and_follows_the_structures(dock, qtbot, idle):
    viewer, button = dock.test_viewer, dock.form.preview_button
    button.click()
    assert "Drawing" in button.text()
    qtbot.waitUntil(lambda: "preview · truth" in viewer.layers, timeout=30000)
    idle(dock.pairs.jobs)
    assert button.text() == "Preview a pair"
    image, truth = (viewer.layers[f"preview · {what}"] for what in ("image", "truth"))
    assert image.data.shape == truth.data.shape == (32, 32, 32)
    assert image.scale == pytest.approx((0.1, 0.1, 0.1))
    assert truth.translate[-1] > image.extent.world[1][-1]
    first = truth.data
    dock.form.another_button.click()
    qtbot.waitUntil(lambda: truth.data is not first, timeout=30000)
    second = truth.data
    dock.form.structures.fields["structures"].value = ("dots",)
    qtbot.waitUntil(lambda: truth.data is not second, timeout=30000)
    assert not np.array_equal(first, second)
    assert sum(layer.visible and layer.opacity > 0 for layer in viewer.layers) == 2
    idle(dock.pairs.jobs)
    assert not viewer.layers["bead"].visible
    box = dock.form.image.box  # previews are not listed
    assert [box.itemText(i) for i in range(1, box.count())] == ["bead_psf", "bead"]
    dock.form.back_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    assert [layer.name for layer in viewer.layers] == ["bead_psf", "bead"]
    assert viewer.layers["bead"].visible
    assert not dock.form.back_button.isVisibleTo(dock.form)


def test_presets_names_and_what_is_copied(dock, library, clipboard):
    form = dock.form
    assert form.training.fields["learning_rate"].value == 0.001
    form.preset.setCurrentText("As in the paper")
    settings = form.plan().settings
    assert settings.variant == "paper"
    assert form.plan().initial_model is None
    minutes = form.training.fields["minutes"].native
    assert not minutes.isVisibleTo(form.training)  # the preset has steps
    form.preset.setCurrentText("Full training")
    assert form.plan().settings.minutes == 30
    assert form.plan().settings.variant == "started"
    form.preset.setCurrentText("Quick adaptation")
    assert form.plan().initial_model.name == "universal"
    form.name.setText("a/b: c")
    assert form.plan().name == "a-b- c"
    form.name.setText("")
    assert form.plan().name == "bead_psf"
    form.training.fields["minutes"].value = 7
    dock.copy_button.copy_command()
    note, line = clipboard.text().splitlines()
    assert "save the layer as bead_psf.tif" in note
    assert line.startswith("napari-rln train --out bead_psf.safetensors --psf ")
    assert "--preset quick --minutes 7" in line
    dock.copy_button.copy_python()
    assert "minutes=7" in clipboard.text()


def test_a_network_learns_to_take_two_views(dock, library, qtbot, idle, in_step, clipboard):
    in_step(dock.jobs)
    viewer, form = dock.test_viewer, dock.form
    assert not form.second.box.isEnabled()  # the universal model takes one
    form.preset.setCurrentText("Full training")
    form.training.show_settings(
        dataclasses.replace(form.training.settings(), **TINY | {"steps": 24})
    )
    assert form.second.box.isEnabled()
    assert not form.second.psf.isVisibleTo(form)
    form.more.open()
    form.second.box.setCurrentText("two, each")
    assert form.second.psf.isVisibleTo(form)
    form.second.psf.layer = viewer.layers["bead"]
    form.image.layer = viewer.layers["bead"]
    dock.bar.run_button.click()
    assert "as the second PSF and as the image" in dock.bar.message.text()
    form.second.psf.layer = form.image.layer = None
    form.second.form.fields["rotation"].value = "y+90"

    form.preview_button.click()
    qtbot.waitUntil(lambda: "preview · truth" in viewer.layers, timeout=30000)
    idle(dock.pairs.jobs)
    image, second, truth = (layer for layer in viewer.layers if layer.name.startswith("preview"))
    assert second.name == "preview · second view"
    assert image.translate[-1] < second.translate[-1] < truth.translate[-1]
    assert np.corrcoef(image.data.ravel(), second.data.ravel())[0, 1] > 0.5
    form.second.box.setCurrentText("one")
    form.preview_button.click()
    qtbot.waitUntil(lambda: second not in viewer.layers, timeout=30000)
    qtbot.waitUntil(lambda: "preview · truth" in viewer.layers, timeout=30000)
    form.second.box.setCurrentText("two, each")
    idle(dock.pairs.jobs)

    dock.copy_button.copy_command()
    line = clipboard.text().splitlines()[-1]
    assert {"--views concatenated", "--rotation y+90"} <= {
        " ".join(pair) for pair in itertools.pairwise(line.split())
    }
    assert "--psf-b" not in line  # the first PSF, rotated
    dock.copy_button.copy_python()
    assert 'rotation="y+90"' in clipboard.text().replace("'", '"')

    cancelled_after_the_first_checkpoint(dock, library, idle)
    assert "its steps are kept" in dock.bar.message.text()
    form.second.form.fields["rotation"].value = "none"  # of the next training
    form.second.box.setCurrentText("one")
    dock.interrupted.resume_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    model = library.load("mine")
    assert model.network.settings.views == "concatenated"
    np.testing.assert_allclose(model.psf_b.data, rotated(model.psf, "y+90").data, atol=1e-7)
    assert model.record.facts["steps"] == 24

    form.preset.setCurrentText("Quick adaptation")
    form.initial_model.setCurrentText("mine")
    assert form.second.box.currentText() == "two, each"
    assert not form.second.box.isEnabled()
    assert form.plan().second is not None


def test_models_are_renamed_exported_deleted_and_imported(
    dock, library, tmp_path, monkeypatch, qtbot
):
    shown = dock.models
    library.save(library.load("universal"))
    qtbot.waitUntil(
        lambda: shown.tree.topLevelItemCount() == 3, timeout=30_000
    )  # the folder is watched
    shown.select("universal")
    assert not shown.rename_button.isEnabled()
    assert not shown.delete_button.isEnabled()
    shown.select("universal-2")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("bead-paper", True))
    shown.rename_button.click()
    assert "a model called bead-paper already" in dock.bar.message.text()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("other", True))
    shown.rename_button.click()
    assert shown.selected == "other"
    target = tmp_path / "out.safetensors"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "out"), ""))
    shown.export_button.click()
    assert target.is_file()
    for answer in (QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes):
        assert "other" in library.names()
        monkeypatch.setattr(QMessageBox, "question", lambda *_, answer=answer: answer)
        shown.delete_button.click()
    assert "other" not in library.names()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(target), ""))
    shown.import_button.click()
    assert shown.selected == "out"
    assert dock.form.initial_model.findText("out") >= 0  # an initial model
    shown.show_button.click()
    (library.folder / "broken.safetensors").write_bytes(b"nothing")
    qtbot.waitUntil(lambda: shown.tree.topLevelItemCount() == 4, timeout=30_000)
    shown.select("broken")
    assert "cannot be read" in shown.details.text()
    assert not shown.export_button.isEnabled()


def test_curves_keep_up_with_long_trainings(qtbot):
    viewer = ViewerModel()
    curves = Curves(viewer)
    qtbot.addWidget(curves)
    for theme in ("light", "dark"):
        viewer.theme = theme
    curves.add_losses([(step, float(np.cos(step))) for step in range(20000)], 20000)
    curves.add_losses([(20000, float("nan"))], 20000)
    assert len(curves.losses) == 20000
    assert abs(curves.smoothed[-1]) < 0.2  # the mean of a cosine
    rld, other = Quality(psnr_db=31, ssim=0.9), Quality(psnr_db=20, ssim=0.5)
    curves.show_baseline(Baseline(image=other, rld=rld, wiener_butterworth=rld))
    curves.add_quality(0, Quality(psnr_db=32, ssim=0.9), 0)
    assert "network now 32.00" in curves.summary.text()
    curves.clear()
    assert not curves.losses


def test_a_folder_that_is_not_there_yet_is_watched(library, qtbot):
    watch = models.LibraryWatcher()
    with qtbot.waitSignal(watch.changed, timeout=30_000):
        library.save(library.load("universal"))
    assert Path(library.folder).is_dir()
    assert watch.entries[-1].name == "universal-2"


def test_another_architecture_is_trained_for_comparison(dock, library, idle, clipboard):
    form = dock.form
    form.architecture.setCurrentText("CARE")
    assert form.initial_model.currentText() == "new weights"
    assert not form.second.box.isEnabled()
    assert "to compare RLN with" in form.explanation.text()
    settings = form.training.settings()
    assert (settings.architecture, settings.variant) == ("care", "paper")
    dock.copy_button.copy_command()
    assert "--architecture care" in clipboard.text()
    form.training.show_settings(dataclasses.replace(settings, **TINY | {"steps": 2}))
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    entry = {entry.name: entry for entry in library.entries()}["mine"]
    assert (entry.architecture, entry.needs_psf) == ("CARE", False)
    assert "CARE" in dock.models.details.text()
    form.architecture.setCurrentText("RLN")
    assert form.plan().initial_model.name == "universal"
    assert form.training.settings().architecture == "rln"


def test_the_psf_that_the_file_of_the_image_states_is_computed(open_dock, viewer, idle):
    _, page = open_dock("Train")
    button = page.form.compute_button
    assert not button.isVisibleTo(page)
    optics = Optics(modality="widefield", na=1.2, immersion_index=1.333, wavelength_um=0.5)
    layer = viewer.add_image(
        np.ones((5, 16, 16), np.float32), name="cells", scale=(0.3, 0.1, 0.1), units=("um",) * 3,
        metadata={OPTICS: optics.as_json()},
    )  # fmt: skip
    page.form.image.layer = layer
    assert button.isVisibleTo(page)
    button.click()
    idle(page.from_file.jobs)
    psf = viewer.layers["PSF of cells"]
    assert page.form.psf.layer == psf
    assert not psf.visible
    assert record_of(psf).facts["optics"]["stated"]["na"] == 1.2
    assert not button.isVisibleTo(page)
