"""One measurement in a process of its own; started by rld.py.

``python worker.py JOB`` with a JSON object that names a task and its arguments; the result is a
JSON object on the last line of the output. Inputs are .npy files in ``folder``.
"""

import contextlib
import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Absent, Array, Method, Run
from problem import VOXEL_UM, drift, nrmse

Job = dict[str, Any]


def _ours(**options: Any) -> Callable[[int], Run]:
    def load(threads: int) -> Run:
        import torch

        from napari_rln.core.volume import Volume
        from napari_rln.deconvolution.classical import RichardsonLucy
        from napari_rln.engine.in_memory import deconvolve

        torch.set_num_threads(threads)

        def run(image: Array, psf: Array, iterations: int) -> Array:
            result = deconvolve(
                Volume.from_array(image, VOXEL_UM),
                Volume.from_array(psf, VOXEL_UM),
                RichardsonLucy(iterations=iterations, device="cpu", **options),
            )
            # The others keep the background: with it their flux is comparable.
            return result.data + result.record.facts["background"]

        return run

    return load


def _our_method(label: str, border: str = "extended", **options: Any) -> Method:
    return Method(
        label=f"napari-rln, {label}",
        package="napari-rln",
        modules=("napari_rln", "torch"),
        border="extended, weights" if border == "extended" else border,
        start="flat",
        padded=border != "periodic",
        load=_ours(border=border, **options),
    )


METHODS: dict[str, Method] = {
    "rln-periodic": _our_method("periodic, plain", "periodic", acceleration="none"),
    "rln-plain": _our_method("plain", acceleration="none"),
    "rln-accelerated": _our_method("accelerated (default)"),
    "rln-wb": _our_method("wiener-butterworth, accelerated", back_projector="wiener-butterworth"),
    **PEERS,
}


def probe(job: Job) -> Job:
    """Return the version of every method, or why it is absent."""
    found: Job = {"methods": {}, "absent": {}, "fft": []}
    for name, method in METHODS.items():
        try:
            found["methods"][name] = method.version()
        except Absent as reason:
            found["absent"][name] = str(reason)
    modules = {"torch": "torch", "scipy": "scipy", "pyFFTW": "pyfftw"}
    found["fft"] = [name for name, module in modules.items() if importlib.util.find_spec(module)]
    return found


def speed(job: Job) -> Job:
    """Time calls with few and with many iterations, and take the peak memory of the first call."""
    image, psf, call = _prepare(job)
    few, many = job["few"], job["many"]
    base = _peak_bytes(reset=True)
    call(image, psf, few)
    peak = _peak_bytes()
    return {
        "peak_mb": None if base is None or peak is None else (peak - base) / 1e6,
        "few_s": _seconds(call, image, psf, few)[0],
        "many_s": _seconds(call, image, psf, many)[0],
    }


def once(job: Job) -> Job:
    """Time the first call in a fresh process, set-up included and imports not."""
    image, psf, call = _prepare(job)
    return {"seconds": _seconds(call, image, psf, job["iterations"])[0]}


def quality(job: Job) -> Job:
    """Score results over iteration counts, and find the fewest that reach each target."""
    image, psf, call = _prepare(job)
    truth = np.load(Path(job["folder"]) / "truth.npy")
    scores: dict[int, Job] = {}

    def score(count: int) -> float:
        if count not in scores:
            seconds, result = _seconds(call, image, psf, count)
            scores[count] = {"nrmse": nrmse(result, truth), "seconds": seconds}
            if count in job["shown"]:
                scores[count]["flux"] = float(result.sum(dtype=float) / image.sum(dtype=float))
                scores[count]["drift"] = drift(result, truth)
        return scores[count]["nrmse"]

    errors: list[float] = []
    for count in job["counts"]:
        errors.append(score(count))
        past_the_best = len(errors) > 2 and min(errors[-2:]) > min(errors[:-2])
        too_slow = scores[count]["seconds"] > job["budget_s"]
        if count >= max(job["shown"]) and (past_the_best or too_slow):
            break
    return {
        "scores": scores.copy(),
        "reached": {target: _fewest(score, sorted(scores), target) for target in job["targets"]},
    }


