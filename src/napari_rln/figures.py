"""One figure that shows raw, deconvolved and true volumes side by side, laterally and axially.

:mod:`napari_rln.view` decides what is shown, :mod:`napari_rln.layout` where; here it is drawn.
Every picture has its true proportions, and all pictures outside the magnified row share one scale.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from scipy.ndimage import gaussian_filter

from napari_rln.errors import RlnError
from napari_rln.io import atomic
from napari_rln.settings import check_limits
from napari_rln.volume import FloatArray, Volume, VoxelUm, same_grid

# Drawing. From here on lengths are in inches from the top left of the page, type in points.
_PAGE, _NARROWEST = 7.2, 5.4
_LEFT, _RIGHT, _GAP = 0.3, 0.08, 0.05
_WIDEST_COLUMN, _TALLEST_COLUMN = 2.6, 6.0
_PLOT, _BELOW_PLOT, _PLOT_LEFT, _PLOT_GAP, _TABLE = 1.25, 0.42, 0.42, 0.16, 2.0
_SMALL, _MEDIUM, _LARGE, _LINE = 6.5, 7.5, 9.5, 0.14
_PER_CHARACTER = 0.0082  # width of a character per point of type, about
_UM = "\N{MICRO SIGN}m"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where things stand; ``rows`` holds label, top and height of every row of pictures."""

    width: float
    height: float
    left: float
    column: float
    inch_per_um: float
    titles: tuple[str, ...]
    rows: tuple[tuple[str, float, float], ...]
    inset: float
    plot_top: float
    note_top: float


def figure(
    volumes: Sequence[Volume],
    *,
    truth: Volume | None = None,
    settings: FigureSettings | None = None,
) -> Figure:
    """Return the figure: a column per volume with its planes, a magnified region, and profiles.

    Parameters
    ----------
    volumes
        The raw image, then the results, all on one grid.
    truth
        What is known to be there; the last column.
    settings
        What to show.

    Raises
    ------
    RlnError
        As :func:`resolve_view`.
    """
    settings = settings or FigureSettings()
    view = resolve_view(volumes, truth=truth, settings=settings)
    layout = _layout(view, settings)
    fig = Figure(figsize=(layout.width, layout.height), dpi=settings.dpi, facecolor="white")
    FigureCanvasAgg(fig)
    if settings.title:
        _text(fig, layout.width / 2, 0.07, settings.title, size=_LARGE, weight="bold")
    for i, column in enumerate(view.columns):
        _draw_column(fig, layout, view, settings, i, column)
    for label, top, height in layout.rows:
        at = layout.left - 0.06
        _text(fig, at, top + height / 2, label, ha="right", va="center", rotation=90)
    if settings.profile:
        _draw_profiles(fig, layout, view)
    _text(fig, layout.left, layout.note_top, _note(view, settings), size=_SMALL, ha="left")
    return fig


