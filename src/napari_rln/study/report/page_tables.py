"""Tables of the report of a study, as HTML."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from napari_rln.core.report import plural
from napari_rln.study.intervals import Interval, interval, rounded
from napari_rln.study.ranking import AgainstBaseline
from napari_rln.study.report.markup import Markup, element, joined
from napari_rln.study.results import SCORES, Cell, CellResult
from napari_rln.study.selection import (
    ImageKey,
    Kind,
    Method,
    ObjectKey,
    by_image,
    image_of,
    losses,
    mean_of,
    measured,
    of_untrained,
    on_common_images,
    with_networks,
)

DIGITS = {measure: 2 if measure.endswith("_db") else 3 for measure in SCORES}
"""Digits after the point of each score."""

KINDS: Mapping[Kind, str] = {
    "classical": "classical",
    "network": "network, ready-made",
    "trained": "network, trained here",
}
"""Words for the kinds of methods."""

_LOWER_IS_BETTER = {"nrmse", "lateral_um", "axial_um", "seconds", "training_seconds"}
_NO_BEST = {"flux"}
_UNKNOWN = "\N{EN DASH}"


Place = tuple[str | float, str | float]
"""Structures, or photons, of training and test."""

Columns = dict[str, dict[str, Markup]]
"""Cells of a table of methods, by the title of their column and the name of the method."""


def method_table(methods: Iterable[Method], columns: Columns) -> Markup:
    """Return a table with a row per method that has any cell."""
    empty = element("td", _UNKNOWN, class_="number")
    rows = [
        element("tr", method_cell(m), *(cells.get(m.name, empty) for cells in columns.values()))
        for m in methods
        if any(m.name in cells for cells in columns.values())
    ]
    return table(["Method", *columns], rows)


def table(titles: Sequence[str], rows: Iterable[Markup], class_: str = "sortable") -> Markup:
    """Return a table that scrolls if it is wider than the page."""
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    whole = element("table", element("thead", head), element("tbody", *rows), class_=class_)
    return element("div", whole, class_="scroll", tabindex="0")


def method_cell(method: Method) -> Markup:
    """Return the head of the row of a method, with what it is."""
    words = KINDS[method.kind] + ("; needs the truth" if method.oracle else "")
    return element("th", method.name, element("small", words), scope="row")


def value_cell(
    value: Interval,
    digits: int,
    *,
    best: bool = False,
    sign: bool = False,
    more: str = "",
    look: str = "",
) -> Markup:
    """Return a mean with its bounds, or with the number of values if these are too few."""
    if not value.n:
        return element("td", _UNKNOWN, class_="number")
    form = f"{'+' if sign else ''}.{digits}f"
    spread = f"n = {value.n}"
    if value.bounded:
        spread = f"{value.lower:{form}} to {value.upper:{form}}"
    mean = f"{value.mean:{form}}"
    parts = [element("b" if best else "span", mean, class_="mean"), element("small", f"({spread})")]
    parts += [element("small", more)] if more else []
    return element("td", *parts, class_=f"number {look}".strip(), data_value=repr(value.mean))


def number_cell(value: float | None, text: str | None = None, *, best: bool = False) -> Markup:
    """Return a number in a cell, or that it is unknown."""
    if value is None or not math.isfinite(value):
        return element("td", _UNKNOWN, class_="number")
    written = rounded(value) if text is None else text
    shown = element("b", written) if best else written
    return element("td", shown, class_="number", data_value=repr(value))


def main_table(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return the mean scores of conventional tests, parameters and times, by method."""
    own = _by_method(results)
    columns: Columns = {"Images": {name: _image_count(group) for name, group in own.items()}}
    for measure, title in SCORES.items():
        means = means_of(by_image(results, measure))
        best = _best(measure, means, methods)
        if means:
            columns[title] = {
                name: value_cell(mean, DIGITS[measure], best=name == best)
                for name, mean in means.items()
            }
    columns["Parameters"] = {m.name: _parameters(m) for m in methods if m.name in own}
    counts = {
        "Iterations": {name: [r.iterations for r in group] for name, group in own.items()},
        "Steps of training": {
            name: [r.facts.get("training_steps") for r in group] for name, group in own.items()
        },
    }
    for title, numbers in counts.items():
        means = {name: interval(values) for name, values in numbers.items()}
        if any(mean.n for mean in means.values()):
            columns[title] = {name: number_cell(mean.mean) for name, mean in means.items()}
    for measure, title in (("seconds", "Seconds"), ("training_seconds", "Seconds of training")):
        means = means_of(by_image(results, measure))
        best = _best(measure, means, methods)
        columns[title] = {n: number_cell(m.mean, best=n == best) for n, m in means.items()}
    return method_table(methods, columns)


