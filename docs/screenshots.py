"""Screenshots of the docks for the documentation.

`python docs/screenshots.py --help`; without a screen in
`xvfb-run --server-args="-screen 0 1600x1000x24"`. The image is the shipped bead, a nucleus
(`--nucleus FILE`, widefield DAPI at NA 1.45, oil, 461 nm) with a computed PSF, a synthetic volume
deconvolved on disk, and a batch (`--on-disk`), or two synthetic views (`--two-views`).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import napari
import numpy as np
import zarr
from qtpy.QtWidgets import QApplication, QWidget
from scipy.signal import fftconvolve

import napari_rln as rln
from napari_rln.deconvolution.views import rotated
from napari_rln.gui import preferences
from napari_rln.networks.library import Library
from napari_rln.simulate.structures import draw

SIZES = {"large": (1600, 1000), "small": (1280, 800)}
PSF, DECONVOLVE, TRAINING, VIEWS = (
    "PSF", "Deconvolve and compare", "Training", "Lateral and axial views",
)  # fmt: skip


def until(done: Callable[[], bool], seconds: float = 900) -> None:
    """Run the event loop until a condition holds."""
    end = time.monotonic() + seconds
    while not done():
        QApplication.processEvents()
        time.sleep(0.002)
        if time.monotonic() > end:
            raise TimeoutError(f"condition not met after {seconds} s")


def settle(seconds: float = 1.0) -> None:
    """Run the event loop for some seconds, so that everything is drawn."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def idle(jobs: Any) -> None:
    """Run the event loop until no job runs or waits."""
    until(lambda: not (jobs.running or jobs.waiting or jobs.cancelling))


class Session:
    """A viewer, and the folder of its screenshots."""

    def __init__(self, folder: Path, name: str, size: tuple[int, int], theme: str) -> None:
        self._folder, self._name = folder, name
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*size)
        self.viewer.theme = theme
        self._docks: list[Any] = []

    def open(self, title: str) -> Any:
        """Open a dock and hide the others."""
        for dock in self._docks:
            dock.setVisible(False)
        dock, widget = self.viewer.window.add_plugin_dock_widget("napari-rln", title)
        dock.setVisible(True)
        self._docks.append(dock)
        return widget

    def shoot(self, what: str, window: QWidget | None = None) -> None:
        """Save a screenshot of napari's window, or of another one."""
        settle(1 if window is None else 0.2)
        path = self._folder / f"{self._name}-{what}.png"
        if window is None:
            self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        else:
            window.grab().save(str(path))
        print(path)


def drive(session: Session, *, steps: int) -> None:
    """Use all docks: PSF, deconvolve and compare, views, training."""
    viewer = session.viewer
    image = viewer.layers[0]
    middle = np.mean(image.extent.world, axis=0)
    brightest = np.argmax(image.data.std(axis=(1, 2))) * image.scale[0]
    viewer.dims.set_point(range(3), (brightest, *middle[1:]))
    docks = {}
    docks[PSF] = dock = session.open(PSF)
    dock.image.layer = image
    if len(viewer.layers) == 1:  # the nucleus comes without a PSF: compute it
        fields = dock.microscope.form.fields
        fields["na"].value, fields["immersion_index"].value = 1.45, 1.512
        fields["wavelength_um"].value = 0.461
        dock.microscope.button.click()
        idle(dock.jobs)
    psf = viewer.layers[1]
    dock.psf.layer = psf
    settle(2)
    idle(dock.examinations)
    session.shoot("psf")
    psf.visible = False

    docks[DECONVOLVE] = dock = session.open(DECONVOLVE)
    dock.image.layer, dock.psf.layer = image, psf
    until(lambda: "RLN universal: " in dock.costs.text())
    dock.bar.run_button.click()
    until(lambda: len(viewer.layers) > 2)
    settle(2)
    session.shoot("streaming")
    idle(dock.jobs)
    session.shoot("deconvolve")
    dock.results.side_by_side.setChecked(False)

    docks[VIEWS] = dock = session.open(VIEWS)
    dock.inset.setChecked(True)
    dock.brightest_button.click()
    idle(dock.jobs)
    dock.profile_on.setCurrentText("profile in xz")
    session.shoot("views")

    docks[TRAINING] = dock = session.open(TRAINING)
    dock.form.image.layer, dock.form.psf.layer = image, psf
    session.shoot("training-settings")
    dock.form.training.fields["steps"].value = steps
    dock.bar.run_button.click()
    until(lambda: dock.jobs.running is None or "training" in dock.bar.message.text())
    settle(25)
    session.shoot("training")
    dock.jobs.cancel()
    idle(dock.jobs)


