"""Screenshots of napari for the documentation.

`python docs/screenshots.py --help`; without a screen in
`xvfb-run --server-args="-screen 0 1600x1000x24"`. Every scene opens a window of its own and works
in it as a user does: the pictures of the tour at 1280 x 800 pixels, those of the guide at
1600 x 1000. What the docks remember goes to a temporary folder.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Settings, models and speeds apart from the user's own.
os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"]
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))

import microscope_files as microscopes
import napari
import numpy as np
import zarr
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QAbstractButton, QWidget
from scipy.signal import fftconvolve

import napari_rln as rln
from napari_rln.deconvolution.views import rotated
from napari_rln.simulate.structures import draw

TOUR, GUIDE = (1280, 800), (1600, 1000)
HOME = Path(os.environ["XDG_DATA_HOME"])
VIEWS = "Lateral and axial views"
_WIDE = 400  # pixels of the dock in the guide
_LARGEST = 250_000  # bytes of a picture, above which it gets a palette of few colours


def until(done: Callable[[], bool], seconds: float = 1200) -> None:
    """Run the event loop until a condition holds."""
    loop, look, end = QEventLoop(), QTimer(), time.monotonic() + seconds
    look.timeout.connect(lambda: (done() or time.monotonic() > end) and loop.quit())
    look.start(10)
    loop.exec()
    if not done():
        raise TimeoutError(f"condition not met after {seconds} s")


def settle(seconds: float = 1.0) -> None:
    """Run the event loop for some seconds, so that everything is drawn."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def idle(jobs: Any) -> None:
    """Run the event loop until no job runs or waits."""
    until(lambda: not (jobs.running or jobs.waiting or jobs.cancelling))


def press(part: QWidget, text: str) -> None:
    """Press the visible button with a text."""
    found = (b for b in part.findChildren(QAbstractButton) if b.text() == text)
    next(button for button in found if button.isVisibleTo(part)).click()


class Session:
    """A viewer with the plugin's dock, and the folder of its screenshots."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self._folder = folder
        self.viewer = napari.Viewer(show_welcome_screen=False)
        self.dock: Any = None
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        """Resize the window; the guide's has more room for the dock."""
        self._size = size
        self.viewer.window.resize(*size)
        if self.dock is not None and size == GUIDE:
            self.dock.setMinimumWidth(_WIDE)
        settle()

    def open_dock(self) -> None:
        """Open the plugin's dock."""
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-rln", "Deconvolution")
        until(lambda: self.dock.is_loaded)
        self.resize(self._size)

    def page(self, title: str) -> Any:
        """Go to a page of the dock."""
        self.dock.show_page(title)
        settle(0.5)
        return self.dock.page(title)

    def run(self) -> None:
        """Run the methods and wait for the verdicts."""
        page = self.page("Deconvolve")
        page.bar.run_button.click()
        idle(page.jobs)

    def shoot(self, name: str, window: QWidget | None = None) -> None:
        """Save a screenshot of napari's window, or of another one."""
        settle(1 if window is None else 0.3)
        path = self._folder / f"{name}.png"
        if window is None:
            self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        else:
            window.grab().save(str(path))
        with Image.open(path) as picture:
            plain = picture.convert("RGB")
        plain.save(path, optimize=True)
        if path.stat().st_size > _LARGEST:
            few = plain.quantize(256, kmeans=1, dither=Image.Dither.NONE)
            few.save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


def tour_of_bead(folder: Path) -> None:
    """Deconvolve the sample in three clicks."""
    session = Session(folder, TOUR)
    session.open_dock()
    session.shoot("tour-start")
    page = session.page("Deconvolve")
    press(page, "Try it: open a bead with its PSF")
    session.run()
    session.shoot("tour-bead")
    session.viewer.close()


def tour_of_cells(folder: Path) -> None:
    """Deconvolve the channels of a microscope's file, and compare."""
    session = Session(folder, TOUR)
    path = HOME / "cells.czi"
    _write_cells(path)
    session.viewer.open(str(path), plugin="napari-rln")
    session.open_dock()
    session.shoot("tour-cells")
    session.run()
    compare = session.page("Compare")
    session.shoot("tour-compare")
    press(compare, "Swipe or blink two layers")
    compare.before_after.swipe_button.click()
    session.viewer.reset_view()
    session.shoot("tour-swipe")
    session.viewer.close()


def tour_of_batch(folder: Path) -> None:
    """Run a batch on four files."""
    session = Session(folder, TOUR)
    os.chdir(HOME)  # for short paths
    viewer, images = session.viewer, Path("plate")
    images.mkdir()
    quarter, psf = _quarter()
    rln.write(psf, images / "psf.ome.tif")
    for number in range(4):
        part = quarter.with_data(quarter.data[:, 96 * number :][:, :96, :192])
        rln.write(part, images / f"well-{number}.ome.tif")
    for name in ("well-0", "psf"):
        viewer.open(str(images / f"{name}.ome.tif"), plugin="napari-rln")
    session.open_dock()
    page = session.page("Deconvolve")
    page.psf.layer, page.image.layer = viewer.layers["psf"], viewer.layers["well-0"]
    page.windows.batch_button.click()
    batch = page.windows.batch
    batch.inputs.clear()
    batch.folder.line.setText(str(images))
    batch.add(*(str(images / f"well-{number}.ome.tif") for number in range(4)))
    batch.bar.run_button.click()
    until(lambda: batch.table.rowCount() and batch.table.item(2, 3).text() != "waiting")
    settle(2)
    session.shoot("tour-batch", batch)
    page.jobs.cancel()
    idle(page.jobs)
    viewer.close()