def means_of(values: Mapping[str, Mapping[ImageKey, float]]) -> dict[str, Interval]:
    """Return the mean over test images of each method."""
    return {name: mean_of(of_image) for name, of_image in values.items()}


def _best(measure: str, means: Mapping[str, Interval], methods: Sequence[Method]) -> str | None:
    """Return the method with the best mean of those that need no truth; none of a single one."""
    usable = {m.name for m in methods if not m.oracle}
    kept = {name: value.mean for name, value in means.items() if value.n and name in usable}
    if measure in _NO_BEST or len(kept) < 2:
        return None
    return (min if measure in _LOWER_IS_BETTER else max)(kept, key=lambda name: kept[name])


def _by_method(results: Iterable[CellResult]) -> defaultdict[str, list[CellResult]]:
    own: defaultdict[str, list[CellResult]] = defaultdict(list)
    for result in results:
        own[result.cell.method].append(result)
    return own


def _image_count(results: Sequence[CellResult]) -> Markup:
    done = sum(result.error is None for result in results)
    text = f"{done}" if done == len(results) else f"{done} of {len(results)}"
    return number_cell(done, text)


def _parameters(method: Method) -> Markup:
    if not method.parameters:
        return (
            number_cell(0, "none")
            if method.kind == "classical"
            else element("td", _UNKNOWN, class_="number")
        )
    return number_cell(method.parameters, f"{method.parameters:,}")


def level_table(results: Sequence[CellResult], methods: Sequence[Method], field: str) -> Markup:
    """Return the mean PSNR by method and level: of photons, structures (``tested_on``) or PSF."""
    columns: Columns = {}
    for level in sorted({getattr(result.cell, field) for result in results}):
        group = [result for result in results if getattr(result.cell, field) == level]
        images, cells = _psnr_column(group, methods)
        columns[f"{_level(field, level)}, {images}"] = cells
    return method_table(methods, columns)


def _level(field: str, level: str | float) -> str:
    return f"{level:g} photons" if field == "photons" else str(level)


def _psnr_column(
    results: Sequence[CellResult], methods: Sequence[Method], lost: Mapping[str, Interval] = {}
) -> tuple[str, dict[str, Markup]]:
    """Return the number of test images in words, and the mean PSNR of each method, and its loss.

    Of methods with different images none is the best.
    """
    values = by_image(results, "psnr_db")
    means, images = means_of(values), {frozenset(own) for own in values.values()}
    words, best = "different images", None
    if len(images) == 1:
        words, best = plural(len(*images), "image"), _best("psnr_db", means, methods)
    return words, {
        name: value_cell(mean, 2, best=name == best, more=_loss(lost.get(name), mean.n))
        for name, mean in means.items()
    }


