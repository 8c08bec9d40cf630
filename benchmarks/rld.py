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
from rich.console import Console
from rich.table import Table

from problem import PSFS, Problem, thin
from worker import METHODS

_HERE = Path(__file__).resolve().parent
_DATA = _HERE.parents[1] / "shared" / "data" / "peers_problem"
_LEVELS = (1.0, 0.3, 0.1)  # shares of the photons, for the automatic stop
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

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
        self.skipped = {n: why for n, why in self.skipped.items() if n not in self.methods}
        wanted = only or list(METHODS)
        self.methods = {n: self.methods[n] for n in METHODS if n in wanted and n in self.methods}

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
            env=os.environ | dict.fromkeys(_THREAD_VARIABLES, str(self.threads)),
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
    images = {"small": image}
    if not quick:
        images["large"] = np.concatenate([image, image[::-1]])
    few, many = (1, 4) if quick else (3, 13)
    results: Result = {}
    for size, array in images.items():
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
    if any("failed" in row for row in rows):
        return rows[-1]
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
    bench: Bench, problem: Problem, rounds: int, targets: tuple[float, ...], *, quick: bool
) -> Result:
    """NRMSE over iterations for both PSFs, drift, flux; time to given NRMSEs for the first."""
    results: Result = {}
    bench.save({"truth": problem.truth})
    limits = {"most": 50 if quick else 200, "budget_s": 5 if quick else 60, "shown": [10, 20, 50]}
    for psf in PSFS:
        bench.save({"image": problem.images[psf], "psf": problem.psfs[psf]})
        inputs = {"image": "image", "psf": "psf"}
        sought = targets if psf == "sym" else ()
        results[psf] = {
            name: bench.run(name, "quality", targets=sought, **limits, **inputs)
            for name in bench.methods
        }
        for _ in range(rounds):  # all methods in turn, so that all see the same machine
            for name, result in results[psf].items():
                for target, count in result.get("reached", {}).items():
                    if count is not None:
                        timed = bench.run(name, "once", iterations=count, **inputs)
                        result.setdefault("seconds", {}).setdefault(target, []).append(
                            timed["seconds"]
                        )
    return results


def measure_stop(bench: Bench, problem: Problem, *, quick: bool) -> Result:
    """Our automatic stop against the best of all iteration counts, over noise and PSFs."""
    if "rln-accelerated" not in bench.methods:
        return {}
    bench.save({"truth": problem.truth})
    results: Result = {}
    for psf in PSFS:
        for share in _LEVELS:
            bench.save({"image": thin(problem.images[psf], share, 0), "psf": problem.psfs[psf]})
            job = {"image": "image", "psf": "psf", "most": 20 if quick else 100}
            results[f"{psf} {share}"] = bench.run("rln-accelerated", "stop", **job)
    return results


def speed_tables(results: Result) -> list[Table]:
    tables = []
    for shape, result in results.items():
        medians = {key: statistics.median(times) for key, times in result["ffts"].items()}
        limits = {
            size: min(t for key, t in medians.items() if key.endswith(size))
            for size in (shape, result["padded"])
        }
        table = _table(
            f"Speed and memory, image {shape}, PSF 31x31x31",
            ("method", "border", "s/iteration", "x four FFTs", "fixed s", "peak MB over base"),
        )
        for key, seconds in medians.items():
            size = shape if key.endswith(shape) else result["padded"]
            table.add_row(f"four FFTs, {key}", "", f"{seconds:.3f}", f"{seconds / limits[size]:.2f}", "", "")
        for name, row in result["methods"].items():
            method = METHODS[name]
            if "failed" in row:
                table.add_row(method.label, row["failed"], "", "", "", "")
                continue
            limit = limits[result["padded"] if method.padded else shape]
            peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            ratio = f"{row['iteration_s'] / limit:.2f}"
            table.add_row(
                method.label,
                method.border,
                f"{row['iteration_s']:.3f}",
                ratio,
                f"{row['fixed_s']:.2f}",
                peak,
            )
        tables.append(table)
    return tables


