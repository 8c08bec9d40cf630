"""Tables, recommendation and report of studies whose results are known numbers."""

import base64
import csv
import dataclasses
import json
import math
import re
import shutil
import statistics
import subprocess
import warnings
import zlib
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.study.conclusion import conclude
from napari_rln.study.intervals import interval
from napari_rln.study.recommendation import RecommendationSettings, recommend, settings_for
from napari_rln.study.report.charts import place_labels
from napari_rln.study.results import SCORES, Cell, CellResult, Planes
from napari_rln.study.tables import CELL_COLUMNS, SUMMARY_COLUMNS, read_results, write_tables

SEEDS = range(4)
PHOTONS = (50.0, 500.0)
STRUCTURES = ("beads", "nuclei")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


def result(method, psnr, *, error=None, facts=None, seconds=1.0, parameters=None, **cell):
    described = Cell(
        method=method, **{"psf": "widefield", "photons": 50.0, "tested_on": "beads"} | cell
    )
    key = f"{zlib.crc32(repr(described).encode()):08x}"
    kind = "model" if parameters else "rld"
    if described.trained_on is not None:
        kind = "train"
    scores = {} if error else {"psnr_db": psnr, "ssim": psnr / 50, "lateral_um": 6 / psnr}
    return CellResult(
        key=key,
        cell=described,
        scores=scores,
        seconds=None if error else seconds,
        parameters=parameters,
        error=error,
        command=f"napari-rln study config.toml -o out --cell {key}",
        facts={"kind": kind} | (facts or {}),
    )


def difficulty(photons, structures, seed):
    """Return how the PSNR of all methods depends on the test image, dB."""
    return (
        2 * math.log10(photons)
        + {"beads": 3, "nuclei": 0}[structures]
        + [0.7, -1.1, 0.2, 0.4][seed]
    )


def ripple(structures, seed):
    """Return a small number of mean 0 over all objects, equal for all images of one."""
    return 0.03 * (1 if structures == "beads" else -1) * (-1) ** seed


def conventional(method, gain, *, noise=1.0, trained=False, **options):
    """Return the results of a method on all test images."""
    made = []
    for photons in PHOTONS:
        for structures in STRUCTURES:
            for seed in SEEDS:
                image = (photons, structures, seed)
                training = {"trained_on": structures, "training_volumes": 20} if trained else {}
                psnr = 20 + difficulty(*image) + gain + noise * ripple(structures, seed)
                where = {"photons": photons, "tested_on": structures, "seed": seed}
                made.append(result(method, psnr, **where, **training, **options))
    return made


def study(folder, results, **configuration):
    """Write results into the folder of a study."""
    (folder / "cells").mkdir(parents=True)
    for each in results:
        each.save(folder / "cells")
    if configuration:
        (folder / "study.json").write_text(json.dumps(configuration), encoding="utf-8")
    return folder


def tables(folder):
    """Write the tables, those of Parquet only where pyarrow is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RlnWarning)
        write_tables(folder, read_results(folder))


def answer(results, question, **settings):
    """Return the statement whose question holds some words."""
    advice = recommend(results, RecommendationSettings(**settings))
    return next(s for s in advice.statements if question in s.question)


class Page(HTMLParser):
    """Tables, texts and elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.elements, self.texts, self.scripts = [], [], [], []
        self.cell = None
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = {"value": attributes.get("data-value"), "texts": []}
            self.tables[-1][-1].append(self.cell)
        elif tag in ("script", "style"):
            self.inside = tag

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None
        elif tag in ("script", "style"):
            self.inside = ""

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)
            return
        self.texts.append(data)
        if self.cell is not None and data.strip():
            self.cell["texts"].append(data.strip())

    def table(self, *titles, number=0):
        """Return the first table with these titles, or a later one, as rows of cells by title."""
        found = []
        for head, *rows in self.tables:
            names = ["".join(cell["texts"]) for cell in head]
            if set(titles) <= set(names):
                found.append([dict(zip(names, row, strict=True)) for row in rows])
        return found[number]


