"""Comparison figure: raw, deconvolved and true volumes side by side, laterally and axially.

A column per volume on Matplotlib's grid, with the content of
:mod:`napari_rln.evaluate.figure_content`. Every picture has its true proportions, and all pictures
outside the magnified row share one scale. Lengths on the page are in inches.
"""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib_scalebar.scalebar import ScaleBar

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.evaluate.figure_content import (
    FigureColumn,
    FigureContent,
    FigureSettings,
    figure_content,
)
from napari_rln.evaluate.plane_sections import ACROSS_DOWN, round_length
from napari_rln.io.paths import atomic

_UM = "\N{MICRO SIGN}m"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LABELS = {"xy": "lateral (xy)", "xz": "axial (xz)", "yz": "axial (yz)"}
_SMALL, _MEDIUM, _LARGE = 6.5, 7.5, 9.5  # points
_CHARACTER = 0.0615  # approximate width of one of medium size
_ARROW = 9.0  # points across and down
_BARE: dict[str, Any] = {"anchor": "N", "frame_on": False, "xticks": (), "yticks": ()}
_PAGE, _NARROWEST, _MARGINS, _GAP = 7.2, 5.4, 0.35, 0.05
_WIDEST_COLUMN, _TALLEST_COLUMN, _PROFILES = 2.6, 6.0, 1.6


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
        Ground truth; the last column.
    settings
        Content and display; the defaults if None.

    Raises
    ------
    RlnError
        As for :func:`figure_content`.
    """
    settings = settings or FigureSettings()
    view = figure_content(volumes, truth=truth, settings=settings)
    n, planes = len(view.columns), list(view.columns[0].pictures)
    sizes_um = [view.size_um(plane) for plane in planes]
    widest_um = max(across for across, _ in sizes_um)
    tallest = _TALLEST_COLUMN * widest_um / sum(down for _, down in sizes_um)
    width = min((_PAGE - _MARGINS) / n - _GAP, _WIDEST_COLUMN, tallest)
    heights = [down * width / widest_um for _, down in sizes_um]
    heights += [width / min(len(planes), 2)] if view.inset_um else []
    heights += [_GAP, _PROFILES] if settings.profile else []
    page = max(_MARGINS + n * (width + _GAP), _NARROWEST if settings.profile else 0)
    fig = Figure((page, sum(heights) + 1), settings.dpi, layout="constrained")
    FigureCanvasAgg(fig)
    layout: Any = fig.get_layout_engine()
    layout.set(
        w_pad=_GAP / 2, h_pad=_GAP / 2, wspace=0, hspace=0, rect=(0.006, 0.006, 0.988, 0.988)
    )
    if settings.title:
        fig.suptitle(settings.title, fontsize=_LARGE, weight="bold")
    # Two cells per column, for the magnified pictures; the outermost ones centre narrow columns.
    beside = max((page - _MARGINS - n * (width + _GAP)) / 2, 0.01)
    cells = [beside, *[width / 2] * (2 * n), beside]
    grid = fig.add_gridspec(len(heights), len(cells), width_ratios=cells, height_ratios=heights)
    for i, column in enumerate(view.columns):
        first = 1 + 2 * i
        for k, plane in enumerate(planes):
            ax = fig.add_subplot(grid[k, first : first + 2], **_BARE)
            _show(ax, view, column, plane, settings)
            if k == 0:
                name = textwrap.wrap(column.name, max(int(width / _CHARACTER), 4), max_lines=2)
                ax.set_title("\n".join(name), fontsize=_MEDIUM, pad=3)
            if i == 0:
                bar_um = 0.3 * view.size_um(plane)[0] if k == 0 else 0
                _annotate(ax, (_LABELS[plane], plane), heights[k], bar_um, settings)
                if len(planes) > 1 and settings.projection == "slice":
                    cut_um = view.position_um[1 if plane == "xy" else 0]
                    ax.axhline(cut_um, color=_inks(settings)[0], lw=0.7, ls=(0, (1, 2)))
            if view.inset_um and plane != "yz":
                cell = slice(first + k, first + (2 if len(planes) == 1 else k + 1))
                near = fig.add_subplot(grid[len(planes), cell], **_BARE)
                _show(near, view, column, plane, settings, magnified=True)
                if i == k == 0:
                    side_um = float(np.ptp(view.inset_um[2]))
                    times = heights[len(planes)] / side_um / (width / widest_um)
                    short = f"{times:.1f}\N{MULTIPLICATION SIGN}"
                    labels = f"magnified {short}", short
                    _annotate(near, labels, heights[len(planes)], 0.4 * side_um, settings)
    if settings.profile:
        _draw_profiles(fig, grid[-1, :], view)
    fig.supxlabel(_note(view, settings), fontsize=_SMALL, x=0.01, ha="left")
    _fit_height(fig, width, heights)
    return fig


def save_figure(fig: Figure, path: str | Path) -> None:
    """Write a figure atomically, as PNG, PDF or SVG by the ending of the name.

    Raise an RlnError if the name has another ending.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        raise RlnError(f"{path.name} is not a figure file; end it in .png, .pdf or .svg.")
    with atomic(path) as temporary:
        fig.savefig(temporary, format=kind)


