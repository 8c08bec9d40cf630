"""How long the ticked methods will take, and how much memory, told before they are run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import relay
from napari_rln.core.tiles import Shape
from napari_rln.engine.cost import Cost, rld_cost, rln_cost
from napari_rln.engine.progress import Progress
from napari_rln.engine.speed import CalibrationReport, Speed, calibrate
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.method_list import Method, Rld
from napari_rln.gui.forms import worded
from napari_rln.gui.jobs import Job, Jobs, Steps, Update
from napari_rln.gui.runbar import duration

_WAIT_MS = 400  # after a change: others may follow


class Plan(NamedTuple):
    """What is to be run.

    Methods, shapes (z, y, x) of the image and the PSF on its voxels, and what tells how long a
    method takes, where that is no run in memory.
    """

    methods: Sequence[Method]
    image: Shape
    psf: Shape | None
    ahead: Callable[[Method, Speed], str] | None = None


class Costs(QLabel):
    """A line for every method; this machine is measured once, when the first is asked for.

    Parameters
    ----------
    plan
        Returns what would be run now, or raises what speaks against it.
    busy
        Tells whether something runs.
    """

    def __init__(self, plan: Callable[[], Plan], busy: Callable[[], bool]) -> None:
        super().__init__()
        self._plan, self._busy = plan, busy
        self.jobs = Jobs(self)
        self.speed: Speed | None = None
        self._measured_for = ""  # the device of the preferences, which may be auto
        self.setWordWrap(True)
        self.setToolTip(
            "<p>From a short measurement of this machine, and from where automatic stopping "
            "usually ends.</p>"
        )
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._timer.timeout.connect(self._estimate)
        self.jobs.failed.connect(self._on_failure)

    def refresh(self) -> None:
        """Tell anew, soon."""
        self._timer.start()

    def _estimate(self) -> None:
        try:
            plan = self._plan()
        except RlnError:  # it is said when it is run
            self.setText("")
            return
        device = preferences.device()
        known = self.speed if self._measured_for == device else None
        if known is None and self._busy():  # beside a run both would be slowed down
            return
        self._measured_for = device

        def steps() -> Steps[tuple[Speed, str]]:
            speed = known
            if speed is None:
                speed = yield from relay(calibrate(device), _told)
            yield None
            return speed, "\n".join(_line(method, plan, speed) for method in plan.methods)

        if self.jobs.running is None:
            self.setText(self.text() or "measuring this machine\N{HORIZONTAL ELLIPSIS}")
            quiet = known is not None
            self.jobs.add(Job("calibration", steps, done=self._show, quiet=quiet))
        else:
            self._timer.start()

    def _on_failure(self) -> None:
        self.speed = None
        self.setText("")

    def _show(self, found: tuple[Speed, str]) -> None:
        self.speed, text = found
        self.setText(text)


def _told(report: CalibrationReport) -> Update:
    return Update(Progress(doing="measuring", done=report.done, total=report.total))


def _line(method: Method, plan: Plan, speed: Speed) -> str:
    """Return what a method will take, or why it cannot be run."""
    try:
        if plan.ahead is not None:
            return f"{method.name}: about {plan.ahead(method, speed)}"
        cost = cost_of(method, plan.image, plan.psf, speed)
    except RlnError as error:
        return f"{method.name}: {worded(str(error))}"
    return f"{method.name}: about {in_words(cost)}"


def cost_of(method: Method, image: Shape, psf: Shape | None, speed: Speed) -> Cost:
    """Return what a method takes in memory; shapes (z, y, x) of image and PSF on one grid."""
    if isinstance(method, Rld):
        assert psf is not None
        return rld_cost(image, psf, method.settings, speed)
    return rln_cost(image, psf, method.library.load(method.model), method.settings, speed)


def in_words(cost: Cost) -> str:
    """Return time and memory, and what is free where that is less."""
    text = f"{duration(cost.seconds)}, {cost.bytes / 1e9:.2g} GB"
    return text if cost.fits else f"{text}, but only {cost.free_bytes / 1e9:.2g} GB are free"
