"""Report of a study: one HTML file that loads nothing from elsewhere."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from napari_rln.core.report import plural
from napari_rln.io.paths import atomic
from napari_rln.study.intervals import Interval
from napari_rln.study.recommendation import SEVERAL_MACHINES, Recommendation
from napari_rln.study.report.charts import Mark, bar_chart, line_chart, scatter_chart
from napari_rln.study.report.markup import Markup, element, joined
from napari_rln.study.report.page_tables import (
    DIGITS,
    KINDS,
    baseline_table,
    cell_tables,
    changed_table,
    failure_table,
    level_table,
    main_table,
    matrices,
    matrix_values,
    volumes_table,
)
from napari_rln.study.report.pictures import draw, picture_sets
from napari_rln.study.results import SCORES, CellResult
from napari_rln.study.selection import (
    ImageKey,
    Method,
    by_image,
    conventional_tests,
    fully_trained,
    image_of,
    mean_of,
    methods_of,
    on_common_images,
    several_machines,
)

_INTERVALS = (
    "Numbers are means over test images. In brackets: the 95 % bootstrap interval of the mean over "
    "the simulated objects, each with all of its images; of fewer than three objects there is "
    "none, and the number n of images is given. How much another training would differ is not in "
    "the intervals, and they are not corrected for the number of comparisons. Bold: the best mean "
    "of methods that need no truth."
)
_ABBREVIATIONS = {"psf": "PSF", "na": "NA", "um": "(um)", "nm": "(nm)"}
_FACTS = ("versions", "machine")  # of the run, not of the configuration


def write_report(
    folder: Path,
    results: Sequence[CellResult],
    configuration: Mapping[str, Any],
    advice: Recommendation,
) -> Path:
    """Write the report of a study into its folder as ``report.html``, and return its path.

    Parameters
    ----------
    folder
        Folder of the study, which holds the planes and, by their dates, when cells were computed.
    results
        Results of its cells.
    configuration
        Contents of its ``study.json``.
    advice
        Answers from the results.

    Raises
    ------
    RlnError
        If a file of planes is damaged.
    """
    page = _report(folder, results, configuration, advice)
    path = folder / "report.html"
    with atomic(path) as temporary:
        # Names of files may not be valid text.
        temporary.write_bytes(page.encode("utf-8", errors="replace"))
    return path


def _report(
    folder: Path,
    results: Sequence[CellResult],
    configuration: Mapping[str, Any],
    advice: Recommendation,
) -> Markup:
    methods, counted = methods_of(results), fully_trained(results)
    sections = {
        "Which should I use?": _advice(advice, methods),
        "Conventional tests": _conventional(counted, methods),
        "Generalisation": _generalisation(counted, methods),
        "Training and test": _matrices(counted, methods),
        "Charts": _charts(counted, methods),
        "Number of training volumes": _volumes(results, methods),
        "Figures": _figures(folder, counted, methods),
        "Failures": _failures(results),
        "The study": _study(folder, results, configuration),
        "Every cell": _cells(results, methods),
    }
    name = str(configuration.get("name") or folder.resolve().name)
    links = [element("a", title, href=f"#{_anchor(title)}") for title in sections]
    count = f"{len(results)} cells, {len(methods)} methods; written {_date(datetime.now())}."
    body = [element("h1", name), element("p", count, class_="note"), element("nav", *links)]
    for title, content in sections.items():
        body.append(element("section", element("h2", title), content, id=_anchor(title)))
    return _page(name, joined(*body))


def _page(name: str, body: Markup) -> Markup:
    """Return the page, with style and script in it; its policy forbids to load anything."""
    files = resources.files("napari_rln.study.report")
    style, script = (
        Markup(files.joinpath(f"report.{kind}").read_text("utf-8")) for kind in ("css", "js")
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", content=policy, http_equiv="Content-Security-Policy"),
        element("meta", content="width=device-width, initial-scale=1", name_="viewport"),
        element("link", rel="icon", href="data:,"),
        element("title", name),
        element("style", style),
    )
    page = element("body", element("main", body), element("script", script))
    return Markup("<!DOCTYPE html>\n" + element("html", head, page, lang="en-GB"))


def _advice(advice: Recommendation, methods: Sequence[Method]) -> Markup:
    """Return the answers, and the table of the methods against the baseline."""
    articles = []
    for statement in advice.statements:
        tag = element("span", "a hint only", class_="tag") if statement.hint else Markup()
        parts = [element("h3", statement.question, tag)]
        if statement.methods:
            parts.append(element("p", "; ".join(statement.methods), class_="answer"))
        parts.append(element("p", statement.text))
        if statement.images:
            images = plural(statement.images, "test image")
            objects = plural(statement.objects, "object")
            grounds = f"From {plural(statement.cells, 'cell')} on {images} of {objects}."
            parts.append(element("p", grounds, class_="note"))
        articles.append(element("article", *parts, class_="hint" if statement.hint else None))
    parts = [element("p", advice.short, class_="short")] if advice.short else []
    parts.append(element("div", *articles, class_="answers"))
    if advice.against_baseline:
        title = f"PSNR above that of {advice.baseline}, dB, in conventional tests"
        parts += [element("h3", title), baseline_table(advice.against_baseline, methods)]
    return joined(*parts)


def _conventional(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return the main table, and the PSNR by photons, structures and PSF."""
    every = [r for r in results if r.cell.test == "conventional"]
    if not every:
        return element("p", "Not measured.")
    common, words = _on_shared(conventional_tests(results))
    note = (
        f"Test images like those of the training, with the right PSF. {_INTERVALS} {words} All "
        "scores but the light are after a fit of scale and offset to the truth; smaller is better "
        "for NRMSE and FSC resolution."
    )
    parts = [element("p", note, class_="note"), main_table(common, methods)]
    last = Counter(r.cell.method for r in common if r.facts.get("at_last_count"))
    if last:
        listed = "; ".join(f"{name}: {n}" for name, n in sorted(last.items()))
        text = (
            "More iterations might be better where the best stop was the last one tried. Such test "
            f"images: {listed}."
        )
        parts.append(element("p", text, class_="note"))
    parts += _by_level(common, methods, "")
    further, others = _on_shared([r for r in every if r.cell.trained_on is None])
    if {image_of(r.cell) for r in further} > {image_of(r.cell) for r in common}:
        parts.append(element("h3", "Methods that were not trained here, on more images"))
        parts.append(element("p", others, class_="note"))
        parts += _by_level(further, methods, ", methods that were not trained here")
    return joined(*parts)