def page_of(folder):
    return Page(conclude(str(folder)).report.read_text(encoding="utf-8"))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a study with every kind of result, its tables written."""
    results = [
        *conventional("RL", 0.0, seconds=2.0),
        *conventional("RL best", 0.5, facts={"oracle": True, "at_last_count": True}),
        *conventional(
            "net",
            2.0,
            noise=-1,
            trained=True,
            parameters=16_000,
            seconds=8.0,
            facts={"training_steps": 210, "train_seed": 3, "threads": 1, "machine": "cpu"},
        ),
        *conventional("ready", 1.9, parameters=36_000, seconds=1.5),
    ]
    for seed in SEEDS:
        for method, loss in (("RL", 0.4), ("ready", 0.9)):
            wrong = {"condition": "wavelength +10 %", "seed": seed}
            clean = next(r for r in results if r.cell.method == method and r.cell.seed == seed)
            psnr, facts = clean.scores["psnr_db"] - loss, {"wrong_psf": True}
            results.append(result(method, psnr, facts=facts, **wrong))
        other = {"trained_on": "nuclei", "training_volumes": 20, "seed": seed}
        results.append(result("net", 21.0 + seed, parameters=16_000, **other))
        few = {"trained_on": "beads", "training_volumes": 5, "seed": seed}
        results.append(result("net", 22.0 + seed, parameters=16_000, **few))
    failing = {"condition": "z step +10 %", "error": "out of memory: 9 GB"}
    results += [
        result("RL", math.nan, seed=0, **failing),
        result("RL", math.nan, seed=1, **failing),
    ]
    folder = study(tmp_path_factory.mktemp("study"), results, name="Known numbers")
    tables(folder)
    return folder


# --- statistics and tables


def test_of_three_values_the_interval_is_wider_than_their_range_and_of_two_there_is_none():
    three = interval([1.0, 4.0, 2.0])
    assert (three.n, three.mean, three.sd) == (
        3,
        pytest.approx(7 / 3),
        pytest.approx(stats.tstd([1, 4, 2])),
    )
    # Of 27 equally likely samples one has the smallest value three times, more than 2.5 %: the
    # percentiles are the range.
    wider = stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975) * math.sqrt(3 / 2)
    assert three.lower == pytest.approx(7 / 3 - wider * (7 / 3 - 1))
    assert three.upper == pytest.approx(7 / 3 + wider * (4 - 7 / 3))
    two = interval([1.0, math.nan, 4.0])
    assert (two.n, two.mean, two.bounded) == (2, 2.5, False)
    assert math.isnan(two.lower)
    assert interval([math.nan]).n == 0


@pytest.mark.parametrize("objects", [3, 6, 12])
def test_intervals_of_few_objects_include_the_true_mean(objects):
    """In 95 of 100 cases; the percentiles alone in 76, 86 and 91."""
    random = np.random.default_rng(objects)
    hits = sum(interval(random.normal(size=objects)).includes(0.0) for _ in range(600))
    assert 0.92 < hits / 600 < 0.98


def test_bounds_agree_with_an_independent_bootstrap():
    values = np.random.default_rng(5).gamma(2.0, size=300)
    known = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(6)
    )
    ours = interval(values)
    within = 0.2 * known.standard_error
    assert ours.lower == pytest.approx(known.confidence_interval.low, abs=within)
    assert ours.upper == pytest.approx(known.confidence_interval.high, abs=within)
    assert interval(values[::-1]) == ours


def test_values_of_one_object_are_drawn_together():
    """Against a bootstrap over objects written out; of values alone the interval is too narrow."""
    random = np.random.default_rng(8)
    sizes = [1, 4, 4, 4, 6, 2, 5, 3]
    objects = np.repeat(np.arange(8), sizes)
    values = random.normal(size=8)[objects] + 0.1 * random.normal(size=len(objects))
    members = [values[objects == i] for i in range(8)]
    means = [
        np.concatenate([members[i] for i in random.integers(0, 8, 8)]).mean() for _ in range(20_000)
    ]
    ours = interval(values, objects)
    assert (ours.n, ours.objects, ours.mean) == (29, 8, pytest.approx(values.mean()))
    wider = stats.t.ppf(0.975, 7) / stats.norm.ppf(0.975) * math.sqrt(8 / 7)
    for bound, quantile in ((ours.lower, 0.025), (ours.upper, 0.975)):
        expected = ours.mean + wider * (np.quantile(means, quantile) - ours.mean)
        assert bound == pytest.approx(expected, abs=0.2 * np.std(means))
    alone = interval(values)
    assert ours.upper - ours.lower > 1.4 * (alone.upper - alone.lower)
    shuffled = random.permutation(29)
    assert interval(values[shuffled], objects[shuffled] + 5) == ours
    assert not interval(values[:9], objects[:9] // 4).bounded  # two objects


def test_equal_values_have_an_interval_without_width():
    same = interval([0.1] * 7)
    assert same.lower == same.upper == pytest.approx(0.1, rel=1e-15)
    assert interval([0.0] * 7).includes(0)


def test_the_table_of_cells_holds_every_cell(whole):
    rows = {row["key"]: row for row in rows_of(whole / "cells.csv")}
    results = read_results(whole)
    assert len(rows) == len(results) == len(list((whole / "cells").iterdir()))
    for each in results:
        row = rows[each.key]
        assert list(row) == list(CELL_COLUMNS)
        assert (row["method"], row["condition"]) == (each.cell.method, each.cell.condition)
        assert (row["test"], row["trained_on"]) == (each.cell.test, each.cell.trained_on or "")
        assert (row["command"], row["error"]) == (each.command, each.error or "")
        assert row["psnr_db"] == (repr(each.scores["psnr_db"]) if each.scores else "")
        assert row["flux"] == ""
        assert row["oracle"] == str(each.cell.method == "RL best")
        for fact in ("wrong_psf", "train_seed", "training_steps", "threads", "machine"):
            assert row[fact] == str(each.facts.get(fact, ""))


def test_the_summary_is_that_of_the_seeds(whole):
    cells, summary = rows_of(whole / "cells.csv"), rows_of(whole / "summary.csv")
    assert list(summary[0]) == list(SUMMARY_COLUMNS)
    fields = [name for name in SUMMARY_COLUMNS if name in CELL_COLUMNS and name != "test"]
    assert len(summary) == (len(SCORES) + 2) * len({tuple(c[f] for f in fields) for c in cells})
    for row in summary:
        group = [c for c in cells if all(c[f] == row[f] for f in fields)]
        values = [float(c[row["measure"]]) for c in group if c[row["measure"]]]
        assert (int(row["cells"]), int(row["n"])) == (len(group), len(values))
        assert int(row["failed"]) == sum(bool(c["error"]) for c in group)
        if values:
            assert float(row["mean"]) == pytest.approx(statistics.fmean(values))
        if len(values) > 2:
            assert float(row["sd"]) == pytest.approx(statistics.stdev(values))
            own = interval(values)
            assert (float(row["lower"]), float(row["upper"])) == pytest.approx(
                (own.lower, own.upper)
            )
        else:
            assert row["lower"] == row["upper"] == ""


@pytest.mark.parametrize("name", ["cells", "summary"])
def test_parquet_equals_csv(whole, name):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(whole / f"{name}.parquet")
    rows = rows_of(whole / f"{name}.csv")
    assert [
        {k: "" if v is None else str(v) for k, v in row.items()} for row in table.to_pylist()
    ] == rows
    kinds = CELL_COLUMNS if name == "cells" else SUMMARY_COLUMNS
    assert [str(kind) for kind in table.schema.types] == list(kinds.values())


def test_without_pyarrow_there_is_csv_and_a_note(tmp_path, monkeypatch):
    folder = study(tmp_path / "study", conventional("RL", 0.0))
    (folder / "cells.parquet").write_bytes(b"of older results")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.warns(RlnWarning, match=r"not as Parquet, which needs pyarrow"):
        written = write_tables(folder, read_results(folder))
    assert [path.name for path in written] == ["cells.csv", "summary.csv"]
    assert sorted(p.name for p in folder.iterdir()) == ["cells", "cells.csv", "summary.csv"]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(RlnError, match="holds no results of a study"):
        conclude(tmp_path)
    study(tmp_path / "study", conventional("RL", 0.0))
    (tmp_path / "study" / "study.json").write_text("{")
    with pytest.raises(RlnError, match=r"study.json is no configuration"):
        conclude(tmp_path / "study")


# --- recommendation


@pytest.mark.parametrize("gains", [(0.0, 1.5), (1.5, 0.0)])
def test_the_recommendation_follows_the_numbers(gains):
    results = conventional("A", gains[0]) + conventional("B", gains[1])
    best = answer(results, "by PSNR")
    assert best.methods == (("B",) if gains[1] > gains[0] else ("A",))
    assert (best.images, best.objects, best.cells, best.hint) == (16, 8, 32, False)
    assert "16 conventional test images of 8 objects" in best.text
    mean = statistics.fmean(
        20 + difficulty(p, s, seed) + 1.5 for p in PHOTONS for s in STRUCTURES for seed in SEEDS
    )
    assert f"{mean:.2f} dB" in best.text
    assert "by 1.50 dB (1.50 to 1.50)" in best.text
    assert answer(results, "by SSIM").methods == best.methods


def test_the_axial_view_is_judged_by_its_own_planes():
    results = []
    for method, psnr in (("A", 30.0), ("B", 31.0), ("oracle", 32.0)):
        for r in conventional(method, 0.0, facts={"oracle": method == "oracle"}):
            results.append(dataclasses.replace(r, scores={**r.scores, "psnr_xz_db": psnr}))
    axial = answer(results, "axial view")
    assert axial.methods == ("B",)
    assert "B has the highest mean PSNR of xz planes, 31.00 dB" in axial.text
    assert "by 1.00 dB" in axial.text
    assert "only for comparison: oracle (32.00 dB)" in axial.text


def test_methods_within_the_noise_are_recommended_together():
    results = [
        *conventional("A", 0.005, noise=1),
        *conventional("B", 0.0, noise=-1),  # differs by 0.005 +- 0.06 from object to object
        *conventional("C", -0.5),
    ]
    best = answer(results, "by PSNR")
    assert best.methods == ("A", "B")
    bounds = re.search(r"tell it from B \(difference [\d.]+ dB \((.*?) to (.*?)\)\)", best.text)
    assert float(bounds[1]) < 0 < float(bounds[2])
    assert "C" not in best.text.replace("Conventional", "")


def test_methods_are_compared_on_the_images_that_they_share():
    """A method that fails on hard images has a high mean, but is not the best."""
    hard = conventional("A", 0.3)
    easy = [r for r in conventional("B", 0.0) if r.cell.tested_on == "beads" or r.cell.seed > 0]
    failed = [
        result("B", 0, error="too hard", photons=p, tested_on="nuclei", seed=0) for p in PHOTONS
    ]
    best = answer(hard + easy + failed, "by PSNR")
    assert (best.methods, best.images) == (("A",), 14)
    assert answer(hard + easy + failed, "What failed").text == "2 of 32 cells: B (2 of 16)."


def test_a_method_with_few_results_is_left_out_and_named():
    few = [r for r in conventional("B", 5.0) if r.cell.seed == 0]
    best = answer(conventional("A", 0.0) + few, "by PSNR")
    assert best.methods == ("A",)
    assert "fewer than half of the test images: B (4 of 16)" in best.text


def test_methods_that_need_the_truth_are_shown_but_never_recommended():
    results = conventional("A", 0.0, seconds=9.0) + conventional("B", -0.1, seconds=5.0)
    results += conventional("oracle", 3.0, seconds=0.1, facts={"oracle": True})
    for each in list(results):
        wrong = {"condition": "depth 5 um", "photons": each.cell.photons, "seed": each.cell.seed}
        loss = 0.0 if each.cell.method == "oracle" else 1.0
        facts = dict(each.facts)
        results.append(
            result(each.cell.method, each.scores["psnr_db"] - loss, facts=facts,
                   tested_on=each.cell.tested_on, **wrong)
        )  # fmt: skip
    advice = recommend(results)
    assert all("oracle" not in statement.methods for statement in advice.statements)
    assert "Not to be had without the truth" in advice.statements[0].text
    assert "oracle (" in advice.statements[0].text


def test_the_fastest_is_sought_near_the_best_only():
    results = conventional("slow", 1.0, seconds=30.0) + conventional("near", 0.9, seconds=3.0)
    results += conventional("far", 0.7, seconds=0.1)
    fast = answer(results, "fastest")
    assert fast.methods == ("near",)
    assert "near takes 3 s per test image, 0.10 dB behind slow" in fast.text
    assert "slow takes 30 s, 10 times as long" in fast.text
    assert answer(results, "fastest", within_db=0.5).methods == ("far",)
    one = [r for r in results if r.cell.method == "slow"]
    assert "and has the highest PSNR itself" in answer(one, "fastest").text


def with_condition(results, condition, loss):
    """Return results of the same methods under a condition, worse by a loss for each method."""
    return [
        result(r.cell.method, r.scores["psnr_db"] - loss[r.cell.method], condition=condition,
               photons=r.cell.photons, tested_on=r.cell.tested_on, seed=r.cell.seed)
        for r in results
    ]  # fmt: skip


@pytest.mark.parametrize(("losses", "robust"), [((0.6, 0.3), "B"), ((0.2, 0.4), "A")])
def test_the_best_with_a_wrong_psf_and_the_one_that_loses_least(losses, robust):
    clean = conventional("A", 1.0) + conventional("B", 0.5)
    results = clean + with_condition(
        clean, "wavelength +10 %", dict(zip("AB", losses, strict=True))
    )
    told = answer(results, "wrong PSF")
    assert told.methods == ("A",)
    assert told.text.startswith("A has the highest mean PSNR")
    near = "Of the methods within 1 dB of it, "
    assert f"{near}{robust} loses least, {min(losses):.2f} dB" in told.text
    assert "less than the others of these" in told.text
    assert (told.images, told.cells) == (16, 32)


def test_a_method_with_little_to_lose_is_not_called_robust():
    clean = conventional("A", 4.0) + conventional("B", 3.8) + conventional("blurred", 0.0)
    loss = {"A": 0.5, "B": 0.4, "blurred": 0.0}
    told = answer(clean + with_condition(clean, "wavelength +10 %", loss), "wrong PSF")
    assert told.methods == ("A",)
    assert "Of the methods within 1 dB of it, B loses least, 0.40 dB" in told.text
    assert "blurred" not in told.text
    assert "than all others" not in told.text


def test_the_short_answer_names_the_methods_alone():
    clean = conventional("A, slow", 1.0, seconds=9.0, noise=0) + conventional("B", 0.9, seconds=1.0)
    wrong = with_condition(clean, "z step +10 %", {"A, slow": 0.9, "B": 0.0})
    assert recommend(clean + wrong).short == (
        "Best image: A, slow. Fastest near it: B. With a wrong PSF: B."
    )
    equal = [*clean, *conventional("C", 1.0, seconds=9.0, noise=0)]
    assert recommend(equal).short.startswith("Best image: A, slow or C. Fastest near it: B.")
    few = recommend([r for r in clean if r.cell.seed == 0]).short
    assert few.startswith("Best image: A, slow (a hint: too few objects). Fastest")
    assert recommend([result("RL", math.nan, error="no")]).short == ""


def test_names_with_commas_are_divided_by_semicolons():
    methods = ("A", "RLD 100, not accelerated", "RLD, automatic stop")
    results = [r for name in methods for r in conventional(name, 0.0, noise=0)]
    text = answer(results, "by PSNR").text
    assert re.search(r"RLD 100, not accelerated \(.*\); and RLD, automatic stop \(", text)


def test_means_are_over_the_images_that_all_methods_share(tmp_path):
    """A network that was tested on the easy half is not compared with the hard half of others."""
    half = [
        r for r in conventional("net", 0.5, trained=True, noise=0)
        if r.cell.tested_on == "beads"
    ]  # fmt: skip
    few = [r for r in conventional("few", 9.0) if r.cell.seed == 0 and r.cell.photons == 50.0]
    whole = conventional("RL", 0.0, noise=0)
    shown = page_of(study(tmp_path / "study", [*whole, *half, *few]))
    main = shown.table("Method", "Images", "PSNR (dB)")
    rows = {row["Method"]["texts"][0]: row["PSNR (dB)"] for row in main}
    assert set(rows) == {"RL", "net"}
    easy = [r.scores["psnr_db"] for r in whole if r.cell.tested_on == "beads"]
    values = {name: float(cell["value"]) for name, cell in rows.items()}
    assert values["RL"] == pytest.approx(np.mean(easy))
    assert values["net"] == pytest.approx(np.mean(easy) + 0.5)
    text = " ".join(shown.texts)
    assert "Means over the 8 of 8 test images that all have." in text
    assert "Left out, with fewer than half of them: few (1)." in text


def test_columns_of_tables_are_over_common_images_in_the_order_of_their_levels(tmp_path):
    """A network trained on the easy beads at 100 photons is not beside means over all images."""
    where = [(p, s, n) for p in (300.0, 100.0, 30.0) for s in ("nuclei", "beads") for n in SEEDS]
    results, hard = [], {"nuclei": 10.0, "beads": 0.0}
    for photons, structures, seed in where:
        image = {"photons": photons, "tested_on": structures, "seed": seed}
        other = image | {"condition": "EMCCD"}
        results.append(result("RL", 30.0 - hard[structures], **image))
        results.append(result("RL 100", 29.0 - hard[structures], **image))
        results.append(result("RL", 28.0 - hard[structures], **other))
        if photons == 100.0 and structures == "beads":
            results += [result("net", 29.5, trained_on="beads", **on) for on in (image, other)]
    page = page_of(study(tmp_path / "study", results))

    def column(title):
        return {r["Method"]["texts"][0]: r[title]["value"] for r in page.table(title)}

    # By photons the network has one level: in the main table alone.
    (shown,) = {r["Images"]["value"] for r in page.table("Images")}
    assert shown == "4"
    titles = ("30 photons, 8 images", "100 photons, 8 images", "300 photons, 8 images")
    assert all(column(title) == {"RL": "25.0", "RL 100": "24.0"} for title in titles)
    assert column("EMCCD, 4 images") == {"RL": "28.0", "net": "29.5"}
    against = page.tables[0]
    assert {row[0]["texts"][0]: row[-1]["texts"][-1] for row in against[1:]} == {
        "RL 100": "worse, 12 images", "net": "\N{EN DASH}",
    }  # fmt: skip
    titles = ["".join(cell["texts"]) for cell in against[0]]
    assert titles == ["Method", "30 photons", "100 photons", "300 photons", "beads", "nuclei"]


def test_a_loss_on_fewer_images_and_a_method_on_too_few_are_said(tmp_path):
    """Nothing was trained on coils, so that what the network loses there is unknown."""
    kinds, results = ("beads", "nuclei", "coils"), []
    for structures in kinds:
        for seed in SEEDS:
            image = {"tested_on": structures, "seed": seed}
            results.append(result("RL", 25.0, **image))
            for trained_on in kinds[:2]:
                psnr = 30.0 if trained_on == structures else 28.5
                results.append(result("net", psnr, trained_on=trained_on, **image))
    for seed in SEEDS:
        results.append(result("RL", 24.0, condition="z step +10 %", seed=seed))
        name = "RL" if seed < 2 else "RL 100"
        results.append(result(name, 24.0, condition="EMCCD", seed=seed))
    results.append(result("RL 100", 23.0, condition="z step +10 %"))
    page = page_of(study(tmp_path / "study", results))
    rows = {row["Method"]["texts"][0]: row for row in page.table("z step +10 %, 4 images")}
    elsewhere = "trained on other structures, 12 images"
    assert rows["net"][elsewhere]["texts"][-1] == "loses 1.50 (1.50 to 1.50; 8 images)"
    assert rows["RL 100"]["z step +10 %, 4 images"]["texts"] == ["\N{EN DASH}", "1 of 4 images"]
    assert rows["RL 100"]["EMCCD, different images"]["value"] == "24.0"


def test_a_network_is_compared_where_it_was_trained_however_few_these_images_are():
    """Trained at one number of photons and on one structure, of which there are four images."""
    own = [
        r for r in conventional("net", 2.0, trained=True, noise=0)
        if r.cell.tested_on == "beads" and r.cell.photons == 50.0
    ]  # fmt: skip
    results = [*conventional("RL", 0.0, noise=0), *own]
    best = answer(results, "by PSNR")
    assert (best.methods, best.images) == (("net",), 4)
    better = answer(results, "better than RL")
    assert "Better where measured: net (50 photons, beads)" in better.text
    assert better.methods == ()


def test_a_network_counts_where_it_was_trained_under_a_condition_too():
    """It has results on one structure of two, fewer than half of the images of the others."""
    own = [
        r for r in conventional("net", 3.0, trained=True)
        if r.cell.tested_on == "beads" and r.cell.photons == 50.0
    ]  # fmt: skip
    clean = conventional("RL", 0.0)
    wrong = with_condition(clean, "wavelength +10 %", {"RL": 1.0})
    for r in own:
        cell = dataclasses.replace(r.cell, condition="wavelength +10 %")
        scores = {"psnr_db": r.scores["psnr_db"] - 0.5}
        key = f"{r.key}w"
        wrong.append(dataclasses.replace(r, cell=cell, scores=scores, key=key))
    told = answer([*clean, *own, *wrong], "wrong PSF")
    assert (told.methods, told.images) == (("net",), 4)
    assert "net loses 0.50 dB" in told.text


def test_a_method_with_few_results_under_a_condition_is_named():
    clean = conventional("A", 0.0) + conventional("B", 5.0)
    wrong = with_condition(clean, "wavelength +10 %", {"A": 1.0, "B": 1.0})
    some = [r for r in wrong if r.cell.method == "A" or r.cell.seed == 0]
    told = answer([*clean, *some], "wrong PSF")
    assert told.methods == ("A",)
    assert "fewer than half of the test images: B (4 of 16)" in told.text
    assert "A loses 1.00 dB" in told.text
    assert "least" not in told.text  # nothing to compare its loss with


def test_losses_that_the_noise_does_not_tell_apart_are_named():
    clean = conventional("A", 0.5) + conventional("B", 0.0)
    wrong = [
        result(r.cell.method, r.scores["psnr_db"] - 0.5 - (0.3 if r.cell.method == "A" else 0)
               * ripple(r.cell.tested_on, r.cell.seed), condition="depth", photons=r.cell.photons,
               tested_on=r.cell.tested_on, seed=r.cell.seed)
        for r in clean
    ]  # fmt: skip
    told = answer([*clean, *wrong], "wrong PSF")
    assert "the noise does not tell it from" in told.text


def test_networks_are_compared_on_all_that_they_were_not_trained_on():
    """Also on what no network was trained on, where there is no loss to be found."""
    results = []
    for method, gain in (("A", 1.0), ("B", 0.0)):
        for r in conventional(method, gain, trained=True):
            cell = dataclasses.replace(r.cell, trained_on="coils")
            results.append(dataclasses.replace(r, cell=cell, key=f"{method}{r.key}"))
    told = answer(results, "Which network is best")
    assert (told.methods, told.images) == (("A",), 16)
    assert "loses" not in told.text


def test_one_training_for_each_network_is_said_to_be_one():
    results = [*conventional("RL", 0.0), *conventional("net", 2.0, trained=True)]
    words = "Each network was trained once; another training may differ."
    assert words in answer(results, "by PSNR", trained_once=True).text
    assert words not in answer(results, "by PSNR").text
    assert words not in answer(conventional("RL", 0.0), "by PSNR", trained_once=True).text
    assert settings_for({"seeds": [0, 1], "train_seeds": [4]}).trained_once
    assert settings_for({"seeds": [3], "train_seeds": []}).trained_once
    assert not settings_for({"seeds": [0, 1]}).trained_once


def test_results_of_unequal_machines_are_not_compared_in_time(tmp_path):
    equal = {"machine": "cpu, 2 cores", "threads": 1}
    results = conventional("A", 0.0, facts=equal) + conventional("B", 0.0, facts=equal)
    words = "several machines or numbers of threads"
    assert words not in answer(results, "fastest").text
    for other in ({"machine": "cpu, 8 cores"}, {"threads": 2}, {"training_threads": 2}):
        more = results + conventional("C", 0.0, facts=equal | other)
        assert words in answer(more, "fastest").text
        if "threads" in other:
            assert words in " ".join(page_of(study(tmp_path / "study", more)).texts)


def test_a_gain_is_not_called_a_loss():
    clean = conventional("A", 2.0) + conventional("B", 0.0)
    results = clean + with_condition(clean, "wavelength +10 %", {"A": 1.0, "B": -0.25})
    told = answer(results, "wrong PSF")
    assert "B loses nothing: it gains 0.25 dB (0.25 to 0.25) against" in told.text


def test_which_conditions_concern_the_psf_can_be_said():
    clean = conventional("A", 2.0) + conventional("B", 0.0)
    camera = with_condition(clean, "wavelength of the camera", {"A": 1.0, "B": 2.0})
    assert answer(clean + camera, "wrong PSF").methods == ("A",)
    told = answer(clean + camera, "wrong PSF", psf_conditions=("z step",))
    assert (told.methods, told.cells) == ((), 0)
    assert "Not measured" in told.text
    assert answer(clean + camera, "another camera", psf_conditions=("z step",)).methods == ("A",)


def test_generalisation_is_a_loss_on_the_same_image():
    results = conventional("RL", 0.0)
    for method, loss in (("A", 1.0), ("B", 0.25)):
        own = conventional(method, 2.0 if method == "A" else 1.2, trained=True, parameters=9)
        results += own
        for r in own:
            other = "nuclei" if r.cell.tested_on == "beads" else "beads"
            where = {"photons": r.cell.photons, "tested_on": r.cell.tested_on, "seed": r.cell.seed}
            training = {"trained_on": other, "training_volumes": 20}
            psnr = r.scores["psnr_db"] - loss
            results.append(result(method, psnr, parameters=9, **where, **training))
    told = answer(results, "Which network is best")
    assert told.methods == ("A",)  # 2.0 - 1.0 against 1.2 - 0.25
    assert "B loses least, 0.25 dB (0.25 to 0.25)" in told.text
    there = answer(results, "what the networks were not trained on")
    assert there.methods == ("A",)  # 2.0 - 1.0 against 1.2 - 0.25 and 0
    assert there.images == 16
    assert "Made elsewhere" not in there.text
    ready = conventional("ready", 3.0, parameters=9)
    there = answer([*results, *ready], "what the networks were not trained on")
    assert there.methods == ("ready",)
    assert "Made elsewhere, and perhaps trained on these structures: ready." in there.text


def test_fewer_objects_than_a_recommendation_takes_are_called_a_hint():
    results = [r for r in conventional("A", 1.0) + conventional("B", 0.0) if r.cell.seed == 0]
    best = answer(results, "by PSNR")
    assert best.hint
    assert "rests on 2 simulated objects; a recommendation needs 6" in best.text
    more = [r for r in conventional("A", 1.0) + conventional("B", 0.0) if r.cell.seed < 3]
    assert not answer(more, "by PSNR").hint  # 12 images of 6 objects
    assert answer(more, "by PSNR", fewest_objects=7).hint
    single = answer(results[:1], "by PSNR")
    assert "only method" in single.text
    two = [r for r in results if r.cell.tested_on == "beads"]
    assert "no two methods can be told apart" in answer(two, "by PSNR").text


def test_what_was_not_measured_is_said():
    told = {s.question: s for s in recommend(conventional("RL", 0.0)).statements}
    unknown = [q for q, s in told.items() if s.text.startswith("Not measured")]
    assert len(unknown) == 5
    assert all(not told[q].methods for q in unknown)
    advice = recommend([result("A", math.nan), result("B", 0, error="no memory")])
    assert not any(s.methods for s in advice.statements)


def test_methods_against_the_baseline_by_photons_and_structures():
    results = conventional("RL", 0.0) + conventional("poor", -1.0)
    # Better with few photons, worse with many.
    results += [
        result("net", r.scores["psnr_db"] + (1 if r.cell.photons == 50.0 else -1), parameters=9,
               photons=r.cell.photons, tested_on=r.cell.tested_on, seed=r.cell.seed)
        for r in conventional("RL", 0.0)
    ]  # fmt: skip
    advice = recommend(results)
    assert advice.baseline == "RL"
    verdicts = {(r.method, r.level): r.verdict for r in advice.against_baseline}
    assert verdicts["net", 50.0] == "better"
    assert verdicts["net", 500.0] == "worse"
    assert verdicts["net", "beads"] == "no difference shown"
    assert {verdicts["poor", level] for level in (*PHOTONS, *STRUCTURES)} == {"worse"}
    text = answer(results, "better than RL").text
    assert "Worse at every photon level and on every structure: poor." in text
    assert "or not told apart: net." in text
    assert recommend(results, RecommendationSettings(baseline="net")).baseline == "net"
    absent = answer(results, "better than nothing", baseline="nothing")
    assert absent.text.startswith("Not measured")


# --- report


def test_numbers_of_the_main_table_are_those_of_the_cells(whole):
    cells = rows_of(whole / "cells.csv")
    shown = page_of(whole).table("Images", "PSNR (dB)", "Parameters")
    assert [row["Method"]["texts"][0] for row in shown] == ["RL", "RL best", "ready", "net"]
    for row in shown:
        name = row["Method"]["texts"][0]
        own = [
            c for c in cells
            if c["method"] == name and c["test"] == "conventional" and c["training_volumes"] != "5"
        ]  # fmt: skip
        assert len(own) == 16 == float(row["Images"]["value"])
        for measure, title, digits in (
            ("psnr_db", "PSNR (dB)", 2), ("ssim", "SSIM", 3),
            ("lateral_um", "FSC resolution, xy (um)", 3),
        ):  # fmt: skip
            values = [float(c[measure]) for c in own]
            mean = statistics.fmean(values)
            assert float(row[title]["value"]) == pytest.approx(mean, rel=1e-12)
            assert row[title]["texts"][0] == f"{mean:.{digits}f}"
            low, high = map(float, re.findall(r"[\d.]+", row[title]["texts"][1]))
            objects = {(c["tested_on"], c["seed"]) for c in own}
            means = [
                statistics.fmean(float(c[measure]) for c in own if (c["tested_on"], c["seed"]) == o)
                for o in objects
            ]
            error = stats.sem(means)
            half = stats.t.ppf(0.975, len(objects) - 1) * error
            assert low == pytest.approx(mean - half, abs=0.4 * error + 10.0**-digits)
            assert high == pytest.approx(mean + half, abs=0.4 * error + 10.0**-digits)
        seconds = statistics.fmean(float(c["seconds"]) for c in own)
        assert float(row["Seconds"]["value"]) == pytest.approx(seconds)
        known = {"net": "16,000", "ready": "36,000"}
        assert row["Parameters"]["texts"] == [known.get(name, "none")]
        assert row["Steps of training"]["value"] == ("210.0" if name == "net" else None)
        assert {c["training_steps"] for c in own} == {"210" if name == "net" else ""}
    text = " ".join(page_of(whole).texts)
    assert "where the best stop was the last one tried. Such test images: RL best: 16." in text
    assert "NRMSE" not in shown[0]  # nobody has it


def test_charts_show_the_numbers_of_the_main_table(whole):
    page = page_of(whole)
    shown = page.table("Images", "PSNR (dB)", "Parameters")
    texts = [text.strip() for text in page.texts if text.strip()]
    neighbours = list(pairwise(texts))
    for title in ("PSNR (dB)", "SSIM", "FSC resolution, xy (um)"):
        for row in shown:  # of a bar, its name and its label
            label = " ".join(row[title]["texts"])
            assert (row["Method"]["texts"][0], label) in neighbours


def test_every_cell_has_its_numbers_and_its_command(whole):
    page = page_of(whole)
    rows = {row["key"]: row for row in rows_of(whole / "cells.csv")}
    seen = set()
    for head, *body in page.tables:
        titles = ["".join(cell["texts"]) for cell in head]
        if "Command" not in titles:
            continue
        for cells in body:
            shown = dict(zip(titles, cells, strict=True))
            row = rows[shown["Key"]["texts"][0]]
            seen.add(row["key"])
            assert shown["Command"]["texts"] == [row["command"]]
            for measure, title, digits in (("psnr_db", "PSNR (dB)", 2), ("ssim", "SSIM", 3)):
                if row[measure]:
                    assert shown[title]["value"] == row[measure]
                    assert shown[title]["texts"] == [f"{float(row[measure]):.{digits}f}"]
                else:
                    assert shown[title]["value"] is None
            assert ("failed" in shown["Cell"]["texts"]) == bool(row["error"])
    assert seen == set(rows)


def test_levels_changes_matrices_and_volumes_are_means_of_the_cells(whole):
    cells, page = rows_of(whole / "cells.csv"), page_of(whole)

    def mean(method, **fields):
        own = [
            c for c in cells
            if c["method"] == method and all(c[name] == value for name, value in fields.items())
        ]  # fmt: skip
        assert own
        return pytest.approx(statistics.fmean(float(c["psnr_db"]) for c in own), rel=1e-12)

    def value(row, title):
        return float(row[title]["value"])

    beads = "beads, 8 images"
    levels = {row["Method"]["texts"][0]: row for row in page.table(beads, "nuclei, 8 images")}
    assert value(levels["RL"], beads) == mean("RL", tested_on="beads", condition="", error="")
    wrong, elsewhere = "wavelength +10 %, 4 images", "trained on other structures, 4 images"
    changes = {r["Method"]["texts"][0]: r for r in page.table(wrong, elsewhere)}
    assert value(changes["RL"], wrong) == mean("RL", condition="wavelength +10 %")
    assert changes["RL"][wrong]["texts"][-1] == "loses 0.40 (0.40 to 0.40)"
    other = {"trained_on": "nuclei", "tested_on": "beads", "training_volumes": "20"}
    assert value(changes["net"], elsewhere) == mean("net", **other)
    # A method that was not trained here stands beside it, on the same images.
    same = {"tested_on": "beads", "photons": "50.0", "condition": "", "error": ""}
    assert value(changes["RL"], elsewhere) == mean("RL", **same)
    assert changes["RL"][elsewhere]["texts"][-1].startswith("(")  # no loss of 0
    assert changes["net"][wrong]["value"] is None
    matrix = {r["trained \\ tested"]["texts"][0]: r for r in page.table("trained \\ tested")}
    assert value(matrix["nuclei"], "beads") == mean("net", **other)
    assert value(matrix["nuclei"], "nuclei") == mean("net", **(other | {"tested_on": "nuclei"}))
    assert matrix["beads"]["nuclei"]["value"] is None
    (volumes,) = page.table("5 volumes")
    assert value(volumes, "5 volumes") == mean("net", training_volumes="5")


def test_failures_are_listed_with_their_messages(whole):
    page = page_of(whole)
    (failed,) = page.table("Message")
    assert failed["Method"]["texts"] == ["RL"]
    assert failed["Message"]["texts"] == ["out of memory: 9 GB"]
    assert failed["Cells"]["value"] == "2"
    assert "2 of 82 cells: RL (2 of 22)." in page.texts


def test_names_cannot_become_markup(tmp_path):
    evil = "</style></script><script>alert(1)</script><img src=x onerror='x()'>\"&lt;"
    where = {"psf": evil, "tested_on": evil}
    options = {"trained_on": evil, "parameters": 7, "facts": {"image": "../" + evil}}
    results = [
        result(evil, 30.0 + seed, condition=name, seed=seed, training_volumes=n, **where, **options)
        for seed in range(3)
        for n in (1, 2)
        for name in ("", evil)
    ]
    results += [result("other", 20.0, seed=s, **where) for s in range(3)]
    results.append(result(evil, 0.0, error=evil, seed=9))
    described = {"psf": [{"name": evil, evil: evil}], evil: {evil: [evil]}, "machine": evil}
    folder = study(tmp_path / "study", results, name=evil, **described)
    page = page_of(folder)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == tags.count("style") == 1
    assert "img" not in tags
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.texts.count(evil) > 10
    assert all("alert" not in script for script in page.scripts)


def test_nothing_is_loaded_from_elsewhere(whole):
    page = page_of(whole)
    for tag, attributes in page.elements:
        for name in ("href", "src", "xlink:href", "srcset", "action"):
            address = attributes.get(name, "#")
            assert address.startswith(("#", "data:")), (tag, address)
    assert not re.search(r"url\(|@import|fetch|https?:", "".join(page.scripts))
    anchors = {a["id"] for _, a in page.elements if "id" in a}
    assert {a["href"][1:] for tag, a in page.elements if tag == "a"} <= anchors


@pytest.mark.parametrize("psnr", [25.0, math.nan])
def test_a_study_of_one_cell_has_a_report(tmp_path, psnr):
    folder = study(tmp_path / "study", [result("RL", psnr)])
    tables(folder)
    page = page_of(folder)
    assert "There are no planes of test images in the folder of the study." in page.texts
    assert not any("nan" in text for text in page.texts)
    (row,) = page.table("Images")
    (summary,) = [r for r in rows_of(folder / "summary.csv") if r["measure"] == "psnr_db"]
    if math.isnan(psnr):
        assert "PSNR (dB)" not in row
        assert (summary["n"], summary["mean"]) == ("0", "")
    else:
        assert row["PSNR (dB)"]["texts"] == ["25.00", "(n = 1)"]
        assert (summary["n"], summary["lower"]) == ("1", "")


def pixels(address):
    """Return indices and colours of a PNG in a data URI, as this package writes them."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    start = data.index(b"PLTE")
    palette = np.frombuffer(data[start + 4 : start + 772], np.uint8).reshape(256, 3)
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start])
    raw = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + length]), np.uint8)
    rows = raw.reshape(height, width + 1)
    assert not rows[:, 0].any()
    return palette[rows[:, 1:]]


