"""Filters by Fourier transforms: over lengths, over threads, and beside a busy process.

``python benchmarks/fft.py --help`` says how; benchmarks/README.md says what the numbers mean.
"""

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyfftw
import torch

from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.fft import FftwTransform, Shape, fast_shape
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration, View

_MOST = 320  # voxels along an axis
_VOXELS = 6_000_000
_SPIN = "while True: pass"


def lengths(given: argparse.Namespace) -> None:
    """Print the time per voxel of a filter over the length of each axis, the others being 64.

    On one thread and in CPU time, which other processes disturb less.
    """
    torch.set_num_threads(1)
    found: dict[int, list[float]] = {}
    names = sorted({fast_shape((n,) * 3)[axis] for n in range(16, _MOST + 1) for axis in range(3)})
    for n, axis in itertools.product(names, range(3)):
        shape: Shape = tuple(n if a == axis else 64 for a in range(3))  # type: ignore[assignment]
        found.setdefault(n, []).append(_filter_ns(shape, given.repeats, time.thread_time))
    print("length | z there and back, y and x as 64 | y | x: ns per voxel; * the next is quicker")
    for n, row in found.items():
        cells = []
        for axis, ns in enumerate(row):
            later = [m * found[m][axis] for m in names if n < m <= 1.15 * n]
            worse = bool(later) and min(later) < 0.97 * n * ns
            cells.append(f"{ns:5.1f}{'*' if worse else ' '}")
        print(f"{n:5d} | {' | '.join(cells)}", flush=True)


def threads(given: argparse.Namespace) -> None:
    """Print the time per voxel on one and on two threads over a sample of shapes."""
    rng = np.random.default_rng(given.seed)
    shapes: list[Shape] = [(60, 75, 75), (60, 80, 75), (60, 75, 80)]
    while len(shapes) < given.count:
        shape = fast_shape([int(n) for n in rng.integers(8, _MOST + 1, 3)])
        if np.prod(shape) <= _VOXELS:
            shapes.append(shape)
    print("shape: ns per voxel, one thread, two, ratio; FFTW's own threads, estimated plan")
    ratios = []
    for shape in shapes:
        one, two = _in_turn(
            lambda s=shape: _on(1, s), lambda s=shape: _on(2, s), repeats=given.repeats
        )
        ratios.append(two / one)
        scale = 1e9 / np.prod(shape)
        whole = f"{_whole_s(shape) * scale:7.1f}" if given.whole else ""
        print(
            f"{'x'.join(map(str, shape)):>12} {one * scale:6.1f} {two * scale:6.1f} "
            f"{two / one:5.2f} {whole}",
            flush=True,
        )
    print(f"two threads over one: worst {max(ratios):.2f}, median {np.median(ratios):.2f}")


def busy(given: argparse.Namespace) -> None:
    """Print milliseconds per iteration, alone and beside processes that never wait."""
    if given.policy:
        os.environ["OMP_WAIT_POLICY"] = given.policy
    print(f"OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')}; milliseconds, median")
    for shape in ((40, 64, 64), (64, 256, 256)):
        for processes in (0, 1, 2):
            command = [sys.executable, __file__, "iterate", *map(str, shape)]
            with _spinning(processes):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{shape} beside {processes} busy: {done.stdout.strip()}", flush=True)


def iterate(given: argparse.Namespace) -> None:
    """Print the time of A and its adjoint and of an iteration, for one shape, extended border."""
    shape = tuple(given.shape)
    image = torch.from_numpy(np.random.default_rng(0).poisson(100, shape).astype(np.float32))
    axes = [np.exp(-0.5 * ((np.arange(31) - 15) / width) ** 2) for width in (4, 2, 2)]
    psf = np.einsum("i,j,k->ijk", *axes).astype(np.float32)
    began = time.perf_counter()
    blur = Convolution(psf / psf.sum(), shape, border=given.border)
    setup = time.perf_counter() - began
    run = RichardsonLucyIteration(View(blur=blur, image=image))
    estimate = torch.ones(blur.estimate_shape)
    run.step()
    both, steps, began = [], [], time.perf_counter()
    while len(steps) < 40 and (len(steps) < 4 or time.perf_counter() - began < given.seconds):
        both.append(_seconds(lambda: blur.A_adjoint(blur.A(estimate))))
        steps.append(_seconds(run.step))
    print(
        f"A and adjoint {1e3 * np.median(both):.1f} (least {1e3 * min(both):.1f}), "
        f"iteration {1e3 * np.median(steps):.1f} (least {1e3 * min(steps):.1f}), "
        f"set-up {1e3 * setup:.0f}"
    )


@contextlib.contextmanager
def _spinning(processes: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _filter(shape: Shape) -> Callable[[], None]:
    transform = FftwTransform(shape)
    x = torch.rand(shape)
    transfer = transform.spectrum(x) / x.numel()
    return lambda: transform.filter(x, transfer)


def _filter_ns(shape: Shape, repeats: int, clock: Callable[[], float]) -> float:
    run = _filter(shape)
    run()
    return 1e9 / float(np.prod(shape)) * min(_seconds(run, clock) for _ in range(repeats))


def _on(count: int, shape: Shape) -> Callable[[], None]:
    run = _filter(shape)

    def on() -> None:
        torch.set_num_threads(count)
        run()

    return on


def _in_turn(*makes: Callable[[], Callable[[], None]], repeats: int) -> list[float]:
    """Return the least seconds of each, run in turn so that all see the same machine."""
    runs = [make() for make in makes]
    times = [[_seconds(run) for run in runs] for _ in range(repeats + 1)][1:]
    return [min(column) for column in zip(*times, strict=True)]


def _whole_s(shape: Shape) -> float:
    real = pyfftw.zeros_aligned(shape, "f4")
    half = pyfftw.zeros_aligned((*shape[:2], shape[2] // 2 + 1), "c8")
    options = {"axes": (0, 1, 2), "threads": 2, "flags": ("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT")}
    there = pyfftw.FFTW(real, half, **options)
    back = pyfftw.FFTW(half, real, direction="FFTW_BACKWARD", **options)
    return min(_seconds(lambda: (there.execute(), back.execute())) for _ in range(3))


def _seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    run()
    return clock() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    for part in (lengths, threads, busy, iterate):
        sub = parts.add_parser(part.__name__, help=part.__doc__.splitlines()[0])
        sub.set_defaults(run=part)
        sub.add_argument("--repeats", type=int, default=7)
        if part is threads:
            sub.add_argument("--count", type=int, default=60, help="of shapes")
            sub.add_argument("--seed", type=int, default=0)
            sub.add_argument("--whole", action="store_true", help="whole transforms by FFTW too")
        if part is busy:
            sub.add_argument("--policy", help="of OpenMP's threads: active or passive")
        if part is iterate:
            sub.add_argument("shape", type=int, nargs=3)
            sub.add_argument("--border", default="extended")
            sub.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
