"""Button that opens a page of the documentation."""

from importlib.metadata import metadata

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QToolButton


class HelpButton(QToolButton):
    """A small button with a question mark.

    ``page`` is the name of a guide, such as ``"psf"``, and ``anchor`` a heading in it, such as
    ``"measured-from-beads"``.
    """

    def __init__(self, page: str, anchor: str = "") -> None:
        super().__init__()
        self.url = documentation_url(page, anchor)
        self.setText("?")
        self.setAutoRaise(True)
        self.setToolTip("<p>Click to read about this in the documentation, in your browser.</p>")
        self.clicked.connect(lambda: QDesktopServices.openUrl(QUrl(self.url)))


def documentation_url(page: str, anchor: str = "") -> str:
    """Return the address of a page of the documentation."""
    urls = dict(url.split(", ", 1) for url in metadata("napari-rln").get_all("Project-URL") or ())
    return f"{urls['Documentation']}/{page}.html" + (f"#{anchor}" if anchor else "")