def test_planes_are_shown_in_one_scale_and_their_proportions(tmp_path):
    results = [result(m, 20.0, facts={"image": "abc"}) for m in ("dim", "same")]
    folder = study(tmp_path / "study", results)
    (folder / "planes").mkdir()
    ramp = np.linspace(0, 100, 24 * 32, dtype=np.float32).reshape(24, 32)
    truth = Planes(xy=ramp, xz=ramp[:10], voxel_um=(0.4, 0.1, 0.2))
    truth.save(folder / "planes" / "truth-abc.npz")
    Planes(xy=7 * ramp + 3, xz=7 * ramp[:10] + 3, voxel_um=truth.voxel_um).save(
        folder / "planes" / "image-abc.npz"
    )
    factors = {"dim": 0.5, "same": 1.0}
    for each in results:
        f = factors[each.cell.method]
        planes = Planes(xy=f * ramp, xz=f * ramp[:10], voxel_um=truth.voxel_um)
        planes.save(folder / "planes" / f"{each.key}.npz")
    page = page_of(folder)
    pictures = [pixels(a["href"]) for tag, a in page.elements if tag == "image"]
    assert len(pictures) == 2 + 2 + 4 + 4  # image, truth, and the results with residuals
    np.testing.assert_array_equal(pictures[0], pictures[2])  # the image has its own grey scale
    _, _, true_xy, _, dim_xy, _, residual_xy, _, same_xy, _, nothing_xy, _ = pictures
    np.testing.assert_array_equal(same_xy, true_xy)
    middle = true_xy[10, :, 0].astype(float)
    np.testing.assert_allclose(dim_xy[10, :, 0], middle / 2, atol=1)
    # No residual is the middle of the scale, nearly white; too dark a result is blue.
    assert (nothing_xy >= 0xF5).all()
    assert residual_xy[-1, -1, 2] > residual_xy[-1, -1, 0] + 50
    boxes = [
        a["viewbox"].split() for tag, a in page.elements if tag == "svg" and a["class"] == "plane"
    ]
    xy, xz = ([float(n) for n in box[2:]] for box in boxes[:2])
    assert xy[1] / xy[0] == pytest.approx(24 * 0.1 / (32 * 0.2), rel=1e-3)
    assert xz[1] / xz[0] == pytest.approx(10 * 0.4 / (32 * 0.2), rel=1e-3)
    (bar,) = [a for tag, a in page.elements if a.get("class") == "scalebar"]
    assert float(bar["width"]) / xy[0] == pytest.approx(1.0 / (32 * 0.2), rel=1e-3)
    assert "1 \N{MICRO SIGN}m" in page.texts


