"""Responsiveness of the plugin: seconds to the first picture, stalls, cost of streaming.

`python benchmarks/gui.py --help`; without a screen in `xvfb-run`. First the plugin's dock is opened
in a fresh napari with the shipped bead, and its methods are run; then a volume of 64x256x256 is
deconvolved in the dock and without a window, in turn. A stall is the longest time in which the
event loop of the window was blocked, sampled every 5 ms. With `--busy` another process keeps one
core busy.
"""

import argparse
import multiprocessing
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
from qtpy.QtCore import QEventLoop, QTimer
from rich.box import HEAVY_HEAD, MARKDOWN
from rich.console import Console
from rich.table import Table

# The rest of the package is imported after the dock has opened, which is measured.

VOXEL_UM = (0.2, 0.1, 0.1)
TITLE, DECONVOLVE, COMPARE, TRAIN = "Deconvolution", "Deconvolve", "Compare", "Train"


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


def idle(jobs: Any) -> None:
    """Run the event loop until no job runs or waits."""
    until(lambda: not (jobs.running or jobs.waiting or jobs.cancelling))


class Watch:
    """Seconds of the wall clock, of all threads, and of the window's thread, since it was made."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), time.thread_time()

    def __str__(self) -> str:
        wall, cpu, window = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return f"{wall:.2f}|{cpu:.2f}|{window:.2f}"


def open_and_run(viewer: Any, stalls: Stalls) -> tuple[Any, list[list[str]]]:
    """Open the dock and run its methods on the bead; return the dock, and rows of the table."""
    rows = []

    def row(name: str, watch: Watch) -> None:
        rows.append([name, *str(watch).split("|"), f"{max(stalls.gaps):.0f}"])

    watch = Watch()
    with stalls.watched():
        _, dock = viewer.window.add_plugin_dock_widget("napari-rln", TITLE)
        until(lambda: dock.is_loaded)
        until(lambda: len(stalls.gaps) > 20)
        row("open the dock", watch)
    page, first = dock.page(DECONVOLVE), len(viewer.layers)
    until(lambda: "GB" in page.costs.text())
    watch = Watch()
    with stalls.watched():
        page.bar.run_button.click()
        until(lambda: len(viewer.layers) > first)
        row("first picture", watch)
        until(lambda: len(viewer.layers) > first + 1)
        row("first result", watch)
        idle(page.jobs)
        row("all results and the table", watch)
    for title in ("PSF", COMPARE, TRAIN):
        watch = Watch()
        with stalls.watched():
            dock.show_page(title)
            count = len(stalls.gaps) + 20
            until(lambda count=count: len(stalls.gaps) > count)
            row(f"go to the page {title}", watch)
    rows += napari_alone(viewer, stalls)
    for layer in [*viewer.layers]:
        viewer.layers.remove(layer)
    return dock, rows


def napari_alone(viewer: Any, stalls: Stalls) -> list[list[str]]:
    """Do by napari alone what a run has to do; return rows of the table."""
    layers, grid = [*viewer.layers], viewer.grid
    grid.enabled = False

    def add() -> None:
        options = {"scale": layers[0].scale, "units": layers[0].units, "contrast_limits": (0, 1)}
        viewer.add_image(layers[0].data.copy(), name="a layer", **options)

    def side_by_side() -> None:
        grid.shape, grid.enabled = (1, 2), True
        for layer in viewer.layers:
            layer.name_overlay.visible = True

    rows = []
    for name, do in (("a new layer", add), ("panels with names", side_by_side)):
        watch = Watch()
        with stalls.watched():
            count = len(stalls.gaps) + 20
            do()
            until(lambda count=count: len(stalls.gaps) > count)
            rows.append(
                [f"napari alone: {name}", *str(watch).split("|"), f"{max(stalls.gaps):.0f}"]
            )
    grid.enabled = False
    return rows


def click(page: Any, dock: Any, viewer: Any, stalls: Stalls) -> dict[str, float]:
    """Run the ticked methods; return seconds to the first update, picture and end."""
    first, compare = len(viewer.layers), dock.page(COMPARE)
    heard: list[float] = []
    began = time.perf_counter()
    page.jobs.reported.connect(lambda *_: heard.append(time.perf_counter() - began))
    with stalls.watched():
        page.bar.run_button.click()
        until(lambda: len(viewer.layers) > first)
        picture = time.perf_counter() - began
        until(lambda: bool(compare.layers()) and compare.layers()[-1].metadata != {})
        until(lambda: page.jobs.running is None or page.jobs.running.title == "comparison")
        ended = time.perf_counter() - began
    gaps = sorted(stalls.gaps)
    page.jobs.cancel()
    idle(page.jobs)
    facts = compare.layers()[-1].metadata["napari-rln"]["facts"]
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


def spin() -> None:
    """Keep one core busy."""
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 256, 256))
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3, help="0 for the opening alone")
    parser.add_argument("--training-s", type=float, default=120, help="0 for none")
    parser.add_argument("--busy", action="store_true", help="with another process on one core")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    other = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    if given.busy:
        other.start()

    viewer = napari.Viewer()
    viewer.open_sample("napari-rln", "bead")
    stalls = Stalls()
    with stalls.watched():
        until(lambda: len(stalls.gaps) > 400)
    still = max(stalls.gaps)
    dock, rows = open_and_run(viewer, stalls)
    state = "one core busy" if given.busy else "idle machine"
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {state}, napari "
        f"{napari.__version__}; longest stall of the idle window {still:.0f} ms"
    )
    columns = ("", "s", "CPU s", "CPU s of the window's thread", "longest stall ms")
    show(columns, rows, "The bead, from a fresh napari", given.markdown)
    if given.rounds:
        measure_streaming(viewer, dock, stalls, given)
    viewer.close()


def measure_streaming(viewer: Any, dock: Any, stalls: Stalls, given: argparse.Namespace) -> None:
    """Print the table of the runs in the dock beside those without a window."""
    from napari_rln.deconvolution.classical import RichardsonLucy
    from napari_rln.engine.in_memory import deconvolve
    from napari_rln.gui import preferences
    from napari_rln.gui.layers import layer_data
    from napari_rln.networks.library import Library
    from napari_rln.networks.network import Network
    from napari_rln.psf.compute import compute_psf
    from napari_rln.psf.microscope import MicroscopeSettings
    from napari_rln.simulate.imaging import ImagingSettings, simulate_pair

    psf = compute_psf(MicroscopeSettings(na=1.2, immersion_index=1.33, size=(31, 31, 31)), VOXEL_UM)
    imaging = ImagingSettings(photons=(300.0, 300.0), background=(0.05, 0.05))
    image = simulate_pair(psf, imaging=imaging, shape=tuple(given.shape), seed=1).image
    # A training that is cancelled stays to be gone on with: not among the user's own.
    folder = tempfile.TemporaryDirectory()
    preferences.library = lambda: Library(Path(folder.name))
    for volume in (image, psf):
        data, options, _ = layer_data(volume)
        viewer.add_image(data, **options)
    page = dock.page(DECONVOLVE)
    dock.show_page(DECONVOLVE)
    page.image.layer, page.psf.layer = viewer.layers
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
        for row, on in zip(page.methods.rows, (rld, rln), strict=True):
            row.check.setChecked(on)
        page.methods.rows[0].form.fields["iterations"].value = iterations
        headless()  # plans, compiles
        found, alone = [], []
        for _ in range(given.rounds):
            alone.append(headless().record.facts["seconds"])
            found.append(click(page, dock, viewer, stalls))
        median = {key: statistics.median(each[key] for each in found) for key in found[0]}
        without = statistics.median(alone)
        rows.append([
            name, f"{median['update']:.2f}", f"{median['picture']:.2f}",
            f"{max(each['stall'] for each in found):.0f}", f"{median['p99']:.0f}",
            f"{without:.2f}", f"{median['computing']:.2f}",
            f"{100 * (median['computing'] / without - 1):+.1f} %",
        ])  # fmt: skip
    if given.training_s:
        watched = watch_training(viewer, dock, stalls, given.training_s)
        rows.append(["training", *watched, "", "", ""])
    columns = (
        "", "first update s", "first picture s", "longest stall ms", "99 % below ms",
        "headless s", "in the dock s", "streaming costs",
    )  # fmt: skip
    title = f"From the click in the dock, {np.prod(given.shape) / 1e6:.1f} Mvoxel"
    show(columns, rows, title, given.markdown)


def watch_training(viewer: Any, dock: Any, stalls: Stalls, seconds: float) -> list[str]:
    """Train for some seconds; return seconds to the first update and picture, and the stalls."""
    dock.show_page(TRAIN)
    page = dock.page(TRAIN)
    page.form.psf.layer, page.form.image.layer = viewer.layers[1], viewer.layers[0]
    heard: list[float] = []
    began = time.perf_counter()
    page.jobs.reported.connect(lambda *_: heard.append(time.perf_counter() - began))
    first = len(viewer.layers)
    with stalls.watched():
        page.bar.run_button.click()
        until(lambda: len(viewer.layers) > first)
        picture = f"{time.perf_counter() - began:.2f}"
        until(lambda: time.perf_counter() - began > seconds)
    gaps = sorted(stalls.gaps)
    page.jobs.cancel()
    idle(page.jobs)
    return [f"{heard[0]:.2f}", picture, f"{gaps[-1]:.0f}", f"{gaps[int(0.99 * len(gaps))]:.0f}"]


def show(columns: tuple[str, ...], rows: list[list[str]], title: str, markdown: bool) -> None:
    """Print a table."""
    table = Table(title=title, box=MARKDOWN if markdown else HEAVY_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
