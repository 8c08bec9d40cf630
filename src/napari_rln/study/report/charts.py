"""Charts of a study as SVG: bars with intervals, scatter plots and lines, coloured by the page.

Classes of the page's style sheet give the colours, so that a chart suits light and dark pages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from napari_rln.study.intervals import Interval
from napari_rln.study.report.markup import Markup, element, joined

_LINE = 16  # height of a line of text, of size 12
_LONGEST = 22  # characters of a name in a chart
_WIDTH = 640
_LINE_COLORS = 8  # of the style sheet

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in a chart."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A method in a chart.

    Attributes
    ----------
    name
        Its name.
    look
        Class of the style sheet: ``classical``, ``network`` or ``trained``, and ``oracle``.
    value
        Its value, with bounds.
    x
        Its position across a scatter plot; None for none, on the left of the axis.
    """

    name: str
    look: str
    value: Interval
    x: float | None = None


def bar_chart(marks: Sequence[Mark], title: str, *, digits: int, from_zero: bool = False) -> Markup:
    """Return horizontal bars with the bounds of their values, in the order given.

    The axis starts at 0, or, which the chart says, near the smallest value.
    """
    shown = [mark for mark in marks if mark.value.n]
    left, right, width, row, top = 170, 150, _WIDTH, 24, 8
    ends = [v for m in shown for v in _ends(m.value)]
    ticks = _ticks([0.0, *ends] if from_zero else ends)
    span = (ticks[0], ticks[-1])
    height = top + row * len(shown) + 44

    def across(value: float) -> float:
        return left + (value - span[0]) / (span[1] - span[0]) * (width - left - right)

    bottom = top + row * len(shown)
    parts = [
        element("line", x1=across(t), x2=across(t), y1=top, y2=bottom, class_="grid") for t in ticks
    ]
    parts += [_label(f"{t:g}", across(t), bottom + 15, "middle") for t in ticks]
    if ticks[0] != 0:
        parts.append(_label(f"The axis starts at {ticks[0]:g}.", left, bottom + 34, "start"))
    for i, mark in enumerate(shown):
        y = top + row * i + row / 2
        x, ends_of = across(mark.value.mean), _ends(mark.value)
        parts.append(_label(_short(mark.name), left - 8, y + 4, "end"))
        parts.append(
            element("rect", x=left, y=y - 7, width=max(x - left, 0.0), height=14,
                    class_=f"bar {mark.look}")
        )  # fmt: skip
        parts.append(_error_bar(across(ends_of[0]), across(ends_of[1]), y))
        text = f"{mark.value.mean:.{digits}f}"
        if mark.value.bounded:
            text += f" ({mark.value.lower:.{digits}f} to {mark.value.upper:.{digits}f})"
        parts.append(_label(text, width - right + 8, y + 4, "start"))
    return _svg(width, height, title, parts)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Axes of a plot of values against a logarithmic axis, in which x may be none.

    The plot reaches from left to right, and from top to bottom; ticks are those of the values;
    ``low`` and ``high`` are logarithms; in the strip at the left lies what has no x.
    """

    left: float = 60
    right: float = _WIDTH - 20
    top: float = 14
    bottom: float = 388
    ticks: Sequence[float]
    low: float
    high: float
    strip: float = 0

    def across(self, x: float | None) -> float:
        start = self.left + self.strip
        if x is None or x <= 0:
            return self.left + 16
        fraction = (math.log10(x) - self.low) / (self.high - self.low)
        return start + 14 + fraction * (self.right - start - 28)

    def down(self, y: float) -> float:
        fraction = (y - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.bottom - fraction * (self.bottom - self.top)

    def draw(self, x_ticks: Mapping[float, str], x_title: str, y_title: str) -> list[Markup]:
        """Return grid and labels."""
        parts = []
        for tick in self.ticks:
            y = self.down(tick)
            parts.append(element("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            parts.append(_label(f"{tick:g}", self.left - 6, y + 4, "end"))
        for tick, text in x_ticks.items():
            x = self.across(tick)
            parts.append(element("line", x1=x, x2=x, y1=self.top, y2=self.bottom, class_="grid"))
            parts.append(_label(text, x, self.bottom + 16, "middle"))
        if self.strip:
            x = self.left + self.strip
            parts.append(element("line", x1=x, x2=x, y1=self.top, y2=self.bottom, class_="axis"))
            parts.append(_label("none", self.across(None), self.bottom + 16, "middle"))
        parts.append(_label(x_title, (self.left + self.right) / 2, self.bottom + 38, "middle"))
        turn = f"translate(14 {(self.top + self.bottom) / 2:.0f}) rotate(-90)"
        parts.append(element("text", y_title, transform=turn, text_anchor="middle"))
        return parts


def scatter_chart(marks: Sequence[Mark], title: str, x_title: str, y_title: str) -> Markup:
    """Return values against a logarithmic axis, each point with its name beside it.

    Points without a position, or at 0, lie in a strip at the left, marked "none".
    """
    shown = [mark for mark in marks if mark.value.n]
    placed = [m.x for m in shown if m.x is not None and m.x > 0]
    low, high = _decades(placed)
    ticks = _ticks([v for m in shown for v in _ends(m.value)])
    names = [_short(m.name) for m in shown]
    widths = [_text_width(name) for name in names]
    aside = [w for m, w in zip(shown, widths, strict=True) if m.x is None or m.x <= 0]
    strip = 34 + max(aside) if aside else 0
    frame = _Frame(ticks=ticks, low=low, high=high, strip=strip)
    x_ticks = {tick: _amount(tick) for tick in _log_ticks(low, high)} if placed else {}
    parts = frame.draw(x_ticks, x_title, y_title)
    points = [(frame.across(m.x), frame.down(m.value.mean)) for m in shown]
    bars = [tuple(frame.down(v) for v in _ends(m.value)) for m in shown]
    taken = [
        (x - 7, min(y1, y - 7), x + 7, max(y0, y + 7))
        for (x, y), (y0, y1) in zip(points, bars, strict=True)
    ]
    edge = frame.left + strip
    areas = [
        (frame.left + 2, frame.top, edge, frame.bottom - 2)
        if x < edge
        else (edge, frame.top, frame.right + 8, frame.bottom - 2)
        for x, _ in points
    ]
    boxes = place_labels(points, widths, taken, areas)
    for (x, y), box in zip(points, boxes, strict=True):
        near = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
        if math.dist((x, y), near) > 14:
            parts.append(element("line", x1=x, y1=y, x2=near[0], y2=near[1], class_="leader"))
    for mark, name, (x, y), (y0, y1), box in zip(shown, names, points, bars, boxes, strict=True):
        parts.append(element("line", x1=x, x2=x, y1=y0, y2=y1, class_="error"))
        parts.append(_point(x, y, mark.look))
        # The end towards the point is fixed, whatever the width of the page's font.
        end, anchor = (box[2], "end") if box[2] < x else (box[0], "start")
        parts.append(element("text", name, x=end, y=box[3] - 4, text_anchor=anchor, class_="name"))
    return _svg(_WIDTH, 440, title, parts)


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, Interval]]], title: str, x_title: str, y_title: str
) -> Markup:
    """Return lines over a logarithmic axis, each with its name at its right end."""
    points = [(x, value) for line in lines.values() for x, value in line if value.n]
    low, high = _decades([x for x, _ in points])
    ticks = _ticks([v for _, value in points for v in _ends(value)])
    frame = _Frame(right=_WIDTH - 190, ticks=ticks, low=low, high=high)
    parts = frame.draw({x: f"{x:g}" for x in sorted({x for x, _ in points})}, x_title, y_title)
    ends = []
    for i, (name, line) in enumerate(lines.items()):
        look, aside = f"line{i % _LINE_COLORS}", 3 * (i - (len(lines) - 1) / 2)
        known = [(frame.across(x) + aside, value) for x, value in line if value.n]
        places = [(x, frame.down(value.mean)) for x, value in known]
        route = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(element("polyline", points=route, class_=f"line {look}"))
        for (x, value), (_, y) in zip(known, places, strict=True):
            y0, y1 = (frame.down(v) for v in _ends(value))
            parts.append(element("line", x1=x, x2=x, y1=y0, y2=y1, class_=f"error {look}"))
            parts.append(element("circle", cx=x, cy=y, r=4, class_=f"dot {look}"))
        if places:
            ends.append((places[-1][1], name, look))
    ends.sort()
    for y, (_, name, look) in zip(_apart([end[0] for end in ends]), ends, strict=True):
        parts.append(element("circle", cx=frame.right + 12, cy=y, r=4, class_=f"dot {look}"))
        parts.append(_label(_short(name), frame.right + 22, y + 4, "start"))
    return _svg(_WIDTH, 440, title, parts)


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    taken: Iterable[Box],
    areas: Sequence[Box],
) -> list[Box]:
    """Return a box for the label of each point, near it, and clear of other labels and of marks.

    Parameters
    ----------
    points
        Positions (x, y).
    widths
        Widths of the labels, one line high.
    taken
        Boxes of the marks.
    areas
        Where the label of each point may lie.
    """
    blocked, boxes = list(taken), []
    radii = np.arange(10.0, 400.0, 9.0)
    # To the right first, then to the left, above, below, and between these.
    angles = np.deg2rad([0, 180, 270, 90, 315, 45, 225, 135, 340, 20, 200, 160])
    for (x, y), width, area in zip(points, widths, areas, strict=True):
        best: tuple[float, Box] | None = None
        for radius in radii:
            for angle in angles:
                # The label's side that faces the point lies on the circle.
                cx, cy = x + radius * math.cos(angle), y + radius * math.sin(angle)
                x0 = cx - width * (1 - math.cos(angle)) / 2
                y0 = cy - _LINE * (1 - math.sin(angle)) / 2
                box = (x0, y0, x0 + width, y0 + _LINE)
                outside = _area(box) - _overlap(box, area)
                covered = outside + sum(_overlap(box, other) for other in blocked)
                if best is None or covered < best[0] - 1e-6:
                    best = covered, box
            if best is not None and best[0] < 1e-6:
                break
        assert best is not None
        boxes.append(best[1])
        blocked.append(best[1])
    return boxes


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0


def _apart(places: Sequence[float]) -> list[float]:
    """Return ascending places, moved so that each is a line's height from the next."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + _LINE) if moved else place)
    excess = (sum(moved) - sum(places)) / max(len(places), 1)
    return [place - excess for place in moved]