def test_planes_that_do_not_fit_are_named(tmp_path):
    folder = study(tmp_path / "study", [result("RL", 20.0, facts={"image": "abc"})])
    (folder / "planes").mkdir()
    flat = np.zeros((8, 8), np.float32)
    Planes(xy=flat, xz=flat, voxel_um=(1, 1, 1)).save(folder / "planes" / "truth-abc.npz")
    path = folder / "planes" / f"{read_results(folder)[0].key}.npz"
    Planes(xy=flat[1:], xz=flat, voxel_um=(1, 1, 1)).save(path)
    with pytest.raises(RlnError, match="differ from the truth in shape"):
        conclude(folder)
    path.write_bytes(b"no planes")
    with pytest.raises(RlnError, match="holds no planes"):
        conclude(folder)
    Planes(xy=flat, xz=flat, voxel_um=(1, 1, 1)).save(path)
    assert conclude(folder).report.is_file()  # constant planes are shown


def test_labels_lie_apart_from_each_other_and_from_points():
    random = np.random.default_rng(2)
    points = [tuple(p) for p in random.normal((200, 150), 14, (14, 2))]  # crowded
    taken = [(x - 7, y - 12, x + 7, y + 12) for x, y in points]
    area = (0.0, 0.0, 500.0, 320.0)
    boxes = place_labels(points, [90.0] * 14, taken, [area] * 14)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        assert min(x0, y0) >= 0
        assert x1 <= 500
        assert y1 <= 320
        for u0, v0, u1, v1 in [*boxes[:i], *taken]:
            assert x1 <= u0 + 1e-6 or u1 <= x0 + 1e-6 or y1 <= v0 + 1e-6 or v1 <= y0 + 1e-6


