"""Volumes larger than memory: `python benchmarks/scale.py --help`.

``sizes``   throughput, memory and time per stage, from 64 Mvoxel up, by 1 and 2 workers
``seams``   error of tiles: tiled against untiled, over halos and iterations
``engine``  the same for a run in tiles in memory and in parts from disk
``peers``   the same iterations of the same volume by dask's map_overlap and scikit-image

Volumes consist of a few chunks of noise and filaments; all other chunks are hard links to them.
They are read, decompressed and processed as any other. Every run is the command
line in a process of its own.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from problem import VOXEL_UM, Problem

SIDE = 128  # of a chunk
PAPER_SHAPE, PAPER_HOURS = (6370, 7226, 2850), 3.7
_BACKGROUND = 20.0  # of the problem, photons
_MODEL_VOXEL_UM = (0.1, 0.1, 0.1)  # for which the shipped model of the paper's variant was trained
_COMMAND = [sys.executable, "-m", "napari_rln"]


def make_volume(path: Path, mvoxel: int) -> tuple[int, int, int]:
    """Make a Zarr array of uint16 of about so many million voxels; return its shape."""
    import zarr

    side = round((mvoxel * 1e6 / SIDE**3) ** (1 / 3))
    counts = [max(1, side)] * 3
    counts[2] = max(1, round(mvoxel * 1e6 / SIDE**3 / counts[0] / counts[1]))
    shape = tuple(c * SIDE for c in counts)
    array = zarr.create_array(
        path, shape=shape, chunks=(SIDE,) * 3, dtype="uint16", dimension_names=["z", "y", "x"],
        attributes={"what": "a few chunks of which all others are links"},
    )  # fmt: skip
    image = Problem.generate(0, (SIDE, SIDE, 2 * SIDE)).images["sym"].astype(np.uint16)
    first = []
    for n in range(min(2, counts[2])):
        part = (slice(0, SIDE), slice(0, SIDE), slice(n * SIDE, (n + 1) * SIDE))
        array[part] = image[:, :, part[2]]
        first.append(path / "c" / "0" / "0" / str(n))
    for z in range(counts[0]):
        for y in range(counts[1]):
            folder = path / "c" / str(z) / str(y)
            folder.mkdir(parents=True, exist_ok=True)
            for x in range(counts[2]):
                if not (folder / str(x)).exists():
                    os.link(first[(z + y + x) % len(first)], folder / str(x))
    return shape  # type: ignore[return-value]


def write_psf(path: Path) -> None:
    from napari_rln.core.volume import Volume
    from napari_rln.io.volumes import write

    psf = Problem.generate(0, (32, 32, 32)).psfs["sym"]
    write(Volume.from_array(psf, _MODEL_VOXEL_UM), path)


def run(*words: Any) -> dict[str, Any]:
    """Run the command line; return what it reports, with the seconds of the process."""
    began = time.perf_counter()
    done = subprocess.run(
        [*_COMMAND, *map(str, words), "--json"], capture_output=True, text=True, check=False
    )
    lasted = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)["facts"] | {"process_s": lasted}


def sizes(options: argparse.Namespace) -> dict[str, Any]:
    """Measure runs over sizes and numbers of workers."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        write_psf(place / "psf.ome.tif")
        psf = ["--psf", place / "psf.ome.tif"]
        voxel = ["--voxel-um", *_MODEL_VOXEL_UM]
        for mvoxel in options.mvoxel:
            shape = make_volume(place / "image.zarr", mvoxel)
            for method in options.method:
                if mvoxel > options.most.get(method, math.inf):
                    continue
                how = {
                    "paper": ["rln", place / "image.zarr", "--model", options.model],
                    "rld-10": ["rld", place / "image.zarr", *psf, "--iterations", 10],
                    "universal": ["rln", place / "image.zarr", *psf],
                }[method]
                for workers in options.workers:
                    out = place / "result.ome.zarr"
                    facts = run(*how, "-o", out, *voxel, "--workers", workers,
                                "--memory-gb", options.memory_gb)  # fmt: skip
                    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
                    shutil.rmtree(out)
                    out.with_name(f"{out.name}.run.json").unlink()
                    name = f"{method} {mvoxel} {workers}"
                    rows[name] = facts | {"shape": shape, "gb_written": size / 1e9}
                    _show_size(method, shape, workers, rows[name])
                    _save(options, rows)
            shutil.rmtree(place / "image.zarr")
    project(rows)
    return rows


def _show_size(method: str, shape: Any, workers: int, facts: dict[str, Any]) -> None:
    voxels = math.prod(shape)
    parts = facts["seconds_of_tasks"]
    total = sum(parts.values())
    shares = " ".join(f"{name} {seconds / total:4.0%}" for name, seconds in parts.items())
    print(
        f"{method:10} {voxels / 1e6:6.0f} Mvoxel {workers} workers {facts['process_s']:8.1f} s "
        f"{voxels / 1e6 / facts['process_s']:6.2f} Mvoxel/s, peak {facts['peak_mb']:5.0f} MB each, "
        f"{shares}, {facts['gb_written']:.2f} GB written",
        flush=True,
    )


