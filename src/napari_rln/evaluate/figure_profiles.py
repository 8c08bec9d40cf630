"""Row of a figure with the profiles, and the table of their widths."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from napari_rln.evaluate.figure_content import FigureContent
from napari_rln.evaluate.figure_text import MEDIUM, SMALL, UM, fit_text
from napari_rln.evaluate.profiles import curve_colours

_POSITIONS = {"x": "lateral position x", "z": "axial position z", "line": "along the orange line"}
_PARTS, _PLOTS = 26, 18  # widths of the row, and of its plots; the rest is the table
_KEY, _WIDTH = 0.3, 0.28  # inches in the table, of a line's sample and of a number
_LINES = 12  # of text in the table


def draw_profiles(fig: Figure, cell: SubplotSpec, view: FigureContent) -> None:
    """Draw the profiles, and a table of their widths beside them."""
    truth = {"color": "black", "lw": 0.9, "ls": (0, (3, 1.5))}
    colours = curve_colours(len(view.columns))  # the truth is the last one
    styles: list[dict[str, Any]] = [
        truth if column.role == "truth" else {"color": colour, "lw": 1.2}
        for column, colour in zip(view.columns, colours, strict=True)
    ]
    axes, parts = list(view.columns[0].profiles), cell.subgridspec(1, _PARTS)
    span = _PLOTS // len(axes)
    for k, axis in enumerate(axes):
        ax = fig.add_subplot(parts[k * span : (k + 1) * span - 1])
        for column, style in zip(view.columns, styles, strict=True):
            ax.plot(column.profiles[axis].offset_um, column.profiles[axis].value, **style)
        ax.set(ylim=(0, 1.04), yticks=(0, 0.5, 1), xmargin=0)
        ax.tick_params(labelsize=SMALL, length=2.5, pad=2, labelleft=k == 0)
        ax.set_xlabel(f"{_POSITIONS[axis]} ({UM})", fontsize=MEDIUM, labelpad=2)
        ax.set_ylabel("normalised intensity" if k == 0 else "", fontsize=MEDIUM, labelpad=2)
        ax.spines[["top", "right"]].set_visible(False)
    # The table is a legend with the widths as further columns.
    room = fig.get_figwidth() * (_PARTS - _PLOTS) / _PARTS - _KEY - _WIDTH * len(axes)
    lines = max(1, int(_LINES / len(view.columns)))
    names = [fit_text(c.name, room, SMALL, lines) for c in view.columns]
    blank = Line2D([], [], alpha=0)
    handles = [blank, *(Line2D([], [], **style) for style in styles)]
    labels = [f"FWHM ({UM})", *names]
    for axis in axes:
        widths = (c.profiles[axis].fwhm_um for c in view.columns)
        handles += [blank] * (1 + len(styles))
        labels += ["" if axis == "line" else axis]
        labels += [  # as many lines as the name beside it has
            ("\N{EN DASH}" if w is None else f"{w:.2f}") + "\n" * name.count("\n")
            for w, name in zip(widths, names, strict=True)
        ]
    table = fig.add_subplot(parts[_PLOTS:], frame_on=False, xticks=(), yticks=())
    look: dict[str, Any] = {
        "ncols": 1 + len(axes), "loc": "upper right", "frameon": False, "fontsize": SMALL,
        "borderpad": 0, "borderaxespad": 0, "handlelength": 1.6, "columnspacing": 0,
    }  # fmt: skip
    legend = table.legend(handles, labels, **look)
    for text in legend.get_texts():
        text.set_parse_math(False)