# --- in a browser


def visited(page, folder):
    """Return the messages of the console, the addresses that a page asks for, and its elements.

    No name of a host is looked up: the browser would ask for updates of its own.
    """
    log = folder / f"{page.stem}-net.json"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0",
        f"--log-net-log={log}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    events = [e.get("params", {}) for e in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # Requests of the page, unlike those of the browser, belong to its file.
    asked = {e["url"] for e in events if "file:" in e.get("network_isolation_key", "")}
    return console, {url for url in asked if not url.startswith(("file:", "data:"))}, done.stdout


@pytest.mark.skipif(not BROWSER, reason="neither chromium nor google-chrome is installed")
def test_the_report_opens_in_a_browser_without_errors_or_requests(whole, tmp_path):
    wrong = tmp_path / "wrong.html"
    wrong.write_text('<img src="http://127.0.0.1:9/x.png"><script>nowhere()</script>')
    console, asked, _ = visited(wrong, tmp_path)
    if not console or not asked:
        pytest.skip("this browser reports neither its console nor its requests")
    assert any("nowhere is not defined" in line for line in console)
    assert "http://127.0.0.1:9/x.png" in asked
    console, asked, dom = visited(conclude(whole).report, tmp_path)
    assert console == []
    assert asked == set()
    page = Page(dom)
    assert [a for tag, a in page.elements if tag == "input" and a.get("class") == "filter"]
    sorts = [a for tag, a in page.elements if tag == "th" and a.get("class") == "sorts"]
    assert len(sorts) > 20  # the script ran to its end
    assert len(page.table("Images")) == 4
