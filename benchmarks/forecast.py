"""Predictions of `--dry-run` against the run: `python benchmarks/forecast.py`.

Memory is the peak of the whole process, disk the largest size of its folder.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from memory import run, words_for, write_inputs

# Runs: shape, times, method, ending of the result, and further options.
CASES: dict[str, tuple[tuple[int, int, int], int, list[Any]]] = {
    "rld whole .tif": ((64, 384, 384), 1, ["rld", "tif"]),
    "rld 0.9 GB .tif": ((64, 384, 384), 1, ["rld", "tif", "--memory-gb", 0.9]),
    "rld 1.2 GB .ome.tif": ((64, 512, 768), 1, ["rld", "ome.tif", "--memory-gb", 1.2]),
    "rld .ome.zarr": ((64, 384, 384), 1, ["rld", "ome.zarr"]),
    "rld .ome.zarr uint16": ((64, 384, 384), 1, ["rld", "ome.zarr", "--dtype", "uint16"]),
    "rld 2 workers .ome.zarr": ((64, 384, 384), 1, ["rld", "ome.zarr", "--workers", 2]),
    "rld series of 3 .ome.zarr": ((64, 256, 256), 3, ["rld", "ome.zarr"]),
    "rln whole .ome.tif": ((64, 384, 384), 1, ["rln", "ome.tif"]),
    "rln 1.2 GB .ome.zarr": ((64, 384, 384), 1, ["rln", "ome.zarr", "--memory-gb", 1.2]),
}


def figure(text: str, before: str = "") -> float:
    """Return the first number of GB in a text, after some words."""
    return float(re.search(rf"{before}([\d.]+) GB", text)[1])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", default=list(CASES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, help="JSON with every number")
    options = parser.parse_args()
    rows = {}
    print(
        "| run | tiles | memory GB: predicted, measured | disk GB: predicted, measured "
        + "| during the run: predicted, most |\n"
        + "| --- " * 5
        + "|"
    )
    for name in options.case:
        shape, times, (method, ending, *more) = CASES[name]
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            write_inputs(Path(place), shape, times)
            words, results = words_for(method, Path(place), ending, more)
            predicted = run([*words, "--dry-run"])
            if predicted["code"]:
                raise RuntimeError(predicted["err"])
            plan = json.loads(predicted["out"])["plan"]
            done = run(words, results)
            if done["code"]:
                raise RuntimeError(done["err"])
        disk = plan["disk"]
        meanwhile = figure(disk, "up to ") if "up to" in disk else figure(disk)
        rows[name] = {"plan": plan} | {k: done[k] for k in ("peak", "disk", "after")}
        print(
            f"| {name} | {plan.get('tiles', 'whole').split(',')[0]} | "
            f"{figure(plan['memory']):.2f}, {done['peak'] / 1e9:.2f} | "
            f"{figure(disk):.3f}, {done['after'] / 1e9:.3f} | "
            f"{meanwhile:.3f}, {done['disk'] / 1e9:.3f} |",
            flush=True,
        )
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