def guide_to_psf(folder: Path) -> None:
    """Examine the PSF of the nucleus."""
    session = Session(folder, GUIDE)
    session.viewer.open_sample("napari-rln", "nucleus")
    session.open_dock()
    page = session.page("PSF")
    page.image.layer = session.viewer.layers["nucleus"]
    page.microscope.button.click()
    idle(page.jobs)
    settle()
    idle(page.examinations)
    session.shoot("nucleus-psf")
    session.viewer.close()


def guide_to_nucleus(folder: Path) -> None:
    """Deconvolve and compare the nucleus, and look at it from the side."""
    session = Session(folder, GUIDE)
    viewer = session.viewer
    viewer.open_sample("napari-rln", "nucleus")
    session.open_dock()
    page = session.page("Deconvolve")
    page.image.layer = viewer.layers["nucleus"]
    page.methods.rows[0].gear.click()
    page.bar.run_button.click()
    until(lambda: page.bar.bar.value() > 8)
    session.shoot("nucleus-streaming")
    idle(page.jobs)
    page.methods.rows[0].gear.click()
    session.shoot("nucleus-deconvolve")

    compare = session.page("Compare")
    press(compare, "Residual maps")
    idle(compare._jobs)
    viewer.reset_view()
    viewer.theme = "light"
    session.shoot("nucleus-compare")
    viewer.theme = "dark"
    for result in compare.layers():
        viewer.layers.remove(compare.maps.of(result))
    compare.side_by_side.setChecked(False)

    shown = [viewer.layers["nucleus"], *compare.layers()]
    session.dock.parent().setVisible(False)
    _, views = viewer.window.add_plugin_dock_widget("napari-rln", VIEWS)
    views.setMinimumWidth(_WIDE + 200)
    for row in range(views.layers.count()):
        item = views.layers.item(row)
        is_shown = viewer.layers[item.text()] in shown
        item.setCheckState(Qt.CheckState.Checked if is_shown else Qt.CheckState.Unchecked)
    views.inset.setChecked(True)
    press(views, "Go to the brightest")
    idle(views.jobs)
    views.profile_on.setCurrentText("profile in xz")
    session.shoot("nucleus-views")
    figure = folder / "tour-figure.png"
    views.export(str(figure))
    idle(views.jobs)
    viewer.close()


def training(folder: Path) -> None:
    """Train for the nucleus."""
    session = Session(folder, TOUR)
    viewer = session.viewer
    viewer.open_sample("napari-rln", "nucleus")
    session.open_dock()
    train = session.page("Train")
    train.form.image.layer = viewer.layers["nucleus"]
    train.form.compute_button.click()
    idle(train.from_file.jobs)
    train.form.name.setText("my microscope")
    train.bar.run_button.click()
    until(lambda: len(train.page.curves.steps) > 30 or train.jobs.running is None)
    session.shoot("tour-training")
    session.resize(GUIDE)
    session.shoot("nucleus-training")
    train.bar.cancel_button.click()
    idle(train.jobs)
    viewer.close()


def guide_to_disk(folder: Path) -> None:
    """Deconvolve a synthetic volume on disk, its visible part first."""
    session = Session(folder, GUIDE)
    viewer, place = session.viewer, HOME
    quarter, psf = _quarter()
    data = np.concatenate([quarter.data, quarter.data[:, ::-1]], axis=1)
    data = np.concatenate([data, data[:, :, ::-1]], axis=2).astype(np.uint16)
    tissue = place / "tissue.zarr"
    zarr.create_array(tissue, data=data, chunks=(64, 64, 64), dimension_names="zyx")
    rln.write(psf, place / "psf.ome.tif")
    viewer.open(str(place / "psf.ome.tif"), plugin="napari-rln")
    viewer.layers["psf"].visible = False
    viewer.add_image(
        zarr.open_array(tissue, mode="r"), name="tissue", scale=quarter.voxel_um,
        units=("um",) * 3, axis_labels=("z", "y", "x"),
    )  # fmt: skip
    viewer.dims.set_current_step(0, 32)
    session.open_dock()
    page = session.page("Deconvolve")
    page.image.layer, page.psf.layer = viewer.layers["tissue"], viewer.layers["psf"]
    rld, network = page.methods.rows
    page.methods.remove(network)
    rld.form.fields["iterations"].value = 20
    page.destination.execution.fields["tile"].value = 192
    press(page, "More: region, files, batch, history")
    viewer.scene.camera.center = (0, 60, 60)
    viewer.scene.camera.zoom *= 2
    until(lambda: "GB" in page.costs.text())
    page.bar.run_button.click()
    until(lambda: "deconvolving" in page.bar.message.text() and page.bar.bar.value() > 9)
    viewer.reset_view()
    session.shoot("on-disk-streaming")
    page.jobs.cancel()
    idle(page.jobs)
    viewer.close()


