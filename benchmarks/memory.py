"""Memory of a command with a memory limit: `python benchmarks/memory.py --help`.

Memory is that of the whole process, with its libraries and the processes that it starts, as
a job queue or a container counts it. The peak is the kernel's own (VmHWM), read until the end.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from problem import VOXEL_UM, Problem

COMMAND = [sys.executable, "-m", "napari_rln"]
_EVERY_S = 0.02


def write_inputs(place: Path, shape: tuple[int, int, int], times: int = 1) -> None:
    """Write an image of a size, made of copies of a small one, and its PSF."""
    import tifffile

    from napari_rln.core.volume import Volume
    from napari_rln.io.volumes import write

    problem = Problem.generate(0, (64, 128, 128))
    counts = [-(-n // m) for n, m in zip(shape, (64, 128, 128), strict=True)]
    image = np.tile(problem.images["sym"].astype(np.uint16), counts)
    image = image[: shape[0], : shape[1], : shape[2]]
    sizes = {f"PhysicalSize{a}": v for a, v in zip("ZYX", VOXEL_UM, strict=True)}
    units = {f"PhysicalSize{a}Unit": "um" for a in "ZYX"}
    data = np.stack([image] * times) if times > 1 else image
    axes = "TZYX" if times > 1 else "ZYX"
    tifffile.imwrite(
        place / "image.ome.tif", data, ome=True, metadata={"axes": axes, **sizes, **units}
    )
    write(Volume.from_array(problem.psfs["sym"], VOXEL_UM), place / "psf.ome.tif")


def words_for(
    method: str, place: Path, ending: str, more: Sequence[Any] = ()
) -> tuple[list[Any], Path]:
    """Return a command on the inputs in a folder, and the empty one of its result.

    Parameters
    ----------
    method
        ``rld`` or ``rln``.
    place
        Where :func:`write_inputs` wrote.
    ending
        Of the result.
    more
        Further options.
    """
    results = place / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    inputs = [place / "image.ome.tif", "--psf", place / "psf.ome.tif"]
    return [method, *inputs, "-o", results / f"r.{ending}", "--json", *more], results


def run(words: list[Any], folder: Path | None = None) -> dict[str, Any]:
    """Run the command line; return its exit code, output, and memory.

    Parameters
    ----------
    words
        After ``napari-rln``.
    folder
        Whose size is followed.

    Returns
    -------
    dict
        ``code``, ``out``, ``err``, ``seconds``, ``peak`` (bytes of the process and its children
        together) and ``disk`` (most bytes on the disk in the folder more than before).
    """
    import psutil

    before = _size(folder)
    began = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak, disk, looked = 0, 0, 0.0
    whole = psutil.Process(process.pid)
    others: list[psutil.Process] = []
    while process.poll() is None:
        now = time.perf_counter()
        if now - looked > 0.1:
            looked = now
            try:
                others = whole.children(recursive=True)
            except psutil.Error:
                others = []
            disk = max(disk, _size(folder) - before)
        # A single process is asked for its peak; of several counts what they have now, and what
        # they share, such as a process that has just been forked, once.
        if others:
            taken = [_kilobytes(f"/proc/{p.pid}/smaps_rollup", "Pss:") for p in (whole, *others)]
        else:
            taken = [_kilobytes(f"/proc/{process.pid}/status", "VmHWM")]
        peak = max(peak, 1024 * sum(taken))
        time.sleep(_EVERY_S)
    seconds = time.perf_counter() - began
    disk = max(disk, _size(folder) - before)
    out, err = process.communicate()
    return {
        "code": process.returncode, "out": out, "err": err, "seconds": seconds,
        "peak": peak, "disk": disk, "after": _size(folder) - before,
    }  # fmt: skip


def _kilobytes(file: str, name: str) -> int:
    """Return a number of a process, by its name in a file of /proc; 0 where it is gone."""
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _size(folder: Path | None) -> int:
    """Return the disk space of a folder."""
    total = 0
    for path in folder.rglob("*") if folder else ():
        try:
            total += path.lstat().st_size if path.is_file() else 0  # blocks are told late
        except OSError:  # gone by now
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 512, 512])
    parser.add_argument("--memory-gb", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--method", nargs="+", default=["rld", "rln"])
    parser.add_argument("--ending", nargs="+", default=["tif", "ome.tif", "ome.zarr"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, help="JSON with every number")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        place = Path(name)
        write_inputs(place, tuple(options.shape))
        print("| method | result | asked GB | used GB | seconds | said |\n" + "| --- " * 6 + "|")
        for method, ending, asked in itertools.product(
            options.method, options.ending, options.memory_gb
        ):
            few = ["--iterations", 6] if method == "rld" else []
            words, _ = words_for(method, place, ending, ["--memory-gb", asked, *few])
            found = run(words)
            said = found["err"].strip().splitlines()[-1:] if found["code"] else []
            rows.append({"method": method, "ending": ending, "asked": asked} | found)
            print(
                f"| {method} | .{ending} | {asked:g} | {found['peak'] / 1e9:.2f} | "
                f"{found['seconds']:.0f} | {''.join(said)} |",
                flush=True,
            )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