def _fit_height(fig: Figure, width: float, heights: list[float]) -> None:
    """Set the height of a page to that of its pictures, for the width left to a column."""
    layout: Any = fig.get_layout_engine()
    for _ in range(2):  # margins are fractions of the page, whose height changes
        layout.execute(fig)
        cell, (across, down) = fig.axes[0].get_position(original=True), fig.get_size_inches()
        excess = cell.height * down / heights[0] - cell.width * across / width
        fig.set_figheight(down - excess * sum(heights))
    layout.execute(fig)
    fig.set_layout_engine("none")


def _show(
    ax: Axes,
    view: FigureContent,
    column: FigureColumn,
    plane: str,
    settings: FigureSettings,
    *,
    magnified: bool = False,
) -> None:
    """Show a picture in micrometres, its first row on top."""
    width_um, height_um = view.size_um(plane)
    ax.imshow(
        column.pictures[plane],
        norm=PowerNorm(settings.gamma, *column.limits, clip=True),
        cmap=settings.colormap,
        extent=(0, width_um, height_um, 0),
        interpolation="antialiased",
    )
    if view.inset_um and plane != "yz":
        (x0, x1), (y0, y1) = (view.inset_um[axis] for axis in ACROSS_DOWN[plane])
        if magnified:
            ax.set(xlim=(x0, x1), ylim=(y1, y0))
        else:
            ink, _ = _inks(settings)
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=ink, lw=0.6))
    for tip in view.arrows[plane]:
        _point_at(ax, tip, settings)


def _point_at(ax: Axes, tip: tuple[float, float], settings: FigureSettings) -> None:
    """Draw an arrow whose tip is at a position, micrometres across and down, if it is shown."""
    ink, ground = _inks(settings)
    arrow = ax.annotate(
        "",
        tip,
        xytext=(-_ARROW, _ARROW),
        textcoords="offset points",
        annotation_clip=True,
        arrowprops={
            "facecolor": ink, "edgecolor": ground, "linewidth": 0.4, "width": 1.2,
            "headwidth": 4.5, "headlength": 4.5, "shrink": 0.0,
        },
    )  # fmt: skip
    arrow.set_in_layout(False)
    if arrow.arrow_patch is not None:
        arrow.arrow_patch.set_clip_path(ax.patch)


def _annotate(
    ax: Axes, labels: tuple[str, str], height: float, bar_um: float, settings: FigureSettings
) -> None:
    """Add the longest label that fits a picture's height, and a scale bar of at most ``bar_um``."""
    label = labels[0] if len(labels[0]) * _CHARACTER < height else labels[1]
    ax.set_ylabel(label, fontsize=_MEDIUM, labelpad=2)
    if bar_um:
        ink, ground = _inks(settings)
        look = {"color": ink, "box_color": ground, "box_alpha": 0.4, "width_fraction": 0.015}
        place = {"location": "lower right", "scale_loc": "top", "sep": 1.5, "border_pad": 0.3}
        text = {"font_properties": {"size": _SMALL}, "scale_formatter": "{:g} {}".format}
        length_um = round_length(bar_um)
        ax.add_artist(ScaleBar(1, "um", fixed_value=length_um, **look, **place, **text))


