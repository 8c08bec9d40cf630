"""Parts of a window that are made when they are first shown or needed."""

from collections.abc import Callable

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rln.gui.layouts import fill


class Deferred(QWidget):
    """A place for a part that is made when it is first shown: napari's window does not wait.

    ``make`` returns the part.
    """

    def __init__(self, make: Callable[[], QWidget]) -> None:
        super().__init__()
        self._make: Callable[[], QWidget] | None = make
        fill(QVBoxLayout(self), margin=0)

    @property
    def is_made(self) -> bool:
        """Whether there is the part."""
        return self._make is None

    def made(self) -> None:
        """Make the part, unless there is one."""
        make, self._make = self._make, None
        if make is not None:
            fill(self.layout(), make())

    def setVisible(self, on: bool) -> None:
        """Make the part before it is shown."""
        if on:
            self.made()
        super().setVisible(on)