def _fewest(score: Callable[[int], float], counts: list[int], target: float) -> int | None:
    """Return the smallest iteration count whose score is at most the target."""
    high = next((count for count in counts if score(count) <= target), None)
    if high is None:
        return None
    low = max((count for count in counts if count < high), default=0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if score(middle) <= target else (middle, high)
    return high


def stop(job: Job) -> Job:
    """Compare our automatic stop with every iteration count."""
    import torch

    from napari_rln.core.volume import Volume
    from napari_rln.deconvolution.classical import RichardsonLucy
    from napari_rln.engine.in_memory import deconvolve, deconvolve_iter

    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    image, psf = (Volume.from_array(_load(folder, job[k]), VOXEL_UM) for k in ("image", "psf"))
    truth = np.load(folder / "truth.npy")
    began = time.perf_counter()
    result = deconvolve(image, psf, RichardsonLucy(device="cpu"))
    seconds = time.perf_counter() - began
    facts = result.record.facts
    settings = RichardsonLucy(iterations=job["most"], device="cpu")
    return {
        "seconds": seconds,
        "iterations": facts["iterations"],
        "nrmse": nrmse(result.data, truth),
        "flux": float(
            (result.data.mean(dtype=float) + facts["background"]) / image.data.mean(dtype=float)
        ),
        "errors": [
            nrmse(report.estimate(), truth) for report in deconvolve_iter(image, psf, settings)
        ],
    }


def four_ffts(job: Job) -> Job:
    """Time the transforms of one iteration, two there and two back, between standing buffers."""
    shape, threads = tuple(job["shape"]), job["threads"]
    random = np.random.default_rng(0).random(shape, dtype=np.float32)
    there, back = _transforms(job["library"], random, threads)

    def four() -> None:
        for _ in range(2):
            there()
            back()

    four()
    times = []
    for _ in range(job["repeats"]):
        began = time.perf_counter()
        four()
        times.append(time.perf_counter() - began)
    return {"seconds": float(np.median(times))}


def _transforms(
    library: str, real: Array, threads: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    shape, axes = real.shape, (0, 1, 2)
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        x = torch.from_numpy(real)
        k = torch.fft.rfftn(x)
        return (
            lambda: torch.fft.rfftn(x, out=k),
            lambda: torch.fft.irfftn(k, s=shape, out=x),
        )
    if library == "scipy":
        import scipy.fft

        spectrum = scipy.fft.rfftn(real)
        return (
            lambda: scipy.fft.rfftn(real, workers=threads),
            lambda: scipy.fft.irfftn(spectrum, s=shape, workers=threads),
        )
    import pyfftw

    a = pyfftw.empty_aligned(shape, "f4")
    b = pyfftw.empty_aligned((*shape[:2], shape[2] // 2 + 1), "c8")
    plan = {"axes": axes, "threads": threads}
    # The fastest plan: it may take a minute to find.
    there = pyfftw.FFTW(a, b, flags=("FFTW_MEASURE",), **plan)
    flags = ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")
    back = pyfftw.FFTW(b, a, direction="FFTW_BACKWARD", flags=flags, **plan)
    a[:] = real
    return there.execute, back.execute


def _load(folder: Path, name: str) -> Array:
    return np.load(folder / f"{name}.npy")


def _prepare(job: Job) -> tuple[Array, Array, Run]:
    folder = Path(job["folder"])
    call = METHODS[job["method"]].load(job["threads"])
    return _load(folder, job["image"]), _load(folder, job["psf"]), call


def _seconds(call: Run, image: Array, psf: Array, iterations: int) -> tuple[float, Array]:
    began = time.perf_counter()
    result = call(image, psf, iterations)
    return time.perf_counter() - began, result


def _peak_bytes(*, reset: bool = False) -> int | None:
    """Return the highest resident memory so far, or the present one if the mark can be reset."""
    status = Path("/proc/self/status")
    if status.exists():
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(t for t in status.read_text().splitlines() if t.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


TASKS = {f.__name__: f for f in (probe, speed, once, quality, stop, four_ffts)}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(io.StringIO()):  # some peers print
        answer = TASKS[given["task"]](given)
    print(json.dumps(answer))