def save_figure(fig: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the ending of the name; whole or not at all.

    Raises
    ------
    RlnError
        If the ending is another.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        raise RlnError(f"A figure cannot be written as {path.name}; end it in .png, .pdf or .svg.")
    with atomic(path) as temporary:
        fig.savefig(temporary, format=kind)


def _layout(view: View, settings: FigureSettings) -> _Layout:
    """Return where things stand on a page just large enough for them."""
    depth, height, width = view.extent_um
    first, n = view.columns[0], len(view.columns)
    sizes = {"lateral (xy)": height}
    if first.axial is not None:
        sizes["axial (xz)"] = depth
    if first.side is not None:
        sizes["axial (yz)"] = depth
    widest = width if first.side is None else max(width, height)
    column = min(
        (_PAGE - _LEFT - _RIGHT - (n - 1) * _GAP) / n,
        _WIDEST_COLUMN,
        _TALLEST_COLUMN * widest / sum(sizes.values()),
    )
    inch_per_um = column / widest
    used = n * column + (n - 1) * _GAP
    page = max(_LEFT + used + _RIGHT, _NARROWEST if settings.profile else 0)
    titles = tuple(_wrapped(c.name, column) for c in view.columns)
    top = (0.3 if settings.title else 0.06) + 0.04
    top += _LINE * (1 + max(title.count("\n") for title in titles))
    rows = []
    for label, size_um in sizes.items():
        tall = size_um * inch_per_um
        rows.append((_fitting(label, label[-3:-1], tall), top, tall))
        top += tall + _GAP
    inset = 0.0
    if view.inset_um:
        inset = column if first.axial is None else (column - _GAP) / 2
        times = (
            f"{inset / float(np.ptp(view.inset_um[2])) / inch_per_um:.1f}\N{MULTIPLICATION SIGN}"
        )
        rows.append((_fitting(f"magnified {times}", times, inset), top, inset))
        top += inset + _GAP
    plot_top = top + 0.08
    note_top = plot_top + _PLOT + _BELOW_PLOT if settings.profile else top + 0.03
    return _Layout(
        width=page,
        height=note_top + 0.17,
        left=_LEFT + (page - _LEFT - used - _RIGHT) / 2,
        column=column,
        inch_per_um=inch_per_um,
        titles=titles,
        rows=tuple(rows),
        inset=inset,
        plot_top=plot_top,
        note_top=note_top,
    )


def _draw_column(
    fig: Figure, layout: _Layout, view: View, settings: FigureSettings, i: int, column: Column
) -> None:
    """Draw the title and all pictures of one volume, from top to bottom."""
    left = layout.left + i * (layout.column + _GAP)
    middle = left + layout.column / 2
    _text(fig, middle, layout.rows[0][1] - 0.04, layout.titles[i], va="bottom")
    ink, edge = "white", "black"
    if sum(matplotlib.colormaps[settings.colormap](0.0)[:3]) > 1.5:
        ink, edge = edge, ink
    # Picture, and the axes of the volume that run across and down it.
    sections = ((column.lateral, 2, 1), (column.axial, 2, 0), (column.side, 1, 0))
    held = [(p, across, down) for p, across, down in sections if p is not None]
    for k, (picture, across, down) in enumerate(held):
        _, top, tall = layout.rows[k]
        size_um = view.extent_um[across], view.extent_um[down]
        ax = _axes(fig, left, top, size_um[0] * layout.inch_per_um, tall)
        _show(ax, picture, size_um, column.limits, settings)
        if i == 0 and len(held) > 1 and settings.projection == "slice":
            cut_um = view.position_um[1 if down == 1 else 0]
            ax.axhline(cut_um, color=ink, lw=0.7, ls=(0, (1, 2)))
        if i == 0 and k == 0:
            _scale_bar(ax, view.bar_um, layout.inch_per_um, ink, edge)
        if view.inset_um is None or across == 1:
            continue
        (x0, x1), (y0, y1) = view.inset_um[across], view.inset_um[down]
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=ink, lw=0.6))
        scale = layout.inset / (x1 - x0)
        near = _axes(
            fig,
            left + k * (layout.inset + _GAP),
            layout.rows[-1][1],
            layout.inset,
            (y1 - y0) * scale,
        )
        _show(near, picture, size_um, column.limits, settings)
        near.set(xlim=(x0, x1), ylim=(y1, y0))
        if i == 0 and k == 0 and view.inset_bar_um:
            _scale_bar(near, view.inset_bar_um, scale, ink, edge)


def _show(
    ax: Axes,
    picture: FloatArray,
    size_um: tuple[float, float],
    limits: Limits,
    settings: FigureSettings,
) -> None:
    """Show a picture in micrometres, its first row on top."""
    ax.imshow(
        picture,
        norm=PowerNorm(settings.gamma, *limits, clip=True),
        cmap=settings.colormap,
        extent=(0, size_um[0], size_um[1], 0),
        aspect="auto",
        interpolation="antialiased",
    )


def _draw_profiles(fig: Figure, layout: _Layout, view: View) -> None:
    """Draw the profiles along x and z, and beside them a table of their widths."""
    styles = _line_styles(view)
    lines = [("x", "lateral", [c.along_x for c in view.columns])]
    along_z = [c.along_z for c in view.columns if c.along_z is not None]
    if along_z:
        lines.append(("z", "axial", along_z))
    space = layout.width - _PLOT_LEFT - _TABLE - _RIGHT
    each = (space - (len(lines) - 1) * _PLOT_GAP) / len(lines)
    for k, (axis, direction, profiles) in enumerate(lines):
        ax = _axes(fig, _PLOT_LEFT + k * (each + _PLOT_GAP), layout.plot_top, each, _PLOT)
        ax.set_axis_on()
        for profile, style in zip(profiles, styles, strict=True):
            ax.plot(profile.offset_um, profile.value, **style)
        ax.set(ylim=(0, 1.04), yticks=(0, 0.5, 1))
        ax.set_xlim(float(profiles[0].offset_um[0]), float(profiles[0].offset_um[-1]))
        ax.tick_params(labelsize=_SMALL, length=2.5, pad=2, labelleft=k == 0)
        ax.set_xlabel(f"{direction} position {axis} ({_UM})", fontsize=_MEDIUM, labelpad=2)
        ax.set_ylabel("normalised intensity" if k == 0 else "", fontsize=_MEDIUM, labelpad=2)
        ax.spines[["top", "right"]].set_visible(False)
    left, top = layout.width - _RIGHT - _TABLE + 0.15, layout.plot_top
    step = min(0.16, _PLOT / (len(view.columns) + 1))
    right = [layout.width - _RIGHT - 0.36 * (len(lines) - 1 - k) for k in range(len(lines))]
    _text(fig, left, top, f"FWHM ({_UM})", size=_SMALL, ha="left")
    for (axis, _, _), at in zip(lines, right, strict=True):
        _text(fig, at, top, axis, size=_SMALL, ha="right")
    for i, (column, style) in enumerate(zip(view.columns, styles, strict=True)):
        at_row = top + (i + 1) * step
        key = _axes(fig, left, at_row + 0.05, 0.18, 0.02)
        key.plot([0, 1], [0, 0], **style)
        fits = int((right[0] - 0.4 - left - 0.22) / (_PER_CHARACTER * _SMALL))
        _text(fig, left + 0.24, at_row, _cut(column.name, fits), size=_SMALL, ha="left")
        for (_, _, profiles), at in zip(lines, right, strict=True):
            fwhm = profiles[i].fwhm_um
            text = "\N{EN DASH}" if fwhm is None else f"{fwhm:.2f}"
            _text(fig, at, at_row, text, size=_SMALL, ha="right")