def _ends(value: Interval) -> tuple[float, float]:
    return (value.lower, value.upper) if value.bounded else (value.mean, value.mean)


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers around values, with room at both ends, except below 0."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.5 * max(abs(high), 1e-3)
    low, high = low if low == 0 else low - room, high + room
    return [float(t) for t in MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)]


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the common logarithms of the smallest and the largest value, apart."""
    if not values:
        return 0.0, 1.0
    low, high = math.log10(min(values)), math.log10(max(values))
    return (low, high) if high - low > 0.1 else (low - 0.5, high + 0.5)


def _log_ticks(low: float, high: float) -> list[float]:
    steps = (1,) if high - low > 3 else (1, 3) if high - low > 1.5 else (1, 2, 5)
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [s * 10.0**d for d in decades for s in steps if low <= math.log10(s * 10.0**d) <= high]


def _amount(value: float) -> str:
    """Return a number with k or M for thousands and millions."""
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _text_width(text: str) -> float:
    """Return about the width of a text of size 12, in a wide font."""
    return sum(13 if c > "\u2e80" else 9 if c.isupper() else 7.2 for c in text)


def _label(text: str, x: float, y: float, anchor: str) -> Markup:
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor)


def _error_bar(x0: float, x1: float, y: float) -> Markup:
    caps = (element("line", x1=x, x2=x, y1=y - 4, y2=y + 4, class_="error") for x in (x0, x1))
    return joined(element("line", x1=x0, x2=x1, y1=y, y2=y, class_="error"), *caps)


def _point(x: float, y: float, look: str) -> Markup:
    """Return the mark of a method: a square for a classical one, a diamond or a circle."""
    if "classical" in look:
        return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_=f"dot {look}")
    if "trained" in look:
        return element("circle", cx=x, cy=y, r=5.5, class_=f"dot {look}")
    corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
    return element("polygon", points=corners, class_=f"dot {look}")


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return element("svg", element("title", title), *parts, viewBox=f"0 0 {width:g} {height:g}",
                   class_="chart", role="img", style=f"max-width: {width:g}px")  # fmt: skip
