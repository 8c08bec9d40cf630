"""One figure that shows raw, deconvolved and true volumes side by side, laterally and axially.

:mod:`napari_rln.evaluate.figure_view` decides what is shown,
:mod:`napari_rln.evaluate.figure_layout` where; here it is drawn. Every picture has its true
proportions, and all pictures outside the magnified row share one scale.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.evaluate.figure_layout import (
    GAP,
    LARGE,
    MEDIUM,
    SMALL,
    Layout,
    characters,
    resolve_layout,
)
from napari_rln.evaluate.figure_view import Column, FigureSettings, Limits, View, resolve_view
from napari_rln.evaluate.profiles import Profile
from napari_rln.io.paths import atomic

_UM = "\N{MICRO SIGN}m"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


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
    layout = resolve_layout(view, settings)
    fig = Figure(figsize=(layout.width, layout.height), dpi=settings.dpi, facecolor="white")
    FigureCanvasAgg(fig)
    if settings.title:
        _text(fig, layout.width / 2, 0.07, settings.title, size=LARGE, weight="bold")
    for i, column in enumerate(view.columns):
        _draw_column(fig, layout, view, settings, i, column)
    for label, top, height in layout.rows:
        at = layout.lefts[0] - 0.06
        _text(fig, at, top + height / 2, label, ha="right", va="center", rotation=90)
    if settings.profile:
        _draw_profiles(fig, layout, view)
    _text(fig, layout.lefts[0], layout.note_top, _note(view, settings), size=SMALL, ha="left")
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


def _draw_column(
    fig: Figure, layout: Layout, view: View, settings: FigureSettings, i: int, column: Column
) -> None:
    """Draw the title and all pictures of one volume, from top to bottom."""
    left = layout.lefts[i]
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
            left + k * (layout.inset + GAP),
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


def _draw_profiles(fig: Figure, layout: Layout, view: View) -> None:
    """Draw the profiles along x and z, and beside them a table of their widths."""
    styles = _line_styles(view)
    lines = {"x": [c.along_x for c in view.columns]}
    along_z = [c.along_z for c in view.columns if c.along_z is not None]
    if along_z:
        lines["z"] = along_z
    for k, ((axis, profiles), box) in enumerate(zip(lines.items(), layout.plots, strict=True)):
        ax = _axes(fig, *box)
        ax.set_axis_on()
        for profile, style in zip(profiles, styles, strict=True):
            ax.plot(profile.offset_um, profile.value, **style)
        ax.set(ylim=(0, 1.04), yticks=(0, 0.5, 1))
        ax.set_xlim(float(profiles[0].offset_um[0]), float(profiles[0].offset_um[-1]))
        ax.tick_params(labelsize=SMALL, length=2.5, pad=2, labelleft=k == 0)
        direction = "lateral" if axis == "x" else "axial"
        ax.set_xlabel(f"{direction} position {axis} ({_UM})", fontsize=MEDIUM, labelpad=2)
        ax.set_ylabel("normalised intensity" if k == 0 else "", fontsize=MEDIUM, labelpad=2)
        ax.spines[["top", "right"]].set_visible(False)
    _draw_table(fig, layout, [c.name for c in view.columns], lines, styles)


def _draw_table(
    fig: Figure,
    layout: Layout,
    names: list[str],
    lines: dict[str, list[Profile]],
    styles: list[dict[str, Any]],
) -> None:
    """Draw the key of the profiles with their widths along every axis."""
    left, top, width, height = layout.table
    step = min(0.16, height / (len(names) + 1))
    right = [left + width - 0.36 * (len(lines) - 1 - k) for k in range(len(lines))]
    fits = characters(right[0] - 0.4 - left - 0.22, SMALL)
    _text(fig, left, top, f"FWHM ({_UM})", size=SMALL, ha="left")
    for axis, at in zip(lines, right, strict=True):
        _text(fig, at, top, axis, size=SMALL, ha="right")
    for i, (name, style) in enumerate(zip(names, styles, strict=True)):
        at_row = top + (i + 1) * step
        key = _axes(fig, left, at_row + 0.05, 0.18, 0.02)
        key.plot([0, 1], [0, 0], **style)
        _text(fig, left + 0.24, at_row, _cut(name, fits), size=SMALL, ha="left")
        for profiles, at in zip(lines.values(), right, strict=True):
            fwhm = profiles[i].fwhm_um
            text = "\N{EN DASH}" if fwhm is None else f"{fwhm:.2f}"
            _text(fig, at, at_row, text, size=SMALL, ha="right")


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
    size: float = MEDIUM,
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
    text = ax.text(middle, corner[1] - thick, label, color=ink, fontsize=SMALL, ha="center")
    text.set_path_effects(outline)


def _cut(text: str, fits: int) -> str:
    return text if len(text) <= fits else text[: fits - 1] + "\N{HORIZONTAL ELLIPSIS}"
