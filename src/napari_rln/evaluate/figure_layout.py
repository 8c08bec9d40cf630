"""Where the parts of the comparison figure stand on its page.

Lengths are in inches from the top left of the page, sizes of type in points.
"""

import textwrap
from dataclasses import dataclass

import numpy as np

from napari_rln.evaluate.figure_view import FigureSettings, View

SMALL, MEDIUM, LARGE = 6.5, 7.5, 9.5
GAP = 0.05
_PAGE, _NARROWEST = 7.2, 5.4
_LEFT, _RIGHT = 0.3, 0.08
_WIDEST_COLUMN, _TALLEST_COLUMN = 2.6, 6.0
_PLOT, _BELOW_PLOT, _PLOT_LEFT, _PLOT_GAP = 1.25, 0.42, 0.42, 0.16
_TABLE, _TABLE_GAP = 1.85, 0.15
_LINE = 0.14
_PER_CHARACTER = 0.0082  # width of a character per point of type, about

Box = tuple[float, float, float, float]
"""Left, top, width and height."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A page just large enough for what it holds.

    Attributes
    ----------
    width, height
        Of the page.
    lefts
        Left edge of every column.
    column
        Width of a column.
    inch_per_um
        Scale of the pictures.
    titles
        Of the columns, broken into lines.
    rows
        Label, top and height of every row of pictures; the magnified one is the last.
    inset
        Width of a magnified picture; 0 if there is none.
    plots
        Of the profiles along x and, in a stack, along z; none if they are not wanted.
    table
        Of the profiles' widths, beside the plots.
    note_top
        Top of the line below everything.
    """

    width: float
    height: float
    lefts: tuple[float, ...]
    column: float
    inch_per_um: float
    titles: tuple[str, ...]
    rows: tuple[tuple[str, float, float], ...]
    inset: float
    plots: tuple[Box, ...]
    table: Box
    note_top: float


def resolve_layout(view: View, settings: FigureSettings) -> Layout:
    """Return where the parts of a view stand."""
    depth, height, width = view.extent_um
    first, n = view.columns[0], len(view.columns)
    sizes_um = {"lateral (xy)": height}
    if first.axial is not None:
        sizes_um["axial (xz)"] = depth
    if first.side is not None:
        sizes_um["axial (yz)"] = depth
    widest_um = width if first.side is None else max(width, height)
    column = min(
        (_PAGE - _LEFT - _RIGHT - (n - 1) * GAP) / n,
        _WIDEST_COLUMN,
        _TALLEST_COLUMN * widest_um / sum(sizes_um.values()),
    )
    used = n * column + (n - 1) * GAP
    page = max(_LEFT + used + _RIGHT, _NARROWEST if settings.profile else 0)
    left = _LEFT + (page - _LEFT - used - _RIGHT) / 2
    titles = tuple(_wrapped(c.name, column) for c in view.columns)
    top = (0.3 if settings.title else 0.06) + 0.04
    top += _LINE * (1 + max(title.count("\n") for title in titles))
    inset = 0.0
    if view.inset_um:
        inset = column if first.axial is None else (column - GAP) / 2
    inch_per_um = column / widest_um
    rows, top = _rows(view, sizes_um, inch_per_um, inset, top)
    plot_top = top + 0.08
    plots = _plots(page, plot_top, 1 if first.axial is None else 2) if settings.profile else ()
    note_top = plot_top + _PLOT + _BELOW_PLOT if plots else top + 0.03
    return Layout(
        width=page,
        height=note_top + 0.17,
        lefts=tuple(left + i * (column + GAP) for i in range(n)),
        column=column,
        inch_per_um=inch_per_um,
        titles=titles,
        rows=rows,
        inset=inset,
        plots=plots,
        table=(page - _RIGHT - _TABLE, plot_top, _TABLE, _PLOT),
        note_top=note_top,
    )


def characters(width: float, size: float) -> int:
    """Return about how many characters of a size of type fit a width."""
    return int(width / (_PER_CHARACTER * size))


def _rows(
    view: View, sizes_um: dict[str, float], inch_per_um: float, inset: float, top: float
) -> tuple[tuple[tuple[str, float, float], ...], float]:
    """Return the rows of pictures below a height, and where they end."""
    rows = []
    for label, size_um in sizes_um.items():
        tall = size_um * inch_per_um
        rows.append((_fitting(label, label[-3:-1], tall), top, tall))
        top += tall + GAP
    if view.inset_um:
        magnification = inset / float(np.ptp(view.inset_um[2])) / inch_per_um
        times = f"{magnification:.1f}\N{MULTIPLICATION SIGN}"
        rows.append((_fitting(f"magnified {times}", times, inset), top, inset))
        top += inset + GAP
    return tuple(rows), top


def _plots(page: float, top: float, count: int) -> tuple[Box, ...]:
    """Return the places of plots side by side, left of the table."""
    space = page - _PLOT_LEFT - _TABLE_GAP - _TABLE - _RIGHT
    each = (space - (count - 1) * _PLOT_GAP) / count
    return tuple((_PLOT_LEFT + k * (each + _PLOT_GAP), top, each, _PLOT) for k in range(count))


def _fitting(text: str, short: str, width: float) -> str:
    """Return a text, or the shorter one where it would be wider than its place."""
    return text if len(text) * _PER_CHARACTER * MEDIUM < width else short


def _wrapped(name: str, width: float) -> str:
    """Return a name on at most two lines that fit a column."""
    fits = max(characters(width, MEDIUM), 4)
    lines = textwrap.wrap(name, fits, max_lines=2, placeholder=" \N{HORIZONTAL ELLIPSIS}")
    return "\n".join(lines)
