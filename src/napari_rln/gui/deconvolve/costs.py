"""Label with the memory and the approximate time that the chosen methods need."""

from collections.abc import Callable

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import interruptible
from napari_rln.core.report import duration
from napari_rln.core.volume import Shape
from napari_rln.engine.history import expected_seconds
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.forms import with_labels
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps

_DELAY_MS = 400  # after a change, as others may follow


class Costs(QLabel):
    """Label with a line for every method; empty while ``plan`` raises a :class:`RlnError`.

    ``plan`` returns functions that return what a method needs as text, by the method's description.
    """

    def __init__(self, plan: Callable[[], dict[str, Callable[[], str]]]) -> None:
        super().__init__()
        self._plan = plan
        self.jobs = JobQueue(self)
        self.setWordWrap(True)
        self.setToolTip(
            "<p>Additional memory, and the time that earlier runs of the method on this machine "
            "suggest. Choose a region, or a result on disk, if it is too much.</p>"
        )
        self._timer = QTimer(self, singleShot=True, interval=_DELAY_MS)
        self._timer.timeout.connect(self._estimate)
        self.jobs.failed.connect(lambda: self.setText(""))

    def refresh(self) -> None:
        """Update the text after a short delay."""
        self._timer.start()

    def _estimate(self) -> None:
        try:
            plan = self._plan()
        except RlnError:  # shown when the user runs it
            self.setText("")
            return

        def steps() -> Steps[str]:
            yield None
            lines = (_line(name, needs) for name, needs in plan.items())
            return (yield from interruptible(lambda: "\n".join(lines)))

        if self.jobs.running is None:
            self.jobs.add(BackgroundJob("needs", steps, done=self.setText))
        else:
            self._timer.start()


def _line(name: str, needs: Callable[[], str]) -> str:
    """Return what a method needs, or why it cannot run."""
    try:
        return f"{name}: {needs()}"
    except RlnError as error:
        return f"{name}: {with_labels(str(error))}"


def needs_in_memory(chosen: ChosenMethod, image: Shape, psf: Shape | None, views: int = 1) -> str:
    """Return memory and approximate time as text, and the free memory where that is less.

    The shapes (z, y, x) are on one grid; ``views`` images are registered and deconvolved together.
    """
    device = resolve_device(preferences.device())
    needed = views * chosen.method.needed_bytes(image, psf)
    seconds = expected_seconds(chosen.method, device.type, views * image[0] * image[1] * image[2])
    time = "" if seconds is None else f"{duration(seconds, approximate=True)}, "
    free = free_bytes(device)
    text = f"{time}{needed / 1e9:.2g}\N{NO-BREAK SPACE}GB" + ", once registered" * (views > 1)
    return text if needed <= free else f"{text}, but only {free / 1e9:.2g} GB are free"