def quality_tables(results: Result, targets: tuple[float, ...]) -> list[Table]:
    tables = []
    for psf, methods in results.items():
        title = {"sym": "symmetric PSF", "asym": "PSF with spherical aberration and coma"}[psf]
        timed = tuple(f"s to {t} (iterations)" for t in targets) if psf == "sym" else ()
        columns = ("method", "start", "10", "20", "50", "best (at)", "drift z y x", "flux", *timed)
        table = _table(f"NRMSE over iterations, {title}", columns)
        for name, result in methods.items():
            if "failed" in result:
                table.add_row(METHODS[name].label, result["failed"], *[""] * (len(columns) - 2))
                continue
            scores = result["scores"]
            best = min(scores, key=lambda count: scores[count]["nrmse"])
            last = scores[max((c for c in scores if "drift" in scores[c]), key=int)]
            table.add_row(
                METHODS[name].label,
                METHODS[name].start,
                *(f"{scores[c]['nrmse']:.3f}" for c in ("10", "20", "50")),
                f"{scores[best]['nrmse']:.3f} ({best})",
                " ".join(f"{d:+.2f}" for d in last["drift"]),
                f"{last['flux']:.3f}",
                *(_time_to(result, str(target)) for target in (targets if timed else ())),
            )
        tables.append(table)
    return tables


def _time_to(result: Result, target: str) -> str:
    times = result.get("seconds", {}).get(target)
    if not times:
        return "not reached"
    return f"{statistics.median(times):.2f}, least {min(times):.2f} ({result['reached'][target]})"


def stop_tables(results: Result) -> list[Table]:
    table = _table(
        "Automatic stop, against all iteration counts",
        ("PSF", "photons", "stops at", "NRMSE", "best (at)", "excess %", "flux", "s"),
    )
    for key, result in results.items():
        psf, share = key.split()
        if "failed" in result:
            table.add_row(psf, share, result["failed"], *[""] * 5)
            continue
        best = min(result["errors"])
        table.add_row(
            psf,
            share,
            str(result["iterations"]),
            f"{result['nrmse']:.4f}",
            f"{best:.4f} ({result['errors'].index(best) + 1})",
            f"{100 * (result['nrmse'] / best - 1):.1f}",
            f"{result['flux']:.3f}",
            f"{result['seconds']:.1f}",
        )
    return [table]


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("method", "border") else "right")
    return table


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _markdown(table: Table) -> str:
    cells = [list(column.cells) for column in table.columns]
    lines = [" | ".join(str(column.header) for column in table.columns)]
    lines.append(" | ".join("---" for _ in table.columns))
    lines += [" | ".join(str(cell) for cell in row) for row in zip(*cells, strict=True)]
    return "\n".join([f"### {table.title}", "", *(f"| {line} |" for line in lines), ""])


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
    parser.add_argument("--quick", action="store_true", help="a 32x128x128 crop, one round")
    parser.add_argument("--data", type=Path, help="folder of the problem's files")
    parser.add_argument("--generate", action="store_true", help="a generated problem, no files")
    parser.add_argument("--seed", type=int, default=0, help="of the generated problem")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of timing, all methods in turn")
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
    log, targets = Console(stderr=True), (0.44, 0.40)
    folder = chosen.data or (_DATA if _DATA.is_dir() and not chosen.generate else None)
    problem = Problem.load(folder) if folder else Problem.generate(chosen.seed)
    if chosen.quick:
        problem = problem.crop((32, 128, 128))
    rounds = 1 if chosen.quick else chosen.rounds
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), [sys.executable, *chosen.python], chosen.threads, log)
        bench.look(chosen.only)
        results: Result = {
            "problem": problem.source,
            "processor": _processor(),
            "threads": chosen.threads,
            "rounds": rounds,
            "versions": bench.versions,
            "skipped": bench.skipped,
        }
        tables: list[Table] = []
        if "speed" in chosen.parts:
            results["speed"] = measure_speed(bench, problem, rounds, quick=chosen.quick)
            tables += speed_tables(results["speed"])
        if "quality" in chosen.parts:
            results["quality"] = measure_quality(
                bench, problem, rounds, targets, quick=chosen.quick
            )
            tables += quality_tables(results["quality"], targets)
        if "stop" in chosen.parts:
            results["stop"] = measure_stop(bench, problem, quick=chosen.quick)
            tables += stop_tables(results["stop"])
    show = Console(width=None if sys.stdout.isatty() else 200)
    show.print(
        f"Problem: {problem.source}. {results['processor']}, {chosen.threads} threads, "
        f"median of {rounds} rounds, methods in turn, each measurement a fresh process."
    )
    for table in tables:
        print(_markdown(table)) if chosen.markdown else show.print(table)
    for name, reason in bench.skipped.items():
        show.print(f"not measured: {METHODS[name].label}: {reason}")
    if chosen.out:
        chosen.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
