"""Texts of a figure: its caption, and names that fit a width."""

import re
from functools import lru_cache

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from napari_rln.evaluate.figure_content import FigureContent, FigureSettings

UM = "\N{MICRO SIGN}m"
SMALL, MEDIUM = 6.5, 7.5  # points

_POINTS = 72  # per inch
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# A line may end after white space, and after what joins the parts of a file's name.
_PIECE = re.compile(r"(?:[^\s_./,;+-]|\.(?=\d))*[\s_./,;+-]*")


def fit_text(text: str, width: float, points: float, lines: int) -> str:
    """Return a text wrapped to a width in inches, at a font size in points.

    If it has more than ``lines`` lines, its middle is left out: names of results begin with that of
    the image and end with that of the method.
    """
    text = " ".join(text.split())
    wrapped = _wrap(text, width, points)
    if len(wrapped) > lines:
        low, high = 0, len(text)  # binary search for the number of characters kept
        while high - low > 1:
            kept = (low + high) // 2
            if len(_wrap(_shortened(text, kept), width, points)) <= lines:
                low = kept
            else:
                high = kept
        wrapped = _wrap(_shortened(text, low), width, points)
    return "\n".join(wrapped)


def caption(view: FigureContent, settings: FigureSettings, *, is_given: bool) -> str:
    """Return the lines that state the planes and the displayed range of intensities.

    The display of each column ``is_given``, or made from the settings.
    """
    return f"{_cut(view, settings)} Display range: {_ranges(view, settings, is_given=is_given)}"


def _cut(view: FigureContent, settings: FigureSettings) -> str:
    """Return the sentence on the planes that are shown: one, a mean, or a projection."""
    depths = view.depths
    if set(depths.values()) == {1}:
        return "One plane."
    planes = ", ".join(f"{count} in {plane}" for plane, count in depths.items())
    slab = "" if settings.slab_um is None else f"slab {settings.slab_um:g} {UM}, "
    kind = "maximum projection" if settings.projection == "max" else "mean"
    text = f"{slab}{kind} (planes: {planes})."
    return text[0].upper() + text[1:]


def _ranges(view: FigureContent, settings: FigureSettings, *, is_given: bool) -> str:
    """Return the end of the sentence on the displayed ranges."""
    columns = view.columns
    if is_given:
        ranges = ", ".join(
            f"{_number(low, high)} to {_number(high, high)}"
            + ("" if c.display.gamma == 1 else f" (gamma {c.display.gamma:g})")
            for c in columns
            for low, high in [c.limits]
        )
        return f"{ranges}{', in the order of the columns' if len(columns) > 1 else ''}."
    if settings.contrast == "own":
        low, high = 100 - settings.contrast_percentile, settings.contrast_percentile
        return (
            f"each column from its own percentile {low:.4g} to {high:.4g}, "
            f"gamma {settings.gamma:g}."
        )
    names = {"raw": "raw", "result": "deconvolved", "truth": "truth"}
    limits = {names[c.role]: c.limits for c in columns}
    ranges = ", ".join(
        f"{role} {_number(low, high)} to {_number(high, high)}"
        for role, (low, high) in limits.items()
    )
    return f"{ranges}; gamma {settings.gamma:g}."


def _number(value: float, largest: float) -> str:
    """Return a number with the decimals that the largest one needs for three digits."""
    digits = max(2 - int(np.floor(np.log10(max(abs(largest), 1e-9)))), 0)
    return f"{value:,.{digits}f}"


def _shortened(text: str, kept: int) -> str:
    """Return a text without its middle, with a number of its characters."""
    end = kept // 2
    return text[: kept - end] + _ELLIPSIS + text[len(text) - end :]


def _wrap(text: str, width: float, points: float) -> list[str]:
    """Return the lines of a text; a word wider than a line is divided."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if line and _inches(line + piece.rstrip(), points) > width:
            lines.append(line.rstrip())
            line = ""
        for character in piece:
            if line and _inches((line + character).rstrip(), points) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line.rstrip()]


@lru_cache(maxsize=4096)
def _inches(text: str, points: float) -> float:
    """Return the width of a text."""
    font = FontProperties(size=points)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / _POINTS
