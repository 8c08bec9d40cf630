"""A study from the dock: its choices, its cells as they are finished, the answer, the report."""

import csv
import dataclasses
import json

import pytest

from napari_rln.gui.deconvolve import study_window
from napari_rln.study import quick


@pytest.fixture
def dock(open_dock, viewer, monkeypatch, tmp_path):
    """Return the dock with the PSF of the bead, and a small study chosen."""
    monkeypatch.setattr(quick, "_SIDE", (16, 16, 16))
    viewer.open_sample("napari-rln", "bead")
    psf = viewer.layers["bead_psf"]
    psf.data = psf.data[26:39, 26:39, 26:39]
    _, widget = open_dock("Deconvolve")
    widget.psf.layer = psf
    widget.windows.study_button.click()
    small = quick.QuickStudy(
        structures=("dots",), classical=("Richardson-Lucy",), networks=(), images=1
    )
    widget.windows.study.form.show_settings(small)
    return widget


def test_a_study_shows_its_cells_and_gives_an_answer(dock, idle, tmp_path, monkeypatch):
    study = dock.windows.study
    study.bar.run_button.click()
    assert "Choose the folder" in study.bar.message.text()
    study.folder.line.setText(str(tmp_path))
    study.bar.run_button.click()
    idle(dock.jobs)
    assert not study.bar.message.property("error"), study.bar.message.text()
    with (tmp_path / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert study.table.rowCount() == len(cells) == 5 * 3 * 3  # methods, photons, conditions
    shown = {study.table.item(row, 0).text() for row in range(study.table.rowCount())}
    assert shown == {row["method"] for row in cells}
    assert "RLN universal" in shown
    answer = study.answer.toPlainText()
    assert answer.startswith("Best image: ")
    assert "Which gives the best image, by PSNR?" in answer
    config = json.loads((tmp_path / "study.json").read_text())
    assert "psf-" in config["psf"][0]["file"]
    opened = []
    monkeypatch.setattr(study_window.QDesktopServices, "openUrl", opened.append)
    study.report_button.click()
    assert opened[0].toLocalFile() == str(tmp_path / "report.html")
    # Finished cells are kept: a second run computes nothing, and shows the same answer.
    before = study.answer.toPlainText()
    study.bar.run_button.click()
    idle(dock.jobs)
    assert study.table.rowCount() == 0
    assert study.answer.toPlainText() == before


def test_a_study_of_another_configuration_is_refused(dock, idle, tmp_path):
    study = dock.windows.study
    (tmp_path / "wrong.toml").write_text('name = "x"\nphotns = [3]\n')
    study.folder.line.setText(str(tmp_path))
    study.configuration.setText(str(tmp_path / "wrong.toml"))
    study.bar.run_button.click()
    idle(dock.jobs)
    assert "photns" in study.bar.message.text()
    assert "photons" in study.bar.message.text()
    assert not study.report_button.isEnabled()


def test_a_network_is_trained_in_the_study(dock, idle, tmp_path, monkeypatch):
    study = dock.windows.study
    steps = {"steps": 2, "validate": 1, "shape": [16, 16, 16], "patch": 16, "examples": 1}
    made = quick.QuickStudy.settings

    def small(self, psf, folder, models):
        settings = made(self, psf, folder, models)
        seeds, photons = settings.seeds[:1], settings.photons[1:2]
        return dataclasses.replace(
            settings, budget=steps, seeds=seeds, photons=photons, conditions=()
        )

    monkeypatch.setattr(quick.QuickStudy, "settings", small)
    study.form.show_settings(quick.QuickStudy(structures=("dots",), networks=("kld",)))
    study.folder.line.setText(str(tmp_path))
    study.bar.run_button.click()
    idle(dock.jobs)
    assert not study.bar.message.property("error"), study.bar.message.text()
    methods = [study.table.item(row, 0).text() for row in range(study.table.rowCount())]
    assert "kld trained" in methods
    assert len(list((tmp_path / "models").glob("*.safetensors"))) == 1


def test_a_cancelled_study_has_a_report_of_its_finished_cells(dock, idle, qtbot, tmp_path):
    study = dock.windows.study
    study.folder.line.setText(str(tmp_path))
    study.bar.run_button.click()
    qtbot.waitUntil(lambda: study.table.rowCount() > 2, timeout=60_000)
    study.bar.cancel_button.click()
    idle(dock.jobs)
    finished = len(list((tmp_path / "cells").glob("*.json")))
    assert 0 < finished < 6 * 3 * 2
    with (tmp_path / "cells.csv").open() as file:
        assert len(list(csv.DictReader(file))) == finished
    assert study.report_button.isEnabled()
    assert "Which gives the best image, by PSNR?" in study.answer.toPlainText()