def changed_table(
    results: Sequence[CellResult], everything: Sequence[CellResult], methods: Sequence[Method]
) -> Markup:
    """Return the mean PSNR of generalisation tests, and what they lose, by method and change.

    Each column is over the images of the change that its methods share. Where only networks are
    tested, on what they were not trained on, the other methods stand beside them.
    """
    groups: defaultdict[tuple[bool, str], list[CellResult]] = defaultdict(list)
    for result in results:
        groups[result.cell.condition != "", change_of(result.cell)].append(result)
    columns: Columns = {}
    for (condition, change), tested in sorted(groups.items()):
        there = [] if condition else of_untrained(everything, {image_of(r.cell) for r in tested})
        group, shared = on_common_images(with_networks([*tested, *there]))
        changed = [r for r in group if r.cell.test == "generalisation"]
        lost = means_of(losses(changed, everything, "psnr_db"))
        images, cells = _psnr_column(group, methods, lost)
        if not cells:
            continue
        for name, n in shared.left_out.items():
            few = element("small", f"{n} of {plural(shared.every, 'image')}")
            cells.setdefault(name, element("td", _UNKNOWN, few, class_="number"))
        columns[f"{change}, {images}"] = cells
    return method_table(methods, columns)


def change_of(cell: Cell) -> str:
    """Return in words what a generalisation test changes."""
    if cell.condition:
        return cell.condition
    structures = cell.trained_on not in (None, cell.tested_on)
    photons = cell.trained_photons not in (None, cell.photons)
    both = {
        (True, False): "trained on other structures",
        (False, True): "trained at other photons",
        (True, True): "trained on other structures at other photons",
    }
    return both.get((structures, photons), "as trained")


def _loss(value: Interval | None, images: int) -> str:
    """Return a loss in words, with the number of its images if it is not that of the mean."""
    if value is None or not value.n:
        return ""
    spread = f"n = {value.n}"
    if value.bounded:
        spread = f"{value.lower:.2f} to {value.upper:.2f}"
        if value.n != images:
            spread += f"; {plural(value.n, 'image')}"
    return f"loses {value.mean:.2f} ({spread})"


def matrices(results: Sequence[CellResult], method: Method, span: tuple[float, float]) -> Markup:
    """Return the mean PSNR of a trained method by training and test, as coloured tables.

    Structures at the photons of the training, and photons of its structures.

    Parameters
    ----------
    results
        Results without conditions.
    method
        The method.
    span
        Smallest and largest mean of the colours, common to all methods.
    """
    parts = []
    for title, rows in matrix_values(results, method.name).items():
        trained = sorted({row for row, _ in rows})
        tested = sorted({column for _, column in rows})
        body = [
            element(
                "tr",
                element("th", _named(row), scope="row"),
                *(_heat(rows.get((row, at), Interval()), span, own=row == at) for at in tested),
            )
            for row in trained
        ]
        head = ["trained \\ tested", *map(_named, tested)]
        caption = element("figcaption", f"{method.name}, {title}")
        parts.append(element("figure", caption, table(head, body, "matrix")))
    return joined(*parts)


def matrix_values(results: Iterable[CellResult], method: str) -> dict[str, dict[Place, Interval]]:
    """Return the mean PSNR of a method by (training, test), of structures and of photons.

    Without those of which there is one training and one test only.
    """
    lists: dict[str, defaultdict[Place, list[tuple[ObjectKey, float]]]] = {
        "structures": defaultdict(list),
        "photons": defaultdict(list),
    }
    for result in results:
        cell = result.cell
        if cell.method != method or cell.trained_on is None or cell.condition:
            continue
        value = image_of(cell).object, measured(result, "psnr_db")
        if cell.trained_photons in (None, cell.photons):
            lists["structures"][cell.trained_on, cell.tested_on].append(value)
        if cell.trained_photons is not None and cell.trained_on == cell.tested_on:
            lists["photons"][cell.trained_photons, cell.photons].append(value)
    return {
        title: {
            place: interval((v for _, v in values), (which for which, _ in values))
            for place, values in places.items()
        }
        for title, places in lists.items()
        if len(places) > 1
    }