def guide_to_two_views(folder: Path) -> None:
    """Deconvolve two synthetic views, taken by objectives at right angles."""
    session = Session(folder, GUIDE)
    viewer = session.viewer
    _write_two_views(HOME)
    for name in ("psf side", "psf front", "side", "front"):
        viewer.open(str(HOME / f"{name}.ome.tif"), plugin="napari-rln")
    layers = {layer.name: layer for layer in viewer.layers}
    for name, layer in layers.items():
        layer.visible = name == "front"
    session.open_dock()
    page = session.page("Deconvolve")
    press(page, "More: region, files, batch, history")
    page.image.layer, page.psf.layer = layers["front"], layers["psf front"]
    page.second.image.layer, page.second.psf.layer = layers["side"], layers["psf side"]
    page.second.form.fields["rotation"].value = "y+90"
    until(lambda: "GB" in page.costs.text())
    session.run()
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 56)
    viewer.reset_view()
    session.shoot("two-views-deconvolve")

    for layer in {*viewer.layers} - {*layers.values()}:
        viewer.layers.remove(layer)
    viewer.dims.order = (0, 1, 2)
    train = session.page("Train")
    form = train.form
    form.psf.layer, form.image.layer = layers["psf front"], layers["front"]
    form.preset.setCurrentText("Full training")
    press(train, "More")
    form.second.box.setCurrentText("two, each")
    form.second.psf.layer = layers["psf side"]
    form.second.form.fields["rotation"].value = "y+90"
    form.structures.fields["structures"].value = ("filaments", "shells")
    press(train, "Preview a pair")
    until(lambda: "preview \N{MIDDLE DOT} truth" in viewer.layers)
    idle(train.pairs.jobs)
    session.shoot("two-views-training")
    viewer.close()


def _write_cells(path: Path) -> None:
    """Write a CZI of two channels, nuclei and filaments."""
    imaging = rln.simulate.ImagingSettings(photons=(300.0, 300.0), background=(0.05, 0.05))
    channels = []
    for kind, density, wavelength_um, seed in (
        ("nuclei", 2.0, 0.465, 4), ("filaments", 1.0, 0.509, 3),
    ):  # fmt: skip
        optics = rln.psf.MicroscopeSettings(
            na=1.4, immersion_index=1.518, wavelength_um=wavelength_um
        )
        psf = rln.psf.compute_psf(optics, microscopes.VOXEL_UM, planes=32)
        structures = rln.simulate.StructureSettings(structures=(kind,), density=density)
        pair = rln.simulate.simulate_pair(psf, structures, imaging, shape=(32, 192, 192), seed=seed)
        channels.append((pair.image.data + 100).astype(np.uint16))
    blocks = microscopes.czi_planes(np.stack(channels)[None])
    microscopes.write_czi(path, blocks, microscopes.czi_xml())


def _quarter() -> tuple[rln.Volume, rln.Volume]:
    """Return a synthetic image, and its PSF."""
    imaging = rln.simulate.ImagingSettings(photons=(200.0, 200.0), background=(20.0, 20.0))
    microscope = rln.psf.MicroscopeSettings(na=1.1, immersion_index=1.33, sample_index=1.33)
    psf = rln.psf.compute_psf(microscope, (0.2, 0.1, 0.1), planes=31)
    psf = rln.psf.prepare_psf(psf, rln.psf.PrepareSettings(max_size=(31, 31, 31)))
    structures = rln.simulate.StructureSettings(structures=("tubes", "shells"))
    pair = rln.simulate.simulate_pair(psf, structures, imaging, shape=(64, 384, 384), seed=0)
    return pair.image, psf


def _write_two_views(folder: Path) -> None:
    """Write two views of an object with their PSFs, as of light sheets."""
    voxel_um, shape = (0.1, 0.1, 0.1), (80, 112, 112)
    cross = [
        np.exp(-0.5 * ((np.arange(25) - 12) / sigma) ** 2) for sigma in (4.0, 1.4, 1.4)
    ]  # in voxels
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


SCENES: dict[str, Callable[[Path], None]] = {
    scene.__name__.replace("_", "-"): scene
    for scene in (
        tour_of_bead, tour_of_cells, tour_of_batch, training,
        guide_to_psf, guide_to_nucleus, guide_to_disk, guide_to_two_views,
    )
}  # fmt: skip


def main() -> None:
    """Take the screenshots of the scenes named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", choices=[*SCENES, []], help="by default all")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    folder = args.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.scenes or SCENES:
        SCENES[name](folder)


if __name__ == "__main__":
    main()