def _inks(settings: FigureSettings) -> tuple[str, str]:
    """Return the colours of lines and of their background on pictures of a colormap."""
    bright = sum(matplotlib.colormaps[settings.colormap](0.0)[:3]) > 1.5
    return ("black", "white") if bright else ("white", "black")


def _draw_profiles(fig: Figure, cell: SubplotSpec, view: FigureContent) -> None:
    """Draw the profiles along x and z, and a table of their widths beside them."""
    colors = itertools.cycle(_COLORS)
    truth = {"color": "black", "lw": 0.9, "ls": (0, (3, 1.5))}
    styles: list[dict[str, Any]] = [
        truth
        if column.role == "truth"
        else {"color": "0.55" if column.role == "raw" else next(colors), "lw": 1.2}
        for column in view.columns
    ]
    axes, parts = list(view.columns[0].profiles), cell.subgridspec(1, 26)
    span = 18 // len(axes)
    for k, axis in enumerate(axes):
        ax = fig.add_subplot(parts[k * span : (k + 1) * span - 1])
        for column, style in zip(view.columns, styles, strict=True):
            ax.plot(column.profiles[axis].offset_um, column.profiles[axis].value, **style)
        ax.set(ylim=(0, 1.04), yticks=(0, 0.5, 1), xmargin=0)
        ax.tick_params(labelsize=_SMALL, length=2.5, pad=2, labelleft=k == 0)
        direction = "lateral" if axis == "x" else "axial"
        ax.set_xlabel(f"{direction} position {axis} ({_UM})", fontsize=_MEDIUM, labelpad=2)
        ax.set_ylabel("normalised intensity" if k == 0 else "", fontsize=_MEDIUM, labelpad=2)
        ax.spines[["top", "right"]].set_visible(False)
    # The table is a legend with the widths as further columns.
    blank = Line2D([], [], alpha=0)
    handles = [blank, *(Line2D([], [], **style) for style in styles)]
    names = (
        c.name if len(c.name) < 20 else f"{c.name[:18]}\N{HORIZONTAL ELLIPSIS}"
        for c in view.columns
    )
    labels = [f"FWHM ({_UM})", *names]
    for axis in axes:
        widths = (c.profiles[axis].fwhm_um for c in view.columns)
        handles += [blank] * (1 + len(styles))
        labels += [axis, *("\N{EN DASH}" if w is None else f"{w:.2f}" for w in widths)]
    table = fig.add_subplot(parts[18:], **_BARE)
    spacing = {"borderpad": 0, "borderaxespad": 0, "handlelength": 1.6, "columnspacing": 0}
    look = {"ncols": 1 + len(axes), "loc": "upper right", "frameon": False, "fontsize": _SMALL}
    table.legend(handles, labels, **look, **spacing)


def _note(view: FigureContent, settings: FigureSettings) -> str:
    """Return the line that states the displayed range of intensities."""
    if settings.contrast == "own":
        low, high = 100 - settings.contrast_percentile, settings.contrast_percentile
        return (
            f"Display range: each column from its own percentile {low:.4g} to {high:.4g}, "
            f"gamma {settings.gamma:g}."
        )
    names = {"raw": "raw", "result": "deconvolved", "truth": "truth"}
    limits = {names[c.role]: c.limits for c in view.columns}
    ranges = ", ".join(
        f"{role} {_number(low, high)} to {_number(high, high)}"
        for role, (low, high) in limits.items()
    )
    return f"Display range: {ranges}; gamma {settings.gamma:g}."


def _number(value: float, largest: float) -> str:
    """Return a number with the decimals that the largest one needs for three digits."""
    digits = max(2 - int(np.floor(np.log10(max(abs(largest), 1e-9)))), 0)
    return f"{value:,.{digits}f}"
