"""Run of a study: trainings, test images and methods, cell by cell.

Several processes share the work of one folder: each trains and tests what no other does.
"""

import json
import shlex
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from napari_rln.core.errors import ComputeError, RlnError, capture_warnings
from napari_rln.core.generators import Stopwatch, finish
from napari_rln.core.report import Report
from napari_rln.io.paths import atomic
from napari_rln.networks.model import SUFFIX, Model, load_model
from napari_rln.networks.network import Network
from napari_rln.study.config import StudySettings
from napari_rln.study.folder import STUDY, claimed, machine_facts, prepare_folder
from napari_rln.study.measurement import Bench, Measurement, Warm
from napari_rln.study.plan import (
    PlannedCell,
    StudyPlan,
    Training,
    by_image,
    plan_study,
    trainings_of,
)
from napari_rln.study.progress import Phase, StudyReport
from napari_rln.study.results import Cell, CellResult
from napari_rln.train.checkpoint import Checkpoint, discard
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_settings import TrainReport

_PAUSE = 1.0  # seconds between looks whether other processes have finished


def run_study(
    settings: StudySettings,
    folder: str | Path,
    *,
    only: str | None = None,
    overwrite: bool = False,
) -> tuple[CellResult, ...]:
    """Run a study; see :func:`run_study_iter`, which yields reports."""
    return finish(run_study_iter(settings, folder, only=only, overwrite=overwrite))


def run_study_iter(
    settings: StudySettings,
    folder: str | Path,
    *,
    only: str | None = None,
    overwrite: bool = False,
) -> Generator[StudyReport, None, tuple[CellResult, ...]]:
    """Run a study; yield reports, return the results of all its cells.

    Closing the generator interrupts it. Finished cells and trained models are kept, and an
    interrupted training goes on from its checkpoint. A cell that fails is recorded with its error,
    and computed again by the next run. Runs of the same study in one folder share the work, and all
    end when the last cell is finished.

    Parameters
    ----------
    settings
        Settings of the study.
    folder
        Folder of the study; created if absent.
    only
        Key of a single cell to compute, also if it is finished.
    overwrite
        Replace the configuration of another study in the folder. Finished cells and trained models
        stay in it, and count where the configuration has them.

    Raises
    ------
    RlnError
        If a PSF cannot be made, there is no such cell, or the folder holds another study.
    OSError
        If a result cannot be written.
    """
    folder, plan = Path(folder), plan_study(settings)
    chosen = plan if only is None else plan.only(only)
    prepare_folder(plan, folder, overwrite=overwrite)
    plan = chosen
    run = _Run(plan, folder, again=only is not None)
    groups = by_image(run.pending)
    while groups:
        left = []
        for group in groups:
            if not (yield from run.compute(group)):
                left.append(group)
        if len(left) == len(groups):  # all are in the hands of other processes
            yield run.waiting()
            time.sleep(_PAUSE)
        groups = left
    return tuple(run.results[c.key] for c in plan.cells if c.key in run.results)


class TimeNeeded(NamedTuple):
    """What is unfinished: seconds, whether they are known of all, and numbers."""

    seconds: float
    complete: bool
    trainings: int
    cells: int


def time_needed(plan: StudyPlan, folder: Path) -> TimeNeeded:
    """Return the time that the unfinished part of a study needs, by the finished part."""
    return _Run(plan, folder, again=False).time_needed()


