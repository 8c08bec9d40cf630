"""How much memory the ticked methods take, and how long runs like them took, before they run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Shape
from napari_rln.engine.history import expected_seconds
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.method_list import ChosenMethod
from napari_rln.gui.forms import worded
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps
from napari_rln.gui.runbar import duration

_WAIT_MS = 400  # after a change: others may follow


class PlannedMethods(NamedTuple):
    """What is to be run.

    Methods, shapes (z, y, x) of the image and the PSF on its voxels, and what says how much a
    method takes, where that is no run of one image in memory.
    """

    methods: Sequence[ChosenMethod]
    image: Shape
    psf: Shape | None
    needs: Callable[[ChosenMethod], str] | None = None


class Costs(QLabel):
    """A line for every method.

    Parameters
    ----------
    plan
        Returns what would be run now, or raises what speaks against it.
    """

    def __init__(self, plan: Callable[[], PlannedMethods]) -> None:
        super().__init__()
        self._plan = plan
        self.jobs = JobQueue(self)
        self.setWordWrap(True)
        self.setToolTip(
            "<p>Memory beside what the program has, and how long runs of the method took on this "
            "machine before.</p>"
        )
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._timer.timeout.connect(self._estimate)
        self.jobs.failed.connect(lambda: self.setText(""))

    def refresh(self) -> None:
        """Say it anew, soon."""
        self._timer.start()

    def _estimate(self) -> None:
        try:
            plan = self._plan()
        except RlnError:  # it is said when it is run
            self.setText("")
            return

        def steps() -> Steps[str]:
            yield None
            return "\n".join(_line(chosen, plan) for chosen in plan.methods)

        if self.jobs.running is None:
            self.jobs.add(BackgroundJob("needs", steps, done=self.setText, quiet=True))
        else:
            self._timer.start()


def _line(chosen: ChosenMethod, plan: PlannedMethods) -> str:
    """Return what a method will take, or why it cannot be run."""
    try:
        needs = plan.needs(chosen) if plan.needs else needs_in_memory(chosen, plan.image, plan.psf)
    except RlnError as error:
        return f"{chosen.name}: {worded(str(error))}"
    return f"{chosen.name}: {needs}"


def needs_in_memory(chosen: ChosenMethod, image: Shape, psf: Shape | None, times: int = 1) -> str:
    """Return memory and a rough time, and what is free where that is less.

    Parameters
    ----------
    chosen
        The method.
    image, psf
        Shapes (z, y, x) on one grid.
    times
        Images that are deconvolved together.
    """
    device = resolve_device(preferences.device())
    needed = times * chosen.method.needed_bytes(image, psf)
    seconds = expected_seconds(chosen.method, device.type, times * image[0] * image[1] * image[2])
    time = "" if seconds is None else f"about {duration(seconds)}, "
    free = free_bytes(device)
    text = f"{time}{needed / 1e9:.2g} GB"
    return text if needed <= free else f"{text}, but only {free / 1e9:.2g} GB are free"