def project(rows: dict[str, Any]) -> None:
    """Print what the paper's volume would take at the largest size's speed: a projection."""
    voxels = math.prod(PAPER_SHAPE)
    print(
        f"\n{' x '.join(map(str, PAPER_SHAPE))} ({voxels / 1e9:.0f} Gvoxel): a projection from "
        f"the largest volume measured; the paper says {PAPER_HOURS} h:"
    )
    for method, workers in sorted({tuple(name.split()[::2]) for name in rows}):
        same = [r for n, r in rows.items() if n.split()[::2] == [method, workers]]
        largest = max(same, key=lambda r: math.prod(r["shape"]))
        speed = math.prod(largest["shape"]) / largest["process_s"]
        print(
            f"  {method}, {workers} workers: {voxels / speed / 3600:.1f} h, reading "
            f"{2 * speed / 1e6:.0f} and writing {4 * speed / 1e6:.0f} MB/s before compression"
        )


def seams(options: argparse.Namespace) -> dict[str, Any]:
    """Measure tiles against the whole: error at the seams over halos and iterations."""
    from napari_rln.core.tiles import within
    from napari_rln.core.volume import Volume
    from napari_rln.deconvolution.classical import support
    from napari_rln.engine.plan import Plan, blend

    problem = Problem.generate(0, (64, 192, 192))
    rows: dict[str, Any] = {}
    for name in ("sym", "asym"):
        image = Volume.from_array(problem.images[name], VOXEL_UM)
        psf = Volume.from_array(problem.psfs[name], VOXEL_UM)
        flat = float(image.data.mean()) - _BACKGROUND
        box = tuple(slice(0, n) for n in image.shape)
        for iterations in options.counts:
            whole, momenta = _deconvolved(image, psf, iterations, flat, None)
            top = np.percentile(whole, 99.9)
            for factor, alike in itertools.product(options.halos, (True, False)):
                halo = tuple(2 * math.ceil(factor * s / 2) for s in support(psf))
                plan = Plan(
                    shape=image.shape, times=1, chunk=(64, 64, 64), block=image.shape,
                    receptive_field=(0, 0, 0), core=(64, 96, 96), halo=halo,
                    overlap=tuple(2 * math.ceil(h / 4) for h in halo), levels=((1, 1, 1),),
                )  # fmt: skip
                kept = {}
                for number, tile in enumerate(plan.tiles):
                    part = image.with_data(image.data[tile.window])
                    data, _ = _deconvolved(
                        part, psf, iterations, flat if alike else None, momenta if alike else None
                    )
                    kept[number] = data[within(plan.stored_part(tile), tile.window)]
                error = np.abs(blend(plan, box, kept) - whole)
                rms = float(np.sqrt((error**2).mean() / (whole**2).mean()))
                row = {"rms": rms, "max": float(error.max() / top), "halo": halo}
                rows[f"{name} {iterations} {factor} {'alike' if alike else 'each its own'}"] = row
                print(
                    f"{name:4} {iterations:3} iterations, halo {factor} supports {halo}, "
                    f"{'alike' if alike else 'each its own'}: rms {rms:.3%}, "
                    f"max {row['max']:.2%} of the brightest",
                    flush=True,
                )
    return rows


def _deconvolved(image: Any, psf: Any, iterations: int, flat: Any, momenta: Any) -> Any:
    """Return an estimate and the acceleration that led to it."""
    import torch

    from napari_rln.deconvolution.calibration import Calibration
    from napari_rln.deconvolution.prepared_view import PreparedView
    from napari_rln.deconvolution.settings import RichardsonLucySettings, start_iteration

    view = PreparedView(image=image, psf=psf, calibration=Calibration(background=_BACKGROUND))
    steps = start_iteration(
        [view], RichardsonLucySettings(), torch.device("cpu"), momenta=momenta, flat=flat
    )
    for _ in range(iterations):
        steps.step(measure=False)
    return steps.field_of_view().numpy().copy(), [float(m) for m in steps.momenta]