def _line_styles(view: View) -> list[dict[str, Any]]:
    """Return how each volume's profile is drawn: grey raw, coloured results, dashed truth."""
    colors = itertools.cycle(_COLORS)
    return [
        {"color": "0.55", "lw": 1.2}
        if column.role == "raw"
        else {"color": "black", "lw": 0.9, "ls": (0, (3, 1.5))}
        if column.role == "truth"
        else {"color": next(colors), "lw": 1.2}
        for column in view.columns
    ]


def _note(view: View, settings: FigureSettings) -> str:
    """Return the line that states which intensities are shown darkest and brightest."""
    named = {"raw": "raw", "result": "deconvolved", "truth": "truth"}
    limits = {named[c.role]: c.limits for c in view.columns}
    ranges = ", ".join(
        f"{role} {_number(low, high)} to {_number(high, high)}"
        for role, (low, high) in limits.items()
    )
    return f"Display range: {ranges}; gamma {settings.gamma:g}."


def _number(value: float, largest: float) -> str:
    """Return a number with as many digits as matter beside the largest one."""
    digits = max(2 - int(np.floor(np.log10(max(abs(largest), 1e-9)))), 0)
    return f"{value:,.{digits}f}"


def _axes(fig: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return bare axes at a place in inches from the top left of the page."""
    page_width, page_height = fig.get_size_inches()
    bottom = page_height - top - height
    ax = fig.add_axes(
        (left / page_width, bottom / page_height, width / page_width, height / page_height)
    )
    ax.set_axis_off()
    return ax


def _text(
    fig: Figure,
    left: float,
    top: float,
    text: str,
    *,
    size: float = _MEDIUM,
    ha: str = "center",
    va: str = "top",
    **style: Any,
) -> None:
    page_width, page_height = fig.get_size_inches()
    fig.text(left / page_width, 1 - top / page_height, text, fontsize=size, ha=ha, va=va, **style)


def _scale_bar(ax: Axes, length_um: float, inch_per_um: float, ink: str, edge: str) -> None:
    """Draw a bar with its length in the lower right corner, legible on any ground."""
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    pad, thick = 0.07 / inch_per_um, 0.025 / inch_per_um
    outline: list[AbstractPathEffect] = [withStroke(linewidth=1.2, foreground=edge)]
    corner = right - pad - length_um, bottom - pad - thick
    bar = Rectangle(corner, length_um, thick, color=ink, lw=0)
    bar.set_path_effects(outline)
    ax.add_patch(bar)
    label = f"{length_um:g} {_UM}" if length_um >= 1 else f"{1000 * length_um:g} nm"
    middle = corner[0] + length_um / 2
    text = ax.text(middle, corner[1] - thick, label, color=ink, fontsize=_SMALL, ha="center")
    text.set_path_effects(outline)


def _cut(text: str, fits: int) -> str:
    return text if len(text) <= fits else text[: fits - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _fitting(text: str, short: str, width: float) -> str:
    """Return a text, or the shorter one where it would be wider than its place."""
    return text if len(text) * _PER_CHARACTER * _MEDIUM < width else short


def _wrapped(name: str, width: float) -> str:
    """Return a name on at most two lines that fit a column."""
    fits = max(int(width / (_PER_CHARACTER * _MEDIUM)), 4)
    lines = textwrap.wrap(name, fits, max_lines=2, placeholder=" \N{HORIZONTAL ELLIPSIS}")
    return "\n".join(lines)
