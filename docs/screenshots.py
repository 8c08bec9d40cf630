"""Pictures of the docks for the documentation: drives the plugin as a user would.

`python docs/screenshots.py --help`; without a screen in
`xvfb-run --server-args="-screen 0 1600x1000x24"`. Of the bead, which comes with the package, or of
a nucleus (`--nucleus FILE`, widefield DAPI at NA 1.45, oil, 461 nm), whose PSF is computed.
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
from qtpy.QtWidgets import QApplication

from napari_rln.gui import preferences
from napari_rln.library import Library

SIZES = {"large": (1600, 1000), "small": (1280, 800)}
PSF, DECONVOLVE, TRAINING, VIEWS = (
    "PSF", "Deconvolve and compare", "Training", "Lateral and axial views",
)  # fmt: skip


def until(done: Callable[[], bool], seconds: float = 900) -> None:
    """Run the event loop until something is so."""
    end = time.monotonic() + seconds
    while not done():
        QApplication.processEvents()
        time.sleep(0.002)
        if time.monotonic() > end:
            raise TimeoutError(f"not done after {seconds} s")


def settle(seconds: float = 1.0) -> None:
    """Run the event loop for a while, so that everything is drawn."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def idle(jobs: Any) -> None:
    """Run the event loop until no work is under way."""
    until(lambda: not (jobs.running or jobs.waiting or jobs.leaving))


class Session:
    """A viewer with an image, and where its pictures go."""

    def __init__(self, folder: Path, name: str, size: tuple[int, int], theme: str) -> None:
        self._folder, self._name = folder, name
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*size)
        self.viewer.theme = theme
        self._docks: list[Any] = []

    def open(self, title: str) -> Any:
        """Open a dock, alone."""
        for dock in self._docks:
            dock.setVisible(False)
        dock, widget = self.viewer.window.add_plugin_dock_widget("napari-rln", title)
        dock.setVisible(True)
        self._docks.append(dock)
        return widget

    def shoot(self, what: str) -> None:
        """Save a picture of the window."""
        settle()
        path = self._folder / f"{self._name}-{what}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        print(path)


def drive(session: Session, *, steps: int) -> None:
    """Go through all docks: PSF, deconvolve and compare, views, training."""
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
    idle(dock.looks)
    session.shoot("psf")
    psf.visible = False

    docks[DECONVOLVE] = dock = session.open(DECONVOLVE)
    dock.image.layer, dock.psf.layer = image, psf
    until(lambda: "RLN universal: about" in dock.costs.text())
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
    dock.recipe.image.layer, dock.recipe.psf.layer = image, psf
    session.shoot("training-settings")
    dock.recipe.form.fields["steps"].value = steps
    dock.bar.run_button.click()
    until(lambda: dock.jobs.running is None or "training" in dock.bar.message.text())
    settle(25)
    session.shoot("training")
    dock.jobs.cancel()
    idle(dock.jobs)


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--nucleus", type=Path)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--steps", type=int, default=400, help="of the training")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    # A training that is cancelled stays to be gone on with: not among the user's own.
    folder = tempfile.TemporaryDirectory()
    preferences.library = lambda: Library(Path(folder.name))
    name = "nucleus" if given.nucleus else "bead"
    session = Session(given.out, name, SIZES[given.size], given.theme)
    if given.nucleus:
        session.viewer.open(given.nucleus, plugin="napari-rln")
    else:
        session.viewer.open_sample("napari-rln", "bead")
        session.viewer.open_sample("napari-rln", "bead_psf")
    drive(session, steps=given.steps)
    session.viewer.close()


if __name__ == "__main__":
    main()