def _named(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _heat(value: Interval, span: tuple[float, float], *, own: bool) -> Markup:
    """Return a cell coloured by its mean; ``own`` is where the test is of what was trained on."""
    if not value.n:
        return element("td", _UNKNOWN, class_="number")
    share = (value.mean - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    style = f"background-color: rgb(0 130 200 / {0.05 + 0.55 * share:.3f})"
    spread = f"n = {value.n}"
    if value.bounded:
        spread = f"{value.lower:.2f} to {value.upper:.2f}"
    mean = element("span", f"{value.mean:.2f}", class_="mean")
    return element(
        "td", mean, element("small", f"({spread})"), class_="own" if own else None, style=style,
        data_value=repr(value.mean),
    )  # fmt: skip


def baseline_table(rows: Sequence[AgainstBaseline], methods: Sequence[Method]) -> Markup:
    """Return the gains of methods over the baseline by photon level and by structure."""
    columns: Columns = {}
    for row in sorted(rows, key=lambda row: (row.by, row.level)):
        cells = columns.setdefault(_level(row.by, row.level), {})
        look = row.verdict if row.verdict in ("better", "worse") else ""
        more = f"{row.verdict}, {plural(row.gain.n, 'image')}"
        cells[row.method] = value_cell(row.gain, 2, sign=True, more=more, look=look)
    return method_table(methods, columns)


def volumes_table(
    lines: Mapping[str, Sequence[tuple[float, Interval]]], methods: Sequence[Method]
) -> Markup:
    """Return the mean PSNR by method and number of training volumes."""
    columns: Columns = {}
    for n in sorted({n for line in lines.values() for n, _ in line}):
        columns[plural(int(n), "volume")] = {
            name: value_cell(dict(line).get(n, Interval()), 2) for name, line in lines.items()
        }
    return method_table(methods, columns)


def failure_table(results: Sequence[CellResult]) -> Markup:
    """Return the failed cells, those with one message of one method together."""
    failed = sorted(
        (r for r in results if r.error is not None), key=lambda r: (r.cell.method, r.error or "")
    )
    rows = []
    for (name, message), group in groupby(failed, key=lambda r: (r.cell.method, r.error or "")):
        cells = list(group)
        listed = [element("li", cell_words(r.cell), " ", element("code", r.key)) for r in cells]
        folded = element("details", element("summary", plural(len(cells), "cell")),
                         element("ul", *listed))  # fmt: skip
        rows.append(
            element("tr", element("th", name, scope="row"), element("td", message),
                    element("td", folded, data_value=str(len(cells))))
        )  # fmt: skip
    return table(["Method", "Message", "Cells"], rows, "sortable text")


def cell_words(cell: Cell) -> str:
    """Return a cell but its method in words."""
    words = [f"PSF {cell.psf}", f"{cell.photons:g} photons", cell.tested_on]
    if cell.trained_on is not None:
        training = f"trained on {cell.trained_on}"
        if cell.trained_photons is not None:
            training += f" at {cell.trained_photons:g} photons"
        if cell.training_volumes is not None:
            training += f", {plural(cell.training_volumes, 'volume')}"
        words.append(training)
    words += [cell.condition] if cell.condition else []
    return "; ".join([*words, f"seed {cell.seed}"])


def cell_tables(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return a folded table of the cells of each method, with the command that repeats each."""
    own = _by_method(results)
    scores = [s for s in SCORES if any(math.isfinite(measured(r, s)) for r in results)]
    titles = ["Cell", *(SCORES[s] for s in scores), "Seconds", "Key", "Command"]
    parts = []
    for method in methods:
        rows = []
        for result in own[method.name]:
            words = element("th", cell_words(result.cell), scope="row")
            if result.error is not None:
                words = element("th", cell_words(result.cell), element("small", "failed",
                                class_="worse"), scope="row")  # fmt: skip
            values = [_score_cell(measured(result, s), DIGITS[s]) for s in scores]
            code = element("code", result.command) if result.command else _UNKNOWN
            rows.append(
                element("tr", words, *values, number_cell(measured(result, "seconds")),
                        element("td", element("code", result.key)), element("td", code),
                        id=f"cell-{result.key}")
            )  # fmt: skip
        title = f"{method.name} ({plural(len(rows), 'cell')})"
        parts.append(
            element("details", element("summary", title), table(titles, rows, "sortable cells"))
        )
    return joined(*parts)


def _score_cell(value: float, digits: int) -> Markup:
    return number_cell(value, f"{value:.{digits}f}")
