"""Richardson-Lucy deconvolution measured against its peers: speed, quality, automatic stop.

``python benchmarks/rld.py --help`` says how; benchmarks/README.md says what the numbers mean.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from problem import PSFS, Problem, thin
from rich.console import Console
from tables import markdown, quality_tables, speed_tables, stop_tables
from worker import METHODS

_HERE = Path(__file__).resolve().parent
_DATA = _HERE.parents[1] / "shared" / "data" / "peers_problem"
_COUNTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200)
_QUICK_COUNTS = (1, 2, 5, 10, 20)
_SHOWN, _QUICK_SHOWN = (10, 20, 50), (5, 10, 20)  # counts with a column of their own
_TARGETS = (0.44, 0.40)  # NRMSE whose time is measured
_QUICK_SHAPE = (32, 96, 96)
_LEVELS = (1.0, 0.3, 0.1)  # shares of the photons, for the automatic stop
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# On a busy machine threads that spin while they wait cost the method more than they gain.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}

Result = dict[str, Any]


@dataclass
class Bench:
    """Runs jobs, each in a fresh process of the interpreter that has what it needs.

    Attributes
    ----------
    folder
        Where the inputs lie as .npy files.
    pythons
        Interpreters, the first that has a method measures it.
    threads
        For every method.
    """

    folder: Path
    pythons: list[str]
    threads: int
    log: Console
    methods: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    fft: dict[str, str] = field(default_factory=dict)

    def look(self, only: list[str] | None) -> None:
        """Find out which interpreter has which method."""
        for python in self.pythons:
            found = self._call(python, {"task": "probe"})
            for name, version in found["methods"].items():
                self.methods.setdefault(name, python)
                self.versions.setdefault(name, version)
            for library in found["fft"]:
                self.fft.setdefault(library, python)
            self.skipped |= found["absent"]
        wanted = [name for name in METHODS if name in (only or METHODS)]
        self.skipped = {n: self.skipped[n] for n in wanted if n not in self.methods}
        self.methods = {n: self.methods[n] for n in wanted if n in self.methods}

    def save(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)

    def run(self, name: str, task: str, **job: Any) -> Result:
        """Measure a method, or return why it could not be as ``{"failed": reason}``."""
        python = self.methods[name]
        self.log.print(f"  {task}: {METHODS[name].label} {job.get('iterations', '')}", style="dim")
        return self._call(python, {"task": task, "method": name, **job})

    def ffts(self, library: str, shape: tuple[int, ...], repeats: int) -> float:
        job = {"task": "four_ffts", "library": library, "shape": shape, "repeats": repeats}
        return float(self._call(self.fft[library], job)["seconds"])

    def _call(self, python: str, job: Result) -> Result:
        job = {"folder": str(self.folder), "threads": self.threads, **job}
        done = subprocess.run(
            [python, str(_HERE / "worker.py"), json.dumps(job)],
            capture_output=True,
            text=True,
            env=os.environ | _ENVIRONMENT | dict.fromkeys(_THREAD_VARIABLES, str(self.threads)),
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            if job["task"] == "probe":
                raise SystemExit(f"{python} cannot run the benchmark: {reason}")
            self.log.print(f"  failed: {reason}", style="red")
            return {"failed": reason}
        answer: Result = json.loads(done.stdout.splitlines()[-1])
        return answer


def measure_speed(bench: Bench, problem: Problem, rounds: int, *, quick: bool) -> Result:
    """Seconds per iteration, fixed cost, peak memory; and four bare FFTs at the same sizes."""
    image, psf = problem.images["sym"], problem.psfs["sym"]
    images = [image] if quick else [image, np.concatenate([image, image[::-1]])]
    few, many = 3, 13
    results: Result = {}
    for array in images:
        bench.save({"image": array, "psf": psf})
        padded = tuple(
            scipy.fft.next_fast_len(n + p - 1, real=True)
            for n, p in zip(array.shape, psf.shape, strict=True)
        )
        raw: dict[str, list[Result]] = {name: [] for name in bench.methods}
        ffts: Result = {}
        for _ in range(rounds):  # all methods in turn, so that all see the same machine
            for shape in (array.shape, padded):
                for library in bench.fft:
                    key = f"{library} {_by(shape)}"
                    ffts.setdefault(key, []).append(bench.ffts(library, shape, 3 if quick else 9))
            for name in bench.methods:
                job = {"image": "image", "psf": "psf", "few": few, "many": many}
                raw[name].append(bench.run(name, "speed", **job))
        results[_by(array.shape)] = {
            "padded": _by(padded),
            "ffts": ffts,
            "methods": {name: _slope(rows, few, many) for name, rows in raw.items()},
        }
    return results


def _slope(rows: list[Result], few: int, many: int) -> Result:
    if failed := [row for row in rows if "failed" in row]:
        return failed[0]
    slopes = [(row["many_s"] - row["few_s"]) / (many - few) for row in rows]
    fixed = [row["few_s"] - few * s for row, s in zip(rows, slopes, strict=True)]
    peaks = [row["peak_mb"] for row in rows if row["peak_mb"] is not None]
    return {
        "iteration_s": statistics.median(slopes),
        "fixed_s": statistics.median(fixed),
        "peak_mb": statistics.median(peaks) if peaks else None,
        "rounds": rows,
    }


def measure_quality(
    bench: Bench, problem: Problem, rounds: int, *, budget_s: float, quick: bool
) -> Result:
    """NRMSE over iterations for both PSFs, drift, flux; time to given NRMSEs for the first."""
    results: Result = {}
    bench.save({"truth": problem.truth})
    limits = {
        "counts": _QUICK_COUNTS if quick else _COUNTS,
        "shown": _QUICK_SHOWN if quick else _SHOWN,
        "budget_s": budget_s,
    }
    for psf in PSFS:
        bench.save({"image": problem.images[psf], "psf": problem.psfs[psf]})
        inputs = {"image": "image", "psf": "psf"}
        sought = _TARGETS if psf == "sym" else ()
        results[psf] = {
            name: bench.run(name, "quality", targets=sought, **limits, **inputs)
            for name in bench.methods
        }
        for _ in range(rounds):  # all methods in turn, so that all see the same machine
            for name, result in results[psf].items():
                for target, count in result.get("reached", {}).items():
                    if count is not None:
                        timed = bench.run(name, "once", iterations=count, **inputs)
                        if "seconds" in timed:
                            times = result.setdefault("seconds", {}).setdefault(target, [])
                            times.append(timed["seconds"])
    return results


def measure_stop(bench: Bench, problem: Problem, *, quick: bool) -> Result:
    """Our automatic stop against the best of all iteration counts, over noise and PSFs."""
    if "rln-accelerated" not in bench.methods:
        return {}  # not installed, or not asked for
    bench.save({"truth": problem.truth})
    results: Result = {}
    for psf in PSFS:
        for share in _LEVELS:
            bench.save({"image": thin(problem.images[psf], share, 0), "psf": problem.psfs[psf]})
            job = {"image": "image", "psf": "psf", "most": 50 if quick else 100}
            results[f"{psf} {share}"] = bench.run("rln-accelerated", "stop", **job)
    return results


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["speed", "quality", "stop"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; default all")
    parser.add_argument("--quick", action="store_true", help="a small crop, one round")
    parser.add_argument("--data", type=Path, help="folder of the problem's files")
    parser.add_argument("--generate", action="store_true", help="a generated problem, no files")
    parser.add_argument("--seed", type=int, default=0, help="of the generated problem")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of timing, all methods in turn")
    parser.add_argument(
        "--budget", type=float, default=40, help="seconds of a call after which counts end"
    )
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="these methods")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        help="another interpreter, of an environment with more peers; may be repeated",
    )
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--out", type=Path, help="write all numbers, JSON")
    chosen = parser.parse_args()
    chosen.parts = chosen.parts or parts
    if unknown := set(chosen.parts) - set(parts):
        parser.error(f"no part is called {', '.join(unknown)}; choose from {', '.join(parts)}")
    return chosen


def main() -> None:
    """Measure, print and save."""
    chosen = _arguments()
    quick, rounds = chosen.quick, 1 if chosen.quick else chosen.rounds
    folder = None if chosen.generate else chosen.data or (_DATA if _DATA.is_dir() else None)
    problem = Problem.load(folder) if folder else Problem.generate(chosen.seed)
    if quick:
        problem = problem.crop(_QUICK_SHAPE)
    show = Console(width=None if sys.stdout.isatty() else 200)
    with tempfile.TemporaryDirectory() as temporary:
        pythons = [sys.executable, *chosen.python]
        bench = Bench(Path(temporary), pythons, chosen.threads, Console(stderr=True))
        bench.look(chosen.only)
        results: Result = {
            "problem": problem.source,
            "processor": _processor(),
            "threads": chosen.threads,
            "rounds": rounds,
            "versions": bench.versions,
            "skipped": bench.skipped,
        }
        show.print(
            f"Problem: {problem.source}. {results['processor']}, {chosen.threads} threads, "
            f"median of {rounds} rounds, methods in turn, each measurement a fresh process."
        )
        found = {f"{METHODS[name].package} {bench.versions[name]}" for name in bench.methods}
        show.print(", ".join(sorted(found, key=str.lower)) + ".")
        parts = {
            "speed": (speed_tables, lambda: measure_speed(bench, problem, rounds, quick=quick)),
            "quality": (
                quality_tables,
                lambda: measure_quality(
                    bench, problem, rounds, budget_s=chosen.budget, quick=quick
                ),
            ),
            "stop": (stop_tables, lambda: measure_stop(bench, problem, quick=quick)),
        }
        for part in chosen.parts:
            tables, measure = parts[part]
            results[part] = measure()
            for table in tables(results[part]):
                print(markdown(table)) if chosen.markdown else show.print(table)
            if chosen.out:  # after every part: a later one may be cut short
                chosen.out.write_text(json.dumps(results, indent=1))
    for name, reason in bench.skipped.items():
        show.print(f"not measured: {METHODS[name].label}: {reason}")


if __name__ == "__main__":
    main()