def drive_on_disk(session: Session, folder: Path) -> None:
    """Deconvolve a synthetic volume on disk, its upper left first; then a batch."""
    imaging = rln.simulate.ImagingSettings(photons=(200.0, 200.0), background=(20.0, 20.0))
    microscope = rln.psf.MicroscopeSettings(na=1.1, immersion_index=1.33, sample_index=1.33)
    psf = rln.psf.compute_psf(microscope, (0.2, 0.1, 0.1), planes=31)
    psf = rln.psf.prepare_psf(psf, rln.psf.PrepareSettings(max_size=(31, 31, 31)))
    structures = rln.simulate.StructureSettings(structures=("tubes", "shells"))
    quarter = rln.simulate.simulate_pair(
        psf, structures, imaging, shape=(64, 384, 384), seed=0
    ).image
    data = np.concatenate([quarter.data, quarter.data[:, ::-1]], axis=1)
    data = np.concatenate([data, data[:, :, ::-1]], axis=2).astype(np.uint16)
    tissue, single = folder / "tissue.zarr", folder / "psf.ome.tif"
    zarr.create_array(tissue, data=data, chunks=(64, 64, 64), dimension_names="zyx")
    rln.write(psf, single)
    for number in range(4):
        part = quarter.with_data(quarter.data[:, 96 * number :][:, :96, :192])
        rln.write(part, folder / f"well-{number}.ome.tif")

    viewer = session.viewer
    viewer.add_image(
        zarr.open_array(tissue, mode="r"), name="tissue", scale=quarter.voxel_um,
        units=("um",) * 3, axis_labels=("z", "y", "x"),
    )  # fmt: skip
    viewer.open(str(single), plugin="napari-rln")
    viewer.layers[1].visible = False
    viewer.dims.set_current_step(0, 32)
    dock = session.open(DECONVOLVE)
    dock.image.layer, dock.psf.layer = viewer.layers[0], viewer.layers[1]
    dock.methods.rln.setChecked(False)
    dock.destination.execution.fields["tile"].value = 192
    dock.methods.rld_form.fields["iterations"].value = 20
    viewer.scene.camera.center = (0, 60, 60)
    viewer.scene.camera.zoom *= 2
    until(lambda: "RLD: " in dock.costs.text())
    dock.bar.run_button.click()
    until(lambda: "writing 5 of" in dock.bar.message.text())
    viewer.reset_view()
    session.shoot("streaming")
    dock.jobs.cancel()
    idle(dock.jobs)
    dock.batch_button.click()
    batch = dock.batch
    batch.inputs.clear()
    batch.folder.line.setText(str(folder))
    batch.add(*(str(folder / f"well-{number}.ome.tif") for number in range(4)))
    batch.bar.run_button.click()
    until(lambda: batch.table.rowCount() and batch.table.item(2, 3).text() != "waiting")
    session.shoot("batch", batch)
    dock.jobs.cancel()
    idle(dock.jobs)


def drive_two_views(session: Session, folder: Path) -> None:
    """Deconvolve two synthetic views, taken by objectives at right angles."""
    voxel_um, shape = (0.1, 0.1, 0.1), (80, 112, 112)
    cross = [
        np.exp(-0.5 * ((np.arange(25) - 12) / sigma) ** 2) for sigma in (4.0, 1.4, 1.4)
    ]  # of a light sheet, in voxels
    front = np.einsum("i,j,k->ijk", *cross)
    side = front.transpose(2, 1, 0)
    structures = rln.simulate.StructureSettings(structures=("filaments", "shells"))
    light = draw(shape, structures, seed=3).data
    light *= 400 / light.max()
    for seed, (name, data) in enumerate((("front", front), ("side", side))):
        psf = rln.Volume.from_array(data / data.sum(), voxel_um)
        expected = fftconvolve(light, psf.data, mode="same").clip(0) + 10
        image = rln.Volume.from_array(np.random.default_rng(seed).poisson(expected), voxel_um)
        if name == "side":  # in the orientation of its own camera
            image, psf = (rotated(volume, "y-90") for volume in (image, psf))
        rln.write(image, folder / f"{name}.ome.tif")
        rln.write(psf, folder / f"psf {name}.ome.tif")
        for kind in (name, f"psf {name}"):
            session.viewer.open(str(folder / f"{kind}.ome.tif"), plugin="napari-rln")
    layers = {layer.name: layer for layer in session.viewer.layers}
    for name, layer in layers.items():
        layer.visible = name == "front"
    dock = session.open(DECONVOLVE)
    dock.image.layer, dock.psf.layer = layers["front"], layers["psf front"]
    dock.second.image.layer, dock.second.psf.layer = layers["side"], layers["psf side"]
    dock.second.form.fields["rotation"].value = "y+90"
    until(lambda: "RLD: " in dock.costs.text())
    dock.bar.run_button.click()
    idle(dock.jobs)
    session.viewer.dims.order = (1, 0, 2)
    session.viewer.reset_view()
    session.shoot("deconvolve")

    form = (training := session.open(TRAINING)).form
    for layer in {*session.viewer.layers} - {*layers.values()}:
        session.viewer.layers.remove(layer)
    session.viewer.dims.order = (0, 1, 2)
    form.psf.layer, form.image.layer = layers["psf front"], layers["front"]
    form.preset.setCurrentText("Full training")
    form.second.box.setCurrentText("two, each")
    form.second.psf.layer = layers["psf side"]
    form.second.form.fields["rotation"].value = "y+90"
    form.structures.fields["structures"].value = ("filaments", "shells")
    form.preview_button.click()
    until(lambda: "preview \N{MIDDLE DOT} truth" in session.viewer.layers)
    idle(training.pairs.jobs)
    session.shoot("training")


def main() -> None:
    """Take the screenshots named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--nucleus", type=Path)
    parser.add_argument("--on-disk", action="store_true")
    parser.add_argument("--two-views", action="store_true")
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--steps", type=int, default=400, help="steps of the training")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    # A cancelled training can be resumed: keep it apart from the user's own.
    folder = tempfile.TemporaryDirectory()
    preferences.library = lambda: Library(Path(folder.name))
    kinds = {"on-disk": args.on_disk, "two-views": args.two_views, "nucleus": args.nucleus}
    name = next((name for name, on in kinds.items() if on), "bead")
    session = Session(args.out, name, SIZES[args.size], args.theme)
    if args.on_disk or args.two_views:
        (drive_on_disk if args.on_disk else drive_two_views)(session, Path(folder.name))
        session.viewer.close()
        return
    if args.nucleus:
        session.viewer.open(args.nucleus, plugin="napari-rln")
    else:
        session.viewer.open_sample("napari-rln", "bead")
    drive(session, steps=args.steps)
    session.viewer.close()


if __name__ == "__main__":
    main()
