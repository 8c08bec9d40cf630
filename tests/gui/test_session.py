"""A whole session, click by click: sample, PSF, training, comparison, views, figure."""

import gc
from pathlib import Path

import numpy as np
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from napari_rln.gui.layers import record_of


def test_from_a_stack_to_a_figure(open_dock, library, idle, tmp_path, viewer, qtbot):
    viewer.open_sample("napari-rln", "bead")
    viewer.layers.remove("bead_psf")
    image = viewer.layers["bead"]
    # A part of it, with voxels as they are, computes faster.
    image.data = np.ascontiguousarray(image.data[10:42, 12:52, 12:52])

    _, dock = open_dock("PSF")
    dock.image.layer = image
    fields = dock.microscope.form.fields
    fields["modality"].value, fields["fwhm_um"].value = "gaussian", (0.5, 0.25, 0.25)
    fields["size"].value = (15, 11, 11)
    dock.microscope.button.click()
    idle(dock.jobs)
    psf = dock.psf.layer
    assert record_of(psf).method == "psf compute"
    np.testing.assert_allclose(psf.scale, image.scale)

    _, dock = open_dock("Train")
    dock.form.psf.layer, dock.form.image.layer = psf, image
    form = dock.form.training
    for name, value in {
        "steps": 6, "validate": 1, "validate_every": 3, "examples": 2, "shape": (32, 32, 32),
        "patch": 16, "batch": 2, "start_iterations": 3,
    }.items():  # fmt: skip
        form.fields[name].value = value
    dock.form.name.setText("mine")
    dock.bar.run_button.click()
    idle(dock.jobs, 120)
    assert "mine" in library.names(), dock.bar.message.text()

    _, dock = open_dock("Deconvolve")
    dock.image.layer, dock.psf.layer = image, psf
    dock.methods.rows[1].check.setChecked(False)
    dock.methods.add_model("mine")
    dock.methods.rows[0].form.fields["iterations"].value = 8
    dock.bar.run_button.click()
    idle(dock.jobs, 120)
    rows = dock.compare.table.comparison.rows
    assert [row.name for row in rows] == ["bead", "bead · RLD 8", "bead · RLN mine"]
    assert all(np.isfinite(row.chi2) for row in rows)
    assert record_of(viewer.layers["bead · RLN mine"]).facts["model"]["method"] == "train"

    _, dock = open_dock("Lateral and axial views")
    names = {column.layer.name for column in dock.columns}
    assert {"bead", "bead · RLD 8", "bead · RLN mine"} <= names
    figure = tmp_path / "figure.png"
    dock.export(str(figure))
    idle(dock.jobs)
    assert figure.stat().st_size > 10_000

    # The results, written and read by the plugin, say how they were made.
    path = str(tmp_path / "result.ome.tif")
    viewer.layers["bead · RLN mine"].save(path, plugin="napari-rln")
    viewer.open(path, plugin="napari-rln")
    assert record_of(viewer.layers[-1]).method == "rln"
    assert not [p for p in Path(tmp_path).rglob("*") if p.name.startswith(".")]

    # Closing leaves nothing of ours behind, once what ran in threads has ended.
    viewer.close()

    def left():
        gc.collect()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        kinds = {type(widget) for widget in QApplication.allWidgets()}
        return {kind for kind in kinds if kind.__module__.startswith(("napari_rln", "pyqtgraph"))}

    qtbot.waitUntil(lambda: not left(), timeout=30_000)
