"""Comparison figure: raw, deconvolved and true volumes side by side, laterally and axially.

A column per volume on Matplotlib's grid, with the content of
:mod:`napari_rln.evaluate.figure_content`. Every picture has its true proportions, and all pictures
outside the magnified row share one scale. Lengths on the page are in inches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib_scalebar.scalebar import ScaleBar

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.evaluate.figure_content import (
    Display,
    FigureColumn,
    FigureContent,
    FigureSettings,
    Line,
    figure_content,
)
from napari_rln.evaluate.figure_profiles import draw_profiles
from napari_rln.evaluate.figure_text import MEDIUM, SMALL, caption, fit_text
from napari_rln.evaluate.plane_sections import ACROSS_DOWN, round_length
from napari_rln.evaluate.profiles import LINE_COLOUR
from napari_rln.io.paths import atomic, check_folder

_LABELS = {"xy": "lateral (xy)", "xz": "axial (xz)", "yz": "axial (yz)"}
_LARGE = 9.5  # points
_CHARACTER = 0.0615  # approximate width of one of medium size
_TITLE_LINES = 3
_ARROW = 9.0  # points across and down
_AS_TEXT: Any = {"svg.fonttype": "none", "pdf.fonttype": 42}  # not as curves
_BARE: dict[str, Any] = {"anchor": "N", "frame_on": False, "xticks": (), "yticks": ()}
_PAGE, _NARROWEST, _MARGINS, _GAP = 7.2, 5.4, 0.35, 0.05
_WIDEST_COLUMN, _TALLEST_COLUMN, _PROFILES = 2.6, 6.0, 1.6
_NOTE_LINES = 4


def figure(
    volumes: Sequence[Volume],
    *,
    truth: Volume | None = None,
    settings: FigureSettings | None = None,
    displays: Sequence[Display] = (),
    line: Line | None = None,
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
    displays
        Display of each column, such as a viewer's, instead of that of the settings.
    line
        Ends (z, y, x) of a line, in micrometres from the corner of the field: the profile is that
        along it.

    Raises
    ------
    RlnError
        As for :func:`figure_content`.
    """
    settings = settings or FigureSettings()
    view = figure_content(volumes, truth=truth, settings=settings, displays=displays, line=line)
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
            _show(ax, view, column, plane)
            if k == 0:
                name = fit_text(column.name, width, MEDIUM, _TITLE_LINES)
                ax.set_title(name, fontsize=MEDIUM, pad=3, parse_math=False)
            if i == 0:
                bar_um = 0.3 * view.size_um(plane)[0] if k == 0 else 0
                _annotate(ax, (_LABELS[plane], plane), heights[k], bar_um, column)
                if plane in view.lines:
                    ax.plot(*zip(*view.lines[plane], strict=True), color=LINE_COLOUR, lw=1)
                if len(planes) > 1 and settings.projection == "slice":
                    cut_um = view.position_um[1 if plane == "xy" else 0]
                    ax.axhline(cut_um, color=_inks(column)[0], lw=0.7, ls=(0, (1, 2)))
            if view.inset_um and plane != "yz":
                cell = slice(first + k, first + (2 if len(planes) == 1 else k + 1))
                near = fig.add_subplot(grid[len(planes), cell], **_BARE)
                _show(near, view, column, plane, magnified=True)
                if i == k == 0:
                    side_um = float(np.ptp(view.inset_um[2]))
                    times = heights[len(planes)] / side_um / (width / widest_um)
                    short = f"{times:.1f}\N{MULTIPLICATION SIGN}"
                    labels = f"magnified {short}", short
                    _annotate(near, labels, heights[len(planes)], 0.4 * side_um, column)
    if settings.profile:
        draw_profiles(fig, grid[-1, :], view)
    note = fit_text(
        caption(view, settings, is_given=bool(displays)), page - _MARGINS, SMALL, _NOTE_LINES
    )
    fig.supxlabel(note, fontsize=SMALL, x=0.01, ha="left", parse_math=False)
    _fit_height(fig, width, heights)
    return fig


def save_figure(fig: Figure, path: str | Path) -> None:
    """Write a figure atomically, as PNG, PDF or SVG by the ending of the name.

    Text stays text in PDF and SVG, to be edited. Errors are those of :func:`check_figure_path`.
    """
    kind = check_figure_path(path)
    with atomic(path) as temporary, matplotlib.rc_context(_AS_TEXT):
        fig.savefig(temporary, format=kind)


def check_figure_path(path: str | Path) -> str:
    """Return the kind of a figure file: png, pdf or svg.

    Raise an RlnError if its name has another ending, or its folder does not exist.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        raise RlnError(f"{path.name} is not a figure file; end it in .png, .pdf or .svg.")
    check_folder(path)
    return kind


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
    *,
    magnified: bool = False,
) -> None:
    """Show a picture in micrometres, its first row on top."""
    width_um, height_um = view.size_um(plane)
    ax.imshow(
        column.pictures[plane],
        norm=PowerNorm(column.display.gamma, *column.limits, clip=True),
        cmap=_colormap(column),
        extent=(0, width_um, height_um, 0),
        interpolation="antialiased",
    )
    ax.autoscale(False)
    if view.inset_um and plane != "yz":
        (x0, x1), (y0, y1) = (view.inset_um[axis] for axis in ACROSS_DOWN[plane])
        if magnified:
            ax.set(xlim=(x0, x1), ylim=(y1, y0))
        else:
            ink, _ = _inks(column)
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=ink, lw=0.6))
    for tip in view.arrows[plane]:
        _point_at(ax, tip, *_inks(column))


def _point_at(ax: Axes, tip: tuple[float, float], ink: str, ground: str) -> None:
    """Draw an arrow whose tip is at a position, micrometres across and down, if it is shown."""
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
    ax: Axes, labels: tuple[str, str], height: float, bar_um: float, column: FigureColumn
) -> None:
    """Add the longest label that fits a picture's height, and a scale bar of at most ``bar_um``."""
    label = labels[0] if len(labels[0]) * _CHARACTER < height else labels[1]
    ax.set_ylabel(label, fontsize=MEDIUM, labelpad=2)
    if bar_um:
        ink, ground = _inks(column)
        look = {"color": ink, "box_color": ground, "box_alpha": 0.4, "width_fraction": 0.015}
        place = {"location": "lower right", "scale_loc": "top", "sep": 1.5, "border_pad": 0.3}
        text = {"font_properties": {"size": SMALL}, "scale_formatter": "{:g} {}".format}
        length_um = round_length(bar_um)
        ax.add_artist(ScaleBar(1, "um", fixed_value=length_um, **look, **place, **text))


def _colormap(column: FigureColumn) -> Colormap:
    """Return the colormap of a column."""
    colours = column.display.colours
    if isinstance(colours, str):
        return matplotlib.colormaps[colours]
    return ListedColormap(colours.tolist())


def _inks(column: FigureColumn) -> tuple[str, str]:
    """Return the colours of lines and of their background on the pictures of a column."""
    bright = sum(_colormap(column)(0.0)[:3]) > 1.5
    return ("black", "white") if bright else ("white", "black")
