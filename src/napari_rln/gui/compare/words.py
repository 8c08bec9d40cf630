"""What the page says about results, as rich text."""

import html
from collections.abc import Iterable

from napari_rln.evaluate.verdict import Verdict
from napari_rln.gui.theme import ERROR, OK, WARNING

NOTHING = (
    "Nothing to compare yet: run a method on the page Deconvolve, or open results and their image. "
    "They appear here side by side, with what they are worth."
)
COMPARING = "Comparing the results with the image\N{HORIZONTAL ELLIPSIS}"
"""What is said until there are verdicts."""

_COLOURS = {"good": OK, "fair": WARNING, "poor": ERROR}


def words_of(found: Iterable[Verdict], title: str = "") -> str:
    """Return verdicts as rich text, one line each with a dot in the colour of its quality."""
    dot = "\N{BLACK CIRCLE}"
    above = f'<p style="margin: 4px 0 0 0">{html.escape(title)}</p>' if title else ""
    return above + "".join(
        f'<p style="margin: 2px 0"><span style="color: {_COLOURS[verdict.quality]}">{dot}</span> '
        f"<b>{html.escape(verdict.name)}</b> {html.escape(verdict.text)}</p>"
        for verdict in found
    )


def not_compared(names: Iterable[str]) -> str:
    """Return what can be done with results that are not compared yet."""
    results = ", ".join(f"<b>{html.escape(name)}</b>" for name in names)
    return f"Open: {results}. Press Compare to measure them against the image."


def without_image(names: Iterable[str]) -> str:
    """Return what is missing for results whose image is not open."""
    results = ", ".join(f"<b>{html.escape(name)}</b>" for name in names)
    return f"Open: {results}, but not their image. Open it too, to compare them with it."