class _Run:
    """State of a run: results, failed trainings and times so far."""

    def __init__(self, plan: StudyPlan, folder: Path, *, again: bool) -> None:
        self.results: dict[str, CellResult] = {}
        self._settings, self._folder, self._again = plan.settings, folder, again
        self._failed: dict[str, str] = {}
        self._warm: Warm = set()
        self._times = _Times()
        self._started = time.perf_counter()
        self._recorded: set[str] = set()  # cells of this run and of others meanwhile
        self._written: dict[str, int] = {}  # when the cells of earlier runs were, in nanoseconds
        for planned in plan.cells:
            path = self._cell_path(planned)
            if path.is_file():
                self._written[planned.key] = path.stat().st_mtime_ns
                self._keep(CellResult.load(path))
        self.pending = [c for c in plan.cells if again or not self._is_finished(c)]
        self._trainings = trainings_of(self.pending)
        for key, training in trainings_of(plan.cells).items():
            if self._model_path(key).is_file():
                self._trainings.pop(key, None)
                self._times.trainings[training.name].append(self._training_seconds(key))
        self._left, self._left_at = self.time_needed(), self._started

    def time_needed(self) -> TimeNeeded:
        """Return the time that unfinished trainings and cells need."""
        left = [c for c in self.pending if not self._is_finished(c)]
        return self._times.needed(self._trainings.values(), left)

    @cached_property
    def _machine(self) -> str:
        """What times depend on; not for the time needed, as it may be asked on another machine."""
        facts = machine_facts(self._settings.device)
        return ", ".join(str(facts[name]) for name in ("processor", "cores", "device"))

    def waiting(self) -> StudyReport:
        """Return the report of a pause until other processes have finished."""
        self._look_ahead()
        return self._report("wait")

    def compute(self, group: Sequence[PlannedCell]) -> Generator[StudyReport, None, bool]:
        """Train for the cells of an image and test them, but for what another process does.

        Return whether nothing of them is left.
        """
        left = [planned for planned in group if not self._is_finished_elsewhere(planned)]
        trainings = trainings_of(left)
        for key, training in trainings.items():
            with claimed(self._folder, key) as own:
                if own:
                    yield from self.train(training)
        if not all(key in self._failed or self._model_path(key).is_file() for key in trainings):
            return False
        with claimed(self._folder, group[0].image.key) as own:
            left = [planned for planned in left if not self._is_finished_elsewhere(planned)]
            if own and left:
                yield from self.test(left)
        return own

    # --- training

    def train(self, training: Training) -> Generator[StudyReport, None, None]:
        """Train, unless there is the model, or it failed; an interrupted training goes on."""
        key, path = training.key, self._model_path(training.key)
        if path.is_file():
            if self._trainings.pop(key, None) is not None:  # another process has trained it
                self._times.trainings[training.name].append(self._training_seconds(key))
            return
        if key in self._failed:
            return
        checkpoint, clock = path.with_suffix(".checkpoint"), Stopwatch()
        before = self._training_seconds(key)
        try:
            steps = train_model_iter(
                training.training_set(), training.settings, name=training.name,
                checkpoint=checkpoint, resume=_can_resume(checkpoint), keep_checkpoint=True,
            )  # fmt: skip
            model = yield from self._followed(clock.follow(steps), "train", training.name)
            model.save(path)
            discard(checkpoint)
        except Exception as error:
            self._failed[key] = f"the training failed: {_message(error)}"
        else:
            self._times.trainings[training.name].append(before + clock.seconds)
        finally:
            if path.is_file() or checkpoint.is_file():  # else nothing of it is kept
                self._save_training_facts(training, before + clock.seconds)
        self._trainings.pop(key, None)
        self._look_ahead()

    def _model_path(self, key: str) -> Path:
        return self._folder / "models" / f"{key}{SUFFIX}"

    def _training_seconds(self, key: str) -> float:
        """Return the duration of a training so far, over all runs, seconds."""
        try:
            text = self._model_path(key).with_suffix(".json").read_text(encoding="utf-8")
            return float(json.loads(text)["seconds"])
        except (OSError, ValueError, LookupError, TypeError):
            return 0.0

    def _save_training_facts(self, training: Training, seconds: float) -> None:
        facts = {
            "seconds": round(seconds, 2),
            "method": training.name,
            "psf": training.psf.name,
            "structures": training.structures.name,
            "photons": training.photons,
            "volumes": training.settings.examples,
            "seed": training.seed,
        }
        with atomic(self._model_path(training.key).with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")

    # --- testing

    def test(self, group: Sequence[PlannedCell]) -> Generator[StudyReport, None, None]:
        """Make the image of the cells, and test their methods on it."""
        image = group[0].image
        yield self._report("simulate", group[0].cell)
        try:
            with capture_warnings(lambda message: None):
                pair = image.simulate()
                bench = Bench(pair, image.assumed, self._warm)
        except Exception as error:
            for planned in group:
                yield self._finished(planned, error=f"the image failed: {_message(error)}")
            return
        if image.seed == self._settings.seeds[0]:
            seen, truth = bench.planes_of_input()
            seen.save(self._folder / "planes" / f"image-{pair.image.hash}.npz")
            truth.save(self._folder / "planes" / f"truth-{pair.image.hash}.npz")
        for unit in _units(group):
            yield from self._measure(unit, bench, pair.image.hash)

    def _measure(
        self, unit: Sequence[PlannedCell], bench: Bench, image: str
    ) -> Generator[StudyReport, None, None]:
        """Measure the cells of one run, and record them."""
        facts: dict[str, Any] = {"image": image}
        began, name = time.perf_counter(), unit[0].method.name
        model: Model | None = None
        try:
            if _is_iterative(unit[0]):
                methods = [planned.method for planned in unit]
                steps = bench.iterate(methods, self._settings.device)
                found = yield from self._followed(steps, "test", name, unit[0].cell)
            else:
                model = self._model(unit[0])
                method = unit[0].method.classical(self._settings.device) if model is None else (
                    Network(model=model, device=self._settings.device)
                )  # fmt: skip
                one = bench.apply(method, name)
                found = [(yield from self._followed(one, "test", name, unit[0].cell))]
        except Exception as error:
            for planned in unit:
                yield self._finished(planned, facts=facts, error=_message(error))
            return
        each = (time.perf_counter() - began) / len(unit)
        for planned, measured in zip(unit, found, strict=True):
            own = facts | {"wall_seconds": round(each, 3)}
            yield self._finished(planned, measured=measured, model=model, facts=own)

    def _model(self, planned: PlannedCell) -> Model | None:
        """Return the model of a cell; none for a classical method."""
        if planned.training is not None:
            key = planned.training.key
            if key in self._failed and not self._model_path(key).is_file():
                raise RlnError(self._failed[key])
            return load_model(self._model_path(key))
        return load_model(planned.method.model) if planned.method.kind == "model" else None

    def _finished(
        self,
        planned: PlannedCell,
        *,
        measured: Measurement | None = None,
        model: Model | None = None,
        facts: Mapping[str, Any] = {},
        error: str | None = None,
    ) -> StudyReport:
        """Record the result of a cell, and return its report."""
        if measured is not None and planned.cell.seed == self._settings.seeds[0]:
            measured.planes.save(self._folder / "planes" / f"{planned.key}.npz")
        folder = shlex.quote(str(self._folder))
        study = shlex.quote(str(self._folder / STUDY))
        more: dict[str, Any] = {
            "kind": planned.method.kind,
            "wrong_psf": planned.wrong_psf,
            "threads": torch.get_num_threads(),
            "machine": self._machine,
        }
        trained = None
        if planned.training is not None:
            more["train_seed"] = planned.training.seed
        if planned.training is not None and measured is not None:
            trained = self._training_seconds(planned.training.key)
            if model is not None and model.record is not None:
                facts_of_training = model.record.facts
                more["training_steps"] = facts_of_training.get("steps")
                more["training_threads"] = facts_of_training.get("threads")
        result = CellResult(
            key=planned.key,
            cell=planned.cell,
            scores={} if measured is None else measured.scores,
            seconds=None if measured is None else measured.seconds,
            training_seconds=trained,
            parameters=None if model is None else _parameters(model),
            iterations=None if measured is None else measured.iterations,
            error=error,
            command=f"napari-rln study {study} -o {folder} --cell {planned.key}",
            facts={**(facts or {}), **more, **({} if measured is None else measured.facts)},
        )
        result.save(self._folder / "cells")
        self._record(result)
        self._look_ahead()
        report = self._report("test", planned.cell, planned.method.name)
        return replace(report, result=result)

    # --- state

    def _cell_path(self, planned: PlannedCell) -> Path:
        return self._folder / "cells" / f"{planned.key}.json"

    def _is_finished_elsewhere(self, planned: PlannedCell) -> bool:
        """Tell whether another process has computed a cell by now, and keep its result.

        One that failed there is not tried again in this run.
        """
        path = self._cell_path(planned)
        if self._again or not path.is_file():
            return False
        if planned.key in self._recorded:
            return True
        if path.stat().st_mtime_ns == self._written.get(planned.key):
            return False
        self._record(CellResult.load(path))
        return True

    def _is_finished(self, planned: PlannedCell) -> bool:
        result = self.results.get(planned.key)
        return result is not None and result.error is None

    def _record(self, result: CellResult) -> None:
        self._recorded.add(result.key)
        self._keep(result)

    def _keep(self, result: CellResult) -> None:
        self.results[result.key] = result
        if result.error is None and "wall_seconds" in result.facts:
            self._times.cells[result.cell.method].append(float(result.facts["wall_seconds"]))

    def _look_ahead(self) -> None:
        self._left, self._left_at = self.time_needed(), time.perf_counter()

    def _report(
        self,
        phase: Phase,
        cell: Cell | None = None,
        method: str = "",
        inner: Report | TrainReport | None = None,
    ) -> StudyReport:
        now, left = time.perf_counter(), None
        if self._left.complete:
            left = max(0.0, self._left.seconds - (now - self._left_at))
        return StudyReport(
            phase=phase, done=len(self._recorded), total=len(self.pending), cell=cell,
            method=method, seconds=now - self._started, seconds_left=left, inner=inner,
        )  # fmt: skip

    def _followed(
        self,
        steps: Generator[Any, None, Any],
        phase: Phase,
        method: str,
        cell: Cell | None = None,
    ) -> Generator[StudyReport, None, Any]:
        """Yield reports of inner work, silently; return its result."""
        try:
            while True:
                try:
                    with capture_warnings(lambda message: None):
                        report = next(steps)
                except StopIteration as stop:
                    return stop.value
                yield self._report(phase, cell, method, report)
        finally:
            steps.close()


class _Times:
    """Seconds of trainings and of cells so far, by method."""

    def __init__(self) -> None:
        self.trainings: defaultdict[str, list[float]] = defaultdict(list)
        self.cells: defaultdict[str, list[float]] = defaultdict(list)

    def needed(self, trainings: Iterable[Training], cells: Iterable[PlannedCell]) -> TimeNeeded:
        """Return the time that trainings and cells need."""
        trainings, cells = tuple(trainings), tuple(cells)
        total, complete = 0.0, True
        for training in trainings:
            known = self.trainings.get(training.name)
            if known:
                total += fmean(known)
            elif training.settings.steps is None:
                total += 60 * training.settings.minutes
            else:
                complete = False
        for planned in cells:
            known = self.cells.get(planned.method.name)
            if known:
                total += fmean(known)
            else:
                complete = False
        return TimeNeeded(total, complete, len(trainings), len(cells))


def _units(group: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Return the cells of an image in groups that are measured in one run."""
    units: dict[str, list[PlannedCell]] = {}
    for planned in group:
        method = planned.method
        settings = json.dumps([method.kind, dict(method.settings)], sort_keys=True)
        units.setdefault(settings if _is_iterative(planned) else planned.key, []).append(planned)
    return list(units.values())


def _is_iterative(planned: PlannedCell) -> bool:
    """Tell whether the method is measured at its iterations."""
    return planned.method.stop is not None


def _parameters(model: Model) -> int:
    """Return the number of trained parameters."""
    parts = (model.network, model.refinement)
    return sum(p.numel() for part in parts if part is not None for p in part.parameters())


def _can_resume(checkpoint: Path) -> bool:
    """Tell whether there is a checkpoint; a damaged one is removed."""
    if not checkpoint.is_file():
        return False
    try:
        Checkpoint.load(checkpoint)
    except RlnError:
        discard(checkpoint)
        return False
    return True


def _message(error: Exception) -> str:
    """Return the message of an error, of one of the program's own mistakes with its type."""
    text = str(error).replace("`", "")
    known = isinstance(error, RlnError | ComputeError)
    return text if known else f"{type(error).__name__}: {text}"