def _by_level(
    results: Sequence[CellResult], methods: Sequence[Method], addition: str
) -> list[Markup]:
    """Return tables of the PSNR by photons, structures and PSF, of which there are several."""
    parts = []
    for field, title in (("photons", "photons"), ("tested_on", "structures"), ("psf", "PSF")):
        if len({getattr(result.cell, field) for result in results}) > 1:
            parts.append(element("h3", f"PSNR (dB) by {title}{addition}"))
            parts.append(level_table(results, methods, field))
    return parts


def _on_shared(results: Sequence[CellResult]) -> tuple[Sequence[CellResult], str]:
    """Return the results on the test images that all methods share, and what to say of them."""
    common, shared = on_common_images(results)
    if not shared.images:
        return common, "No test image has a result of every method: each mean is over its own."
    words = f"Means over the {len(shared.images)} of {shared.every} test images that all have."
    if shared.left_out:
        few = "; ".join(f"{name} ({n})" for name, n in shared.left_out.items())
        words += f" Left out, with fewer than half of them: {few}."
    return common, words


def _generalisation(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return the PSNR by condition, with the losses."""
    own = [r for r in results if r.cell.test == "generalisation"]
    if not own:
        return element("p", "Not measured.")
    note = (
        "PSNR (dB) of test images that differ from the training or from the assumed PSF; each "
        "column is over the images that its methods share. Below: by how much it falls, on the "
        "same images, from the same training without the condition, or from the training on the "
        "structures and photons of the image where there is one."
    )
    return joined(element("p", note, class_="note"), changed_table(own, results, methods))


def _matrices(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return the matrices of all trained methods, in common colours."""
    trained = [m for m in methods if m.kind == "trained"]
    means = [
        value.mean
        for method in trained
        for places in matrix_values(results, method.name).values()
        for value in places.values()
        if value.n
    ]
    if not means:
        return element("p", "Not measured: no method was trained on more than one thing.")
    span = min(means), max(means)
    note = (
        f"Mean PSNR (dB) of tests without a condition. Colours from {span[0]:.2f} to "
        f"{span[1]:.2f} dB in all matrices; framed: tested on what it was trained on."
    )
    drawn = [matrices(results, method, span) for method in trained]
    return joined(element("p", note, class_="note"), element("div", *drawn, class_="matrices"))


def _charts(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return bars of the scores, and quality against time and against parameters."""
    own, words = _on_shared(conventional_tests(results))
    looks = {m.name: f"{m.kind} oracle" if m.oracle else m.kind for m in methods}
    charts, psnr = dict[str, Markup](), list[Mark]()
    for measure in ("psnr_db", "ssim", "lateral_um", "axial_um"):
        means = {n: mean_of(v) for n, v in by_image(own, measure).items()}
        small = measure.endswith("_um")
        names = sorted(means, key=lambda name: means[name].mean, reverse=not small)
        marks = [Mark(name=n, look=looks[n], value=means[n]) for n in names]
        psnr = marks if measure == "psnr_db" else psnr
        if marks:
            title = SCORES[measure] + (", smaller is better" if small else "")
            charts[title] = bar_chart(marks, title, digits=DIGITS[measure], from_zero=small)
    if not psnr:
        return element("p", "Not measured.")
    seconds = {n: mean_of(v).mean for n, v in by_image(own, "seconds").items()}
    parameters = {m.name: m.parameters for m in methods}
    for places, title, x_title in (
        (seconds, "Quality against run time", "seconds per test image"),
        (parameters, "Quality against parameters", "trained parameters"),
    ):
        marks = [Mark(name=m.name, look=m.look, value=m.value, x=places.get(m.name)) for m in psnr]
        if any(mark.x for mark in marks):
            charts[title] = scatter_chart(marks, title, x_title, SCORES["psnr_db"])
    kinds = {m.kind for m in methods}
    key = [element("span", text, class_=f"key {kind}") for kind, text in KINDS.items()
           if kind in kinds]  # fmt: skip
    if any(m.oracle for m in methods):
        key.append(element("span", "pale: needs the truth", class_="key"))
    figures = [
        element("figure", element("figcaption", title), chart) for title, chart in charts.items()
    ]
    note = f"Conventional tests, with intervals. {words}"
    return joined(element("p", note, " ", *key, class_="note"),
                  element("div", *figures, class_="charts"))  # fmt: skip


def _volumes(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return the PSNR against the number of training volumes."""
    lines = dict[str, list[tuple[float, Interval]]]()
    for method in methods:
        own = [
            r for r in results
            if r.cell.method == method.name and r.cell.training_volumes is not None
            and r.cell.test == "conventional"
        ]  # fmt: skip
        numbers = sorted({r.cell.training_volumes or 0 for r in own})
        line = []
        for n in numbers:
            values = by_image([r for r in own if r.cell.training_volumes == n], "psnr_db")
            line.append((float(n), mean_of(values.get(method.name, {}))))
        if sum(value.n > 0 for _, value in line) > 1:
            lines[method.name] = line
    if not lines:
        return element("p", "Not measured: no method was trained with different numbers.")
    chart = line_chart(lines, "PSNR against training volumes", "training volumes", "PSNR (dB)")
    note = "Mean PSNR (dB) of conventional tests. All other sections show the largest number."
    return joined(
        element("p", note, class_="note"),
        element("figure", chart),
        volumes_table(lines, methods),
    )


def _figures(folder: Path, results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    """Return planes of some test images, the first unfolded."""
    sets, count = picture_sets(folder, results, [m.name for m in methods])
    if not sets:
        return element("p", "There are no planes of test images in the folder of the study.")
    note = (
        "Middle planes, xy above xz, in their true proportions; results after a fit of scale and "
        "offset to the truth; below them, what is left after subtraction of the truth."
    )
    if len(sets) < count:
        note += f" {len(sets)} of {count} test images, chosen to show every kind of them."
    parts = [element("p", note, class_="note")]
    for i, pictures in enumerate(sets):
        summary = element("summary", _image_words(pictures.image))
        parts.append(element("details", summary, draw(pictures), class_="figures", open=i == 0))
    return joined(*parts)


def _image_words(image: ImageKey) -> str:
    words = [image.tested_on, f"{image.photons:g} photons", f"PSF {image.psf}"]
    words += [image.condition] if image.condition else []
    return "; ".join([*words, f"seed {image.seed}"])


def _failures(results: Sequence[CellResult]) -> Markup:
    failed = sum(result.error is not None for result in results)
    if not failed:
        return element("p", "No cell failed.")
    count = f"{failed} of {len(results)} cells failed; the means are without them."
    return joined(element("p", count), failure_table(results))


def _study(folder: Path, results: Sequence[CellResult], configuration: Mapping[str, Any]) -> Markup:
    """Return the configuration in words, machine, versions and dates."""
    settings = {k: v for k, v in configuration.items() if k not in _FACTS and k != "name"}
    parts = [_described(settings)] if settings else [element("p", "The configuration is unknown.")]
    for key in _FACTS:
        if configuration.get(key):
            parts += [element("h3", key.capitalize()), _described(configuration[key])]
    if several_machines(results):
        parts.append(element("p", SEVERAL_MACHINES, class_="note"))
    files = [folder / "cells" / f"{result.key}.json" for result in results]
    times = [datetime.fromtimestamp(f.stat().st_mtime) for f in files if f.exists()]
    if times:
        dates = f"The cells were computed from {_date(min(times))} to {_date(max(times))}."
        parts.append(element("p", dates, class_="note"))
    return joined(*parts)


def _described(value: Any) -> Markup:
    """Return a value of JSON types in words: tables as lists of terms, named tables as items."""
    if isinstance(value, Mapping):
        terms = (
            element("div", element("dt", _words(str(key))), element("dd", _described(item)))
            for key, item in value.items()
        )
        return element("dl", *terms) if value else Markup("none")
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return element("ul", *(element("li", _item(item)) for item in value))
    if isinstance(value, list):
        return joined(", ".join(_plain(item) for item in value) or "none")
    return joined(_plain(value))


def _item(table: Any) -> Markup:
    """Return a table of a list in one line, its name first."""
    if not isinstance(table, Mapping):
        return joined(_plain(table))
    rest = [f"{_words(str(k))} {_plain(v)}" for k, v in table.items() if k != "name"]
    name = element("b", str(table["name"]), ": " if rest else "") if "name" in table else ""
    return joined(name, "; ".join(rest))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(k))} {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(key: str) -> str:
    """Return the name of a setting as words."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in key.split("_"))


def _cells(results: Sequence[CellResult], methods: Sequence[Method]) -> Markup:
    note = (
        "By method, with the command that computes each cell again. The same numbers with all "
        "their digits are in cells.csv beside this file."
    )
    return joined(element("p", note, class_="note"), cell_tables(results, methods))


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")


def _date(time: datetime) -> str:
    return f"{time.day} {time:%B %Y, %H:%M}"