def engine(options: argparse.Namespace) -> dict[str, Any]:
    """Measure tiles in memory and parts from disk against the whole, and against each other.

    "Alike" is the whole with the acceleration of the tiles, which is that of a part of the image:
    what differs from it is due to the seams alone.
    """
    import torch

    import napari_rln as rln
    from napari_rln.core.generators import finish
    from napari_rln.deconvolution.settings import PreparedView
    from napari_rln.engine.in_parts import run_task_iter
    from napari_rln.engine.journal import RunFolder
    from napari_rln.engine.task import Task

    problem = Problem.generate(0, tuple(options.shape))
    rows: dict[str, Any] = {}
    for name, iterations in itertools.product(("sym", "asym"), options.counts):
        image = rln.Volume.from_array(problem.images[name], VOXEL_UM)
        psf = rln.Volume.from_array(problem.psfs[name], VOXEL_UM)
        method = rln.RichardsonLucy(
            iterations=iterations, background=_BACKGROUND, offset=0, gain=1, device="cpu"
        )
        whole = rln.deconvolve(image, psf, method).data
        tiled = rln.deconvolve(image, psf, method, tile=options.tile)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            place = Path(folder)
            rln.write(image, place / "image.ome.tif")
            task = Task(
                image=rln.ImageFile(path=str(place / "image.ome.tif")), psf=psf, method=method,
                output=rln.Output(path=place / "result.ome.tif"),
                execution=rln.Execution(tile=options.tile),
            )  # fmt: skip
            stored = rln.read(finish(run_task_iter(task)).out).data
            known = RunFolder(task.out.absolute()).completed().state.image_state
        alike = method.tiles.tile(
            PreparedView(image=image, psf=psf, calibration=known.calibrated), known.tiles,
            known.level, torch.device("cpu"), tuple(slice(0, n) for n in image.shape),
        )  # fmt: skip
        cut = {"tile": tiled.record.facts["tile"], "halo": tiled.record.facts["halo"]}
        print(f"{name}, {iterations} iterations, tiles of {cut['tile']}, halo {cut['halo']}:")
        for label, found, other in (
            ("in memory against alike", tiled.data, alike),
            ("from disk against alike", stored, alike),
            ("in memory against from disk", tiled.data, stored),
            ("in memory against the whole", tiled.data, whole),
            ("alike against the whole", alike, whole),
        ):
            error = found.astype(np.float64) - other
            rms = float(np.sqrt((error**2).mean() / np.square(whole, dtype=float).mean()))
            top = float(np.abs(error).max() / np.percentile(whole, 99.9))
            rows[f"{name} {iterations} {label}"] = {"rms": rms, "max": top} | cut
            print(f"  {label}: rms {rms:.4%}, max {top:.2%} of the brightest", flush=True)
    return rows


def peers(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the same iterations of one volume by dask and scikit-image, and by ours."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        write_psf(place / "psf.ome.tif")
        ours = ["rld", place / "image.zarr", "--psf", place / "psf.ome.tif", "--overwrite",
                "--iterations", options.iterations, "--memory-gb", options.memory_gb,
                "--voxel-um", *_MODEL_VOXEL_UM, "-o", place / "ours.ome.zarr"]  # fmt: skip
        for mvoxel in options.mvoxel:
            shape = make_volume(place / "image.zarr", mvoxel)
            found = {
                "napari-rln, plain": run(*ours, "--acceleration", "none"),
                "napari-rln, accelerated": run(*ours),
                "dask map_overlap, scikit-image": _run_dask(place, options.iterations),
            }
            for name, facts in found.items():
                rows[f"{name} {mvoxel}"] = facts
                seconds = facts["process_s"]
                print(
                    f"{name:30} {math.prod(shape) / 1e6:.0f} Mvoxel {seconds:7.1f} s "
                    f"{math.prod(shape) / 1e6 / seconds:6.2f} Mvoxel/s, peak {facts['peak_mb']} MB",
                    flush=True,
                )
            shutil.rmtree(place / "image.zarr")
    return rows


def _run_dask(place: Path, iterations: int) -> dict[str, Any]:
    """Run :func:`_dask` in a process of its own."""
    words = [sys.executable, __file__, "_dask", str(place), str(iterations)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _dask(place: Path, iterations: int) -> None:
    """Deconvolve by dask's map_overlap and scikit-image, as its users do."""
    import resource

    import dask.array as da
    import tifffile
    from skimage.restoration import richardson_lucy

    psf = tifffile.imread(place / "psf.ome.tif")
    began = time.perf_counter()
    image = da.from_zarr(str(place / "image.zarr")).astype(np.float32)

    def deconvolved(part: Any) -> Any:
        return richardson_lucy(part, psf, num_iter=iterations, clip=False)

    depth = tuple(n - 1 for n in psf.shape)
    result = image.map_overlap(deconvolved, depth=depth, boundary="reflect", dtype=np.float32)
    result.astype(np.float32).to_zarr(str(place / "theirs.zarr"), overwrite=True)
    lasted = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"process_s": lasted, "peak_mb": round(peak / 1024)}))


def _save(options: argparse.Namespace, rows: dict[str, Any]) -> None:
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


def main() -> None:
    if sys.argv[1:2] == ["_dask"]:
        _dask(Path(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--mvoxel", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--method", nargs="+", default=["paper", "rld-10"],
                        choices=["paper", "rld-10", "universal"])  # fmt: skip
    parser.add_argument("--most-rld", type=int, default=1024, help="Mvoxel, of what deconvolves")
    parser.add_argument("--model", default="bead-paper", help="of the paper's variant")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 40, 100])
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 192, 192], help="of engine")
    parser.add_argument("--tile", type=int, default=96, help="side of its tiles")
    parser.add_argument("--halos", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2, 2.5, 3],
                        help="in supports of the PSF")  # fmt: skip
    parser.add_argument("--memory-gb", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--out", type=Path, help="JSON with every number")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    options.most = {"rld-10": options.most_rld, "universal": options.most_rld}
    _save(options, WHAT[options.what](options))


WHAT = {"sizes": sizes, "seams": seams, "engine": engine, "peers": peers}

if __name__ == "__main__":
    main()
