"""Which method should I use? An answer from the measured results alone, in sentences."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from napari_rln.core.limits import check_limits
from napari_rln.core.report import plural
from napari_rln.study.config import PSF_CHANGES
from napari_rln.study.intervals import FEWEST, Interval, rounded
from napari_rln.study.ranking import AgainstBaseline, Ranking, against_baseline, rank
from napari_rln.study.results import CellResult
from napari_rln.study.selection import (
    ByImage,
    ImageKey,
    Method,
    by_image,
    concerns_psf,
    conventional_tests,
    fully_trained,
    image_of,
    losses,
    mean_of,
    measured,
    methods_of,
    of_untrained,
    several_machines,
    with_networks,
)

SEVERAL_MACHINES = (
    "The results are of several machines or numbers of threads: times, and networks trained in "
    "equal minutes, do not compare."
)
"""Warning on results that were not made under equal conditions."""

# Question, name, digits and unit of the scores that methods are ranked by.
_BEST = {
    "psnr_db": ("Which gives the best image, by PSNR?", "PSNR", 2, " dB"),
    "ssim": ("Which gives the best image, by SSIM?", "SSIM", 4, ""),
    "psnr_xz_db": ("Which gives the best axial view, by PSNR?", "PSNR of xz planes", 2, " dB"),
}


@dataclass(frozen=True, kw_only=True)
class RecommendationSettings:
    """Settings of the recommendation.

    Parameters
    ----------
    fewest_objects
        Number of simulated objects below which a statement is called a hint.
    within_db
        The fastest method is sought within this loss of PSNR from the best one.
    robust_within_db
        The method that loses least by a change is sought within this loss of PSNR from the best one
        with the change: a method whose images are bad has little to lose.
    baseline
        Method that the others are compared with; by default the classical one of the highest PSNR.
    psf_conditions
        Names of the conditions that are a wrong PSF; by default those whose name says so.
    trained_once
        Whether each network has one training for each PSF and class, so that it is unknown how much
        another training differs.
    """

    fewest_objects: Annotated[int, {"min": 3, "max": 100_000}] = 6
    within_db: Annotated[float, {"min": 0.0, "max": 20.0, "unit": "dB"}] = 0.2
    robust_within_db: Annotated[float, {"min": 0.0, "max": 20.0, "unit": "dB"}] = 1.0
    baseline: str | None = None
    psf_conditions: tuple[str, ...] | None = None
    trained_once: bool = False

    def __post_init__(self) -> None:
        check_limits(self)


def settings_for(configuration: Mapping[str, Any]) -> RecommendationSettings:
    """Return the settings for a study, from the contents of its ``study.json``."""
    tables, names = configuration.get("condition"), None
    if isinstance(tables, list):  # of what changes the PSF, not the light or the camera
        changes = set(PSF_CHANGES)
        names = tuple(
            str(t.get("name")) for t in tables if isinstance(t, dict) and changes & set(t)
        )
    baseline = configuration.get("baseline")
    return RecommendationSettings(
        baseline=baseline if isinstance(baseline, str) and baseline else None,
        psf_conditions=names,
        trained_once=len(configuration.get("train_seeds") or configuration.get("seeds") or ()) == 1,
    )


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An answer to one question.

    Attributes
    ----------
    question
        The question.
    methods
        Recommended methods, the best first; empty if nothing was measured, or to report facts.
    text
        The answer in sentences, with the numbers.
    images, objects, cells
        Number of test images, of the objects in them, and of results, behind the answer.
    hint
        Whether there were too few objects to recommend anything.
    """

    question: str
    methods: tuple[str, ...] = ()
    text: str
    images: int = 0
    objects: int = 0
    cells: int = 0
    hint: bool = False


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Answers, and the comparison with the baseline.

    Attributes
    ----------
    statements
        The answers.
    short
        The methods of the main answers, without reasons; empty if nothing was measured.
    baseline
        Name of the baseline; None if the study has none.
    against_baseline
        All other methods against it, in dB of PSNR.
    """

    statements: tuple[Statement, ...]
    short: str = ""
    baseline: str | None = None
    against_baseline: tuple[AgainstBaseline, ...] = ()


def recommend(
    results: Iterable[CellResult], settings: RecommendationSettings | None = None
) -> Recommendation:
    """Return answers to which method to use, from the results of a study.

    Methods that need the truth are mentioned but not recommended. Trained methods count with their
    largest number of training volumes. Methods are compared on the test images that all have.
    """
    everything = tuple(results)
    study = _Study(everything, settings or RecommendationSettings())
    best, quality = _best(study, "psnr_db")
    fastest, wrong = _fastest(study, quality), _with_wrong_psf(study)
    statements = [
        best,
        _best(study, "ssim")[0],
        _best(study, "psnr_xz_db")[0],
        fastest,
        wrong,
        _with_other_change(study),
        *_generalisation(study),
    ]
    baseline = study.settings.baseline or _best_classical(study)
    every = [r for r in study.counted if r.cell.test == "conventional"]
    against = against_baseline(every, baseline) if baseline else ()
    statements.append(_baseline(study, baseline, against))
    statements.append(_failures(everything))
    return Recommendation(
        statements=tuple(s for s in statements if s is not None),
        short=_short(best, fastest, wrong),
        baseline=baseline,
        against_baseline=against,
    )


def _short(best: Statement, fastest: Statement, wrong: Statement) -> str:
    """Return the methods of three answers."""
    parts = (("Best image", best), ("Fastest near it", fastest), ("With a wrong PSF", wrong))
    return " ".join(
        f"{words}: {' or '.join(s.methods)}{' (a hint: too few objects)' if s.hint else ''}."
        for words, s in parts
        if s.methods
    )


@dataclass
class _Study:
    """Results that count, and the settings."""

    everything: tuple[CellResult, ...]
    settings: RecommendationSettings
    methods: tuple[Method, ...] = ()
    counted: list[CellResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.methods = methods_of(self.everything)
        self.counted = fully_trained(self.everything)

    @property
    def oracles(self) -> set[str]:
        return {method.name for method in self.methods if method.oracle}

    def conventional(self) -> list[CellResult]:
        return conventional_tests(self.counted)

    def changed(self, *, psf: bool) -> list[CellResult]:
        """Return the results with a wrong PSF, or those with another condition."""
        names = self.settings.psf_conditions
        return with_networks(
            [r for r in self.counted if r.cell.condition and concerns_psf(r, names) == psf]
        )

    def usable(self, values: dict[str, ByImage]) -> dict[str, ByImage]:
        return {name: own for name, own in values.items() if name not in self.oracles}

    def statement(
        self,
        question: str,
        ranking: Ranking | None,
        used: Sequence[CellResult],
        text: str,
        methods: Sequence[str] | None = None,
        measure: str = "psnr_db",
    ) -> Statement:
        """Return a statement with the numbers behind it, and a warning if they are few."""
        if ranking is None:
            return Statement(question=question, text=text)
        images = set(ranking.images)
        cells = sum(
            r.cell.method in ranking.means
            and image_of(r.cell) in images
            and math.isfinite(measured(r, measure))
            for r in used
        )
        objects = _objects(images)
        text += self.warning(objects)
        if ranking.left_out:
            few = (f"{name} ({n} of {ranking.every})" for name, n in ranking.left_out.items())
            text += f" Left out, with results on fewer than half of the test images: {_list(few)}."
        trained = {m.name for m in self.methods if m.kind == "trained"}
        if self.settings.trained_once and measure != "seconds" and trained & {*ranking.means}:
            text += " Each network was trained once; another training may differ."
        best = (ranking.best, *ranking.equal_within_noise) if methods is None else tuple(methods)
        return Statement(
            question=question,
            methods=best,
            text=text,
            images=len(images),
            objects=objects,
            cells=cells,
            hint=bool(self.warning(objects)),
        )

    def warning(self, objects: int) -> str:
        """Return a sentence if there are few objects, and nothing otherwise."""
        fewest = self.settings.fewest_objects
        if objects >= fewest:
            return ""
        return (
            f" This rests on {plural(objects, 'simulated object')}; a recommendation needs "
            f"{fewest}: it is a hint."
        )


def _best(study: _Study, measure: str) -> tuple[Statement, Ranking | None]:
    """Return which method has the highest mean of a score in conventional tests."""
    question, name, digits, unit = _BEST[measure]
    used = study.conventional()
    values = by_image(used, measure)
    ranking = rank(study.usable(values))
    if ranking is None:
        text = "Not measured: no conventional test image has a result of each method."
        return study.statement(question, None, used, text), None
    text = (
        f"{ranking.best} has the highest mean {name}, "
        f"{_with_bounds(ranking.means[ranking.best], digits, unit)}, over "
        f"{_images(ranking.images, 'conventional test image')}. "
        f"{_others(ranking, digits, unit)}"
    )
    shown = []
    for oracle in sorted(study.oracles & set(values)):
        own = values[oracle]
        mean = mean_of({image: own[image] for image in ranking.images if image in own})
        if mean.n:
            shown.append(f"{oracle} ({mean.mean:.{digits}f}{unit})")
    if shown:
        text += f" Not to be had without the truth, and so only for comparison: {_list(shown)}."
    return study.statement(question, ranking, used, text, measure=measure), ranking


def _others(ranking: Ranking, digits: int, unit: str) -> str:
    """Return how the other methods stand to the best."""
    if not ranking.behind:
        return "It is the only method with enough results."
    if _objects(ranking.images) < FEWEST:
        return f"From images of fewer than {FEWEST} objects no two methods can be told apart."
    if ranking.equal_within_noise:
        equal = (
            f"{name} (difference {_with_bounds(ranking.behind[name], digits, unit)})"
            for name in ranking.equal_within_noise
        )
        return f"The noise of the test images does not tell it from {_list(equal)}."
    nearest, difference = next(iter(ranking.behind.items()))
    return (
        f"All others are behind by more than the noise of the test images; the nearest, {nearest}, "
        f"by {_with_bounds(difference, digits, unit)}."
    )


def _fastest(study: _Study, quality: Ranking | None) -> Statement:
    """Return which method is the fastest of those near the best PSNR."""
    within = study.settings.within_db
    question = f"Which is the fastest within {within:g} dB of the best PSNR?"
    used = study.conventional()
    absent = "Not measured: there are no times of methods near the best PSNR."
    if quality is None:
        return study.statement(question, None, used, absent)
    near = [quality.best, *(n for n, behind in quality.behind.items() if behind.mean <= within)]
    values, images = by_image(used, "seconds"), set(quality.images)
    times = {n: {i: v for i, v in values.get(n, {}).items() if i in images} for n in near}
    seconds = rank({name: own for name, own in times.items() if own}, lowest_first=True)
    if seconds is None:
        return study.statement(question, None, used, absent)
    loss = quality.behind[seconds.best].mean if seconds.best != quality.best else 0.0
    how = f"{loss:.2f} dB behind {quality.best}" if loss else "and has the highest PSNR itself"
    text = (
        f"{seconds.best} takes {_seconds(seconds.means[seconds.best].mean)} per test image, {how}."
    )
    if quality.best != seconds.best and quality.best in seconds.means:
        ratio = seconds.means[quality.best].mean / seconds.means[seconds.best].mean
        taken = _seconds(seconds.means[quality.best].mean)
        text += f" {quality.best} takes {taken}, {ratio:.3g} times as long."
    others = [name for name in seconds.means if name not in (quality.best, seconds.best)]
    if others:
        also = (f"{name} ({_seconds(seconds.means[name].mean)})" for name in others)
        text += f" Also within {within:g} dB: {_list(also)}."
    text += " Without training, on the machine of the study."
    if several_machines(used):
        text += f" {SEVERAL_MACHINES}"
    return study.statement(question, seconds, used, text, [seconds.best], "seconds")


def _changed(
    study: _Study, question: str, used: list[CellResult], against: str, absent: str
) -> Statement:
    """Return which method has most PSNR on changed images, and which near it loses least."""
    highest = rank(study.usable(by_image(used, "psnr_db")))
    if highest is None:
        return study.statement(question, None, used, f"Not measured: {absent}.")
    names = sorted({image.condition for image in highest.images} - {""})
    where = f" ({'; '.join(names)})" if names else ""
    text = (
        f"{highest.best} has the highest mean PSNR, "
        f"{_with_bounds(highest.means[highest.best], 2, ' dB')}, over "
        f"{_images(highest.images)}{where}. {_others(highest, 2, ' dB')}"
    )
    within = study.settings.robust_within_db
    near = {highest.best, *(n for n, behind in highest.behind.items() if behind.mean <= within)}
    lost = losses([r for r in used if r.cell.method in near], study.counted, "psnr_db")
    least = rank(study.usable(lost), lowest_first=True)
    if least is not None:
        among = f"Of the methods within {within:g} dB of it, " if least.behind else ""
        text += f" {among}{_least_loss(least, against)}"
    return study.statement(question, highest, used, text)


def _least_loss(ranking: Ranking, against: str) -> str:
    """Return which method loses least, or that the noise does not tell it."""
    least = ranking.means[ranking.best]
    words = f"loses {'least, ' if ranking.behind else ''}{_with_bounds(least, 2, ' dB')}"
    if least.mean < 0:
        gain = replace(least, mean=-least.mean, lower=-least.upper, upper=-least.lower)
        words = f"loses nothing: it gains {_with_bounds(gain, 2, ' dB')}"
    sentence = f"{ranking.best} {words} against {against} (over {_images(ranking.images)})"
    if _objects(ranking.images) < FEWEST or not ranking.behind:
        return f"{sentence}."
    if not ranking.equal_within_noise:
        return f"{sentence}, less than the others of these."
    return f"{sentence}; the noise does not tell it from {_list(ranking.equal_within_noise)}."


def _with_wrong_psf(study: _Study) -> Statement:
    return _changed(
        study,
        "Which is best with a wrong PSF, and which near it loses least?",
        study.changed(psf=True),
        "its own results with the right PSF",
        "no test image with a wrong PSF has a result of each method",
    )


def _with_other_change(study: _Study) -> Statement | None:
    """Return the same for conditions that do not concern the PSF, if there are any."""
    used = study.changed(psf=False)
    if not used:
        return None
    return _changed(
        study,
        "Which is best with another camera or sample, and which near it loses least?",
        used,
        "its own results without the change",
        "no test image with the change has a result of each method",
    )


def _generalisation(study: _Study) -> tuple[Statement, Statement]:
    """Return which trained method is best elsewhere, and what is best there of all."""
    used = [
        r for r in study.counted if r.cell.test == "generalisation" and not r.cell.condition
    ]  # fmt: skip
    least = _changed(
        study,
        "Which network is best on what it was not trained on, and which near it loses least?",
        used,
        "its own results after training on the structures and photons of the test image",
        "no trained method was tested on other structures or photons",
    )
    question = "Which gives the best image of what the networks were not trained on?"
    there = of_untrained(study.counted, {image_of(r.cell) for r in used})
    ranking = rank(study.usable(by_image([*used, *there], "psnr_db")))
    if ranking is None:
        text = "Not measured: no trained method was tested on other structures or photons."
        return least, study.statement(question, None, used, text)
    text = (
        f"{ranking.best} has the highest mean PSNR, "
        f"{_with_bounds(ranking.means[ranking.best], 2, ' dB')}, over "
        f"{_images(ranking.images)}, each network as the mean over its trainings on other "
        f"structures or photons. {_others(ranking, 2, ' dB')}"
    )
    ready = sorted({m.name for m in study.methods if m.kind == "network"} & {*ranking.means})
    if ready:
        text += f" Made elsewhere, and perhaps trained on these structures: {_list(ready)}."
    return least, study.statement(question, ranking, [*used, *there], text)


def _best_classical(study: _Study) -> str | None:
    """Return the classical method of the highest PSNR that needs no truth."""
    names = {m.name for m in study.methods if m.kind == "classical"}
    values = study.usable(by_image(study.conventional(), "psnr_db"))
    ranking = rank({name: own for name, own in values.items() if name in names})
    return None if ranking is None else ranking.best


def _baseline(study: _Study, baseline: str | None, against: Sequence[AgainstBaseline]) -> Statement:
    """Return which methods are better than the baseline at every level, and which worse."""
    question = f"What is better than {baseline or 'the baseline'}?"
    if not against or baseline is None:
        text = "Not measured: no other method has results on the test images of a baseline."
        return Statement(question=question, text=text)
    groups: dict[str, list[str]] = {
        kind: [] for kind in ("better", "better here", "worse", "worse here", "mixed")
    }
    usable = [row for row in against if row.method not in study.oracles]
    measured_at = [
        r.cell for r in study.counted
        if r.cell.method == baseline and r.cell.test == "conventional" and r.error is None
    ]  # fmt: skip
    levels: set[tuple[str, str | float]] = {("photons", cell.photons) for cell in measured_at}
    levels |= {("tested_on", cell.tested_on) for cell in measured_at}
    for name in dict.fromkeys(row.method for row in usable):
        own = [row for row in usable if row.method == name]
        verdicts = {row.verdict for row in own}
        only = verdicts.pop() if len(verdicts) == 1 else "mixed"
        known = only if only in ("better", "worse") else "mixed"
        if {(row.by, row.level) for row in own} == levels or known == "mixed":
            groups[known].append(name)
        else:
            groups[f"{known} here"].append(f"{name} ({_levels(own)})")
    given = (
        "as asked for" if study.settings.baseline else "the classical method of the highest PSNR"
    )
    text = f"The baseline is {baseline}, {given}. "
    text += " ".join(
        f"{words}: {_list(groups[kind])}."
        for kind, words in (
            ("better", "Better at every photon level and on every structure"),
            ("better here", "Better where measured"),
            ("worse", "Worse at every photon level and on every structure"),
            ("worse here", "Worse where measured"),
            ("mixed", "Dependent on photons or structures, or not told apart"),
        )
        if groups[kind]
    )
    values = by_image(study.conventional(), "psnr_db")
    compared = {row.method for row in usable} & set(values)
    images = set(values[baseline]) & {image for name in compared for image in values[name]}
    cells = sum(len(images & set(values[name])) for name in (*compared, baseline))
    objects = _objects(images)
    warning = study.warning(objects)
    return Statement(
        question=question,
        methods=tuple(groups["better"]),
        text=text + warning,
        images=len(images),
        objects=objects,
        cells=cells,
        hint=bool(warning),
    )


def _levels(rows: Sequence[AgainstBaseline]) -> str:
    """Return the photons and structures at which a method was compared."""
    photons = [f"{row.level:g}" for row in rows if row.by == "photons"]
    structures = [str(row.level) for row in rows if row.by == "tested_on"]
    return f"{', '.join(photons)} photons, {', '.join(structures)}"


def _failures(results: Sequence[CellResult]) -> Statement:
    """Return how many cells failed, by method."""
    question = "What failed?"
    every = Counter(result.cell.method for result in results)
    failed = Counter(result.cell.method for result in results if result.error is not None)
    text = f"None of {plural(len(results), 'cell')}."
    if failed:
        names = (f"{name} ({n} of {every[name]})" for name, n in sorted(failed.items()))
        text = f"{failed.total()} of {plural(len(results), 'cell')}: {_list(names)}."
    return Statement(question=question, text=text, cells=len(results))


def _with_bounds(value: Interval, digits: int, unit: str) -> str:
    """Return a mean with its bounds, or with its number of values where these are too few."""
    mean = f"{value.mean:.{digits}f}{unit}"
    if not value.bounded:
        return f"{mean} (n = {value.n})"
    return f"{mean} ({value.lower:.{digits}f} to {value.upper:.{digits}f})"


def _seconds(seconds: float) -> str:
    return f"{rounded(seconds)} s"


def _objects(images: Collection[ImageKey]) -> int:
    """Return the number of objects in images."""
    return len({image.object for image in images})


def _images(images: Collection[ImageKey], noun: str = "test image") -> str:
    """Return the number of images, and of the objects in them."""
    objects = _objects(images)
    return f"{plural(len(images), noun)} of {plural(objects, 'object')}"


def _list(items: Iterable[str]) -> str:
    """Return items as a list in a sentence, divided by semicolons if there are commas in them."""
    *first, last = items
    comma = any("," in item for item in (*first, last))
    between, end = ("; ", "; and ") if comma else (", ", " and ")
    return f"{between.join(first)}{end}{last}" if first else last
