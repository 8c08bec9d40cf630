"""Responsiveness of the plugin: seconds to the first picture, stalls, cost of streaming.

`python benchmarks/gui.py --help`; without a screen in `xvfb-run`. A volume of 64x256x256
is deconvolved in the dock and without a window, in turn; a stall is the longest time in which the
event loop of the window was blocked, sampled every 5 ms.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import napari
import numpy as np
import torch
from qtpy.QtCore import QEventLoop, QTimer
from rich.box import HEAVY_HEAD, MARKDOWN
from rich.console import Console
from rich.table import Table

from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.in_memory import deconvolve
from napari_rln.gui import preferences
from napari_rln.gui.layers import layer_data
from napari_rln.networks.library import Library
from napari_rln.networks.network import Network
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair

VOXEL_UM = (0.2, 0.1, 0.1)
DECONVOLVE, TRAINING = "Deconvolve and compare", "Training"


class Stalls:
    """The longest time between two visits of the event loop, in milliseconds."""

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._last, self.gaps = 0.0, list[float]()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(1000 * (now - self._last))
        self._last = now

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the event loop in a block."""
        self.gaps.clear()
        self._last = time.perf_counter()
        self._timer.start()
        try:
            yield
        finally:
            self._timer.stop()


def until(done: Callable[[], bool], seconds: float = 600) -> float:
    """Run the event loop, as napari does, until a condition holds; return the seconds."""
    began = time.perf_counter()
    loop, look = QEventLoop(), QTimer()
    look.timeout.connect(lambda: done() and loop.quit())
    look.start(10)
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()
    if not done():
        raise TimeoutError(f"not done after {seconds} s")
    return time.perf_counter() - began


def click(dock: Any, stalls: Stalls) -> dict[str, float]:
    """Run the ticked methods of the dock; return seconds to the first update, picture and end."""
    viewer, first = dock.viewer, len(dock.viewer.layers)
    heard: list[float] = []
    began = time.perf_counter()
    dock.jobs.reported.connect(lambda *_: heard.append(time.perf_counter() - began))
    with stalls.watched():
        dock.bar.run_button.click()
        until(lambda: len(viewer.layers) > first)
        picture = time.perf_counter() - began
        until(lambda: bool(dock.results.layers()) and dock.results.layers()[-1].metadata != {})
        until(lambda: dock.jobs.running is None or dock.jobs.running.title == "comparison")
        ended = time.perf_counter() - began
    gaps = sorted(stalls.gaps)
    dock.jobs.cancel()
    until(lambda: not (dock.jobs.running or dock.jobs.cancelling))
    facts = dock.results.layers()[-1].metadata["napari-rln"]["facts"]
    for layer in viewer.layers[first:]:
        viewer.layers.remove(layer)
    return {
        "update": heard[0],
        "picture": picture,
        "end": ended,
        "computing": facts["seconds"],
        "stall": gaps[-1],
        "p99": gaps[int(0.99 * len(gaps))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 256, 256))
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training-s", type=float, default=120, help="0 for none")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()

    psf = compute_psf(MicroscopeSettings(na=1.2, immersion_index=1.33, size=(31, 31, 31)), VOXEL_UM)
    imaging = ImagingSettings(photons=(300.0, 300.0), background=(0.05, 0.05))
    image = simulate_pair(psf, imaging=imaging, shape=tuple(given.shape), seed=1).image

    # A training that is cancelled stays to be gone on with: not among the user's own.
    folder = tempfile.TemporaryDirectory()
    preferences.library = lambda: Library(Path(folder.name))
    viewer = napari.Viewer()
    for volume in (image, psf):
        data, options, _ = layer_data(volume)
        viewer.add_image(data, **options)
    _, dock = viewer.window.add_plugin_dock_widget("napari-rln", DECONVOLVE)
    dock.viewer = viewer
    dock.image.layer, dock.psf.layer = viewer.layers
    until(lambda: "GB" in dock.costs.text())
    stalls = Stalls()
    with stalls.watched():
        until(lambda: len(stalls.gaps) > 400)
    idle = max(stalls.gaps)

    kinds: dict[str, tuple[bool, bool, Any, Callable[[], Any]]] = {
        f"RLD {given.iterations}": (
            True, False, given.iterations,
            lambda: deconvolve(image, psf, RichardsonLucy(iterations=given.iterations)),
        ),
        "RLD auto": (True, False, "auto", lambda: deconvolve(image, psf)),
        "RLN universal": (
            False, True, "auto", lambda: deconvolve(image, psf, Network()),
        ),
    }  # fmt: skip
    rows = []
    for name, (rld, rln, iterations, headless) in kinds.items():
        dock.methods.rld.setChecked(rld)
        dock.methods.rln.setChecked(rln)
        dock.methods.rld_form.fields["iterations"].value = iterations
        headless()  # plans, compiles
        found, alone = [], []
        for _ in range(given.rounds):
            alone.append(headless().record.facts["seconds"])
            found.append(click(dock, stalls))
        median = {key: statistics.median(each[key] for each in found) for key in found[0]}
        without = statistics.median(alone)
        rows.append([
            name, f"{median['update']:.2f}", f"{median['picture']:.2f}",
            f"{max(each['stall'] for each in found):.0f}", f"{median['p99']:.0f}",
            f"{without:.2f}", f"{median['computing']:.2f}",
            f"{100 * (median['computing'] / without - 1):+.1f} %",
        ])  # fmt: skip
    if given.training_s:
        rows.append(["training", *watch_training(viewer, stalls, given.training_s), "", "", ""])
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"napari {napari.__version__}, torch {torch.__version__}, {np.prod(given.shape) / 1e6:.1f} "
        f"Mvoxel; longest stall of the idle window {idle:.0f} ms"
    )
    columns = (
        "", "first update s", "first picture s", "longest stall ms", "99 % below ms",
        "headless s", "in the dock s", "streaming costs",
    )  # fmt: skip
    table = Table(
        title="From the click in the dock", box=MARKDOWN if given.markdown else HEAVY_HEAD
    )
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
    viewer.close()


def watch_training(viewer: Any, stalls: Stalls, seconds: float) -> list[str]:
    """Train for some seconds; return seconds to the first update and picture, and the stalls."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-rln", TRAINING)
    dock.form.psf.layer, dock.form.image.layer = viewer.layers[1], viewer.layers[0]
    heard: list[float] = []
    began = time.perf_counter()
    dock.jobs.reported.connect(lambda *_: heard.append(time.perf_counter() - began))
    first = len(viewer.layers)
    with stalls.watched():
        dock.bar.run_button.click()
        until(lambda: len(viewer.layers) > first)
        picture = f"{time.perf_counter() - began:.2f}"
        until(lambda: time.perf_counter() - began > seconds)
    gaps = sorted(stalls.gaps)
    dock.jobs.cancel()
    until(lambda: not (dock.jobs.running or dock.jobs.cancelling))
    return [f"{heard[0]:.2f}", picture, f"{gaps[-1]:.0f}", f"{gaps[int(0.99 * len(gaps))]:.0f}"]


if __name__ == "__main__":
    main()
