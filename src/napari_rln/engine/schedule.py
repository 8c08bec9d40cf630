"""Schedule of a run: submitted, finished and remaining tasks.

The deconvolution's tiles go to the workers in slabs; a block is written and recorded as soon as the
tiles with a weight in it are done. A tile is deleted when no block needs it any more. A part on
display comes first; tiles at its border then wait for longer, on the disk.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Literal, NamedTuple

from napari_rln.core.errors import ComputeError
from napari_rln.core.report import Phase, Report
from napari_rln.core.tiles import overlap
from napari_rln.core.volume import Box
from napari_rln.engine.executors import Workers
from napari_rln.engine.journal import TILE, Key, RunFolder, RunState, changed_since
from napari_rln.engine.plan import IN_FLIGHT, pairs
from napari_rln.engine.worker import (
    TaskResult,
    check_block,
    check_source,
    coarsen_block,
    deconvolve_tile,
    finish_block,
)


class _Work(NamedTuple):
    """A task submitted to a worker."""

    kind: Literal["tile", "block", "level", "check"]
    key: Key


_Task = tuple[_Work, Callable[..., Any], tuple[Any, ...]]
_OVER: Any = object()


class Driver:
    """Driver of a run.

    Parameters
    ----------
    started
        Start of the run by ``time.perf_counter()``, for the times of reports.
    first
        Part (z, y, x) of a volume whose blocks come before the others.

    Attributes
    ----------
    finished : dict
        Written parts, with checksums.
    seconds : dict
        Times of reading, computing and writing of all workers.
    peak_bytes : int
        Peak memory of any worker.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: RunState,
        workers: Workers,
        started: float,
        first: Box | None = None,
    ) -> None:
        self.folder, self.state, self.workers, self.started = folder, state, workers, started
        self._first = first
        self.finished = folder.finished()
        self.seconds = {"read": 0.0, "compute": 0.0, "write": 0.0}
        self.peak_bytes = 0
        self._where = str(folder.out), workers.device_name
        self._pending: dict[Future[Any], _Work] = {}
        self._most = workers.count * IN_FLIGHT

    def report(self, phase: Phase, done: int, total: int, **more: Any) -> Report:
        """Return a report of the run."""
        seconds = time.perf_counter() - self.started
        return Report(phase=phase, done=done, total=total, seconds=seconds, **more)

    def check(self) -> Generator[Report, None, None]:
        """Yield reports; drop finished parts that are damaged."""
        entries = {
            key: entry
            for key, entry in self.finished.items()
            if key.level != TILE or self.folder.scratch(key.time, key.number).exists()
        }
        tasks = (
            (_Work("check", key), check_block, (key, entry["checksum"]))
            for key, entry in entries.items()
        )
        for done, (work, intact) in enumerate(self._all(tasks), 1):
            when, level, number = work.key
            if not intact:
                del self.finished[work.key]
            box = self.state.plan.blocks[number].core if intact and not level else None
            yield self.report("check", done, len(entries), box=box, time=when)

    def check_source(self) -> Generator[Report, None, None]:
        """Yield reports; raise if the image has changed since tiles were finished.

        Raises
        ------
        RlnError
            If so, with the place of the difference.
        """
        entries = {key: entry for key, entry in self.finished.items() if "source" in entry}
        tasks = (
            (_Work("check", key), check_source, (key, entry["source"]))
            for key, entry in entries.items()
        )
        for done, (work, same) in enumerate(self._all(tasks), 1):
            if not same:
                raise changed_since(self.state, work.key)
            yield self.report("check", done, len(entries))

    def blocks(self) -> Generator[Report, None, None]:
        """Yield reports with the blocks of the finest level, as they are written."""
        plan = self.state.plan
        total = plan.times * len(plan.blocks)
        left = [pair for pair in pairs(plan) if Key(pair[0], 0, pair[1]) not in self.finished]
        left.sort(key=self._is_later)
        needs = [plan.needed(block.window) for block in plan.blocks]
        blocks_of: dict[tuple[int, int], list[int]] = {}  # blocks that need a tile
        missing: dict[tuple[int, int], int] = {}  # number of unfinished tiles of a block
        for when, number in left:
            missing[when, number] = len(needs[number])
            for needed in needs[number]:
                blocks_of.setdefault((when, needed), []).append(number)
        waiting = {tile: len(numbers) for tile, numbers in blocks_of.items()}
        finished_tiles = {
            (when, number)
            for when, number in blocks_of
            if Key(when, TILE, number) in self.finished
            and self.folder.scratch(when, number).exists()
        }
        unfinished_tiles = sorted(set(blocks_of) - finished_tiles)
        unfinished_tiles.sort(
            key=lambda tile: min(self._is_later((tile[0], n)) for n in blocks_of[tile])
        )
        tiles = deque(unfinished_tiles)
        ready = deque(pair for pair in left if not missing[pair])

        def arrived(tile: tuple[int, int]) -> None:
            for number in blocks_of[tile]:
                missing[tile[0], number] -= 1
                if not missing[tile[0], number]:
                    ready.append((tile[0], number))

        def tasks() -> Generator[_Task | None, None, None]:
            while ready or tiles or missing:
                if ready:
                    when, number = ready.popleft()
                    yield _Work("block", Key(when, 0, number)), finish_block, (when, number)
                elif tiles:
                    when, number = tiles.popleft()
                    yield _Work("tile", Key(when, TILE, number)), deconvolve_tile, (when, number)
                else:
                    yield None  # the next task waits for a submitted one

        for tile in sorted(finished_tiles):
            arrived(tile)
        for work, done in self._all(tasks()):
            when, _, number = work.key
            self._record(done)
            if work.kind == "tile":
                arrived((when, number))
                finished_tiles.add((when, number))
                yield self.report("deconvolve", len(finished_tiles), len(blocks_of))
                continue
            del missing[when, number]
            for needed in needs[number]:
                waiting[when, needed] -= 1
                if not waiting[when, needed]:
                    self.folder.scratch(when, needed).unlink(missing_ok=True)
            written = total - len(missing)
            yield self.report("tiles", written, total, box=plan.blocks[number].core, time=when)

    def _is_later(self, pair: tuple[int, int]) -> bool:
        """Tell whether a block is not one of those that come first."""
        core = self.state.plan.blocks[pair[1]].core
        return self._first is not None and not overlap(core, self._first)

    def levels(self) -> Generator[Report, None, None]:
        """Yield reports while the coarser levels are written, each from the previous one."""
        plan = self.state.plan
        keys = {
            level: [
                Key(when, level, number)
                for when in range(plan.times)
                for number in range(len(plan.level_boxes(level)))
            ]
            for level in range(1, len(plan.levels))
        }
        done, total = 0, sum(map(len, keys.values()))
        for of_level in keys.values():
            left = [key for key in of_level if key not in self.finished]
            done += len(of_level) - len(left)
            for _, result in self._all((_Work("level", k), coarsen_block, tuple(k)) for k in left):
                self._record(result)
                done += 1
                yield self.report("pyramid", done, total)

    def cancel(self) -> None:
        """Cancel tasks that no worker has started."""
        for future in self._pending:
            future.cancel()

    def _all(self, tasks: Iterable[_Task | None]) -> Generator[tuple[_Work, Any], None, None]:
        """Yield tasks with their results as they end; few are submitted at once."""
        left = iter(tasks)
        over = False
        while self._pending or not over:
            while not over and len(self._pending) < self._most:
                task = next(left, _OVER)
                if task is _OVER:
                    over = True
                elif task is None:
                    break
                else:
                    work, function, arguments = task
                    future = self.workers.submit(function, *self._where, *arguments)
                    self._pending[future] = work
            if not self._pending:
                if over:
                    return
                raise ComputeError(
                    "the remaining blocks wait for tiles that nothing computes; report this bug."
                )
            ended, _ = wait(self._pending, return_when=FIRST_COMPLETED)
            for future in ended:
                work = self._pending.pop(future)
                yield work, future.result()

    def _record(self, done: TaskResult) -> None:
        for part, seconds in done.seconds.items():
            self.seconds[part] += seconds
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)
        self.folder.add_finished(done.key, done.entry)
        self.finished[done.key] = done.entry
