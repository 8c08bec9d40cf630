"""Seconds to apply the Richardson-Lucy Network: `python benchmarks/rln.py --help`.

Every measurement is a fresh process, since one of the variants changes the allocation of
memory; the methods alternate, to share the state of the machine. The tables show the median over
rounds of the fastest call in a process. The first call, with any compilation, is separate.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHODS = {
    "plain": "module as written, torch",
    "folded": "folded, torch",
    "compiled": "folded, compiled kernels",
    "tensorflow": "the authors' graph, TensorFlow",
    "rld-20": "RLD, 20 plain iterations",
    "rld-100": "RLD, 100 plain iterations",
    "rld": "RLD, accelerated (default)",
    "cuda-plain": "module as written, torch, CUDA",
    "cuda-float32": "folded, CUDA, float32",
    "cuda-float16": "folded, CUDA, float16",
}
PAPER_SHAPE, PAPER_HOURS = (6370, 7226, 2850), 3.7
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}

Action = Callable[[], Any]
Result = dict[str, Any]


def network_action(method: str, shape: list[int], threads: int) -> Action:
    """Return one application of the network to random data."""
    import torch

    from napari_rln.networks.inference import InferenceNetwork
    from napari_rln.networks.rln import RLN, initialise

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    device = torch.device("cuda" if method.startswith("cuda") else "cpu")
    network = RLN().eval()
    initialise(network, generator)
    x = torch.rand(1, 1, *shape, generator=generator).to(device)
    if method.endswith("plain"):
        network.to(device)
        apply = lambda: network(x).output  # noqa: E731
    else:
        precision = "float16" if method.endswith("16") else "float32"
        folded = InferenceNetwork(network, device, precision, compiled=method == "compiled")
        if method == "compiled" and folded.path != "compiled":
            raise SystemExit("numba is missing (pip install napari-rln[fast])")
        apply = lambda: folded(x)  # noqa: E731

    def action() -> None:
        with torch.no_grad():
            apply()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return action


def rld_action(method: str, shape: list[int], threads: int) -> Action:
    """Return one deconvolution of blurred points in noise, the PSF 31x31x31."""
    import numpy as np
    import torch
    from scipy.ndimage import gaussian_filter

    from napari_rln.core.volume import Volume
    from napari_rln.deconvolution.classical import RichardsonLucy
    from napari_rln.engine.in_memory import deconvolve

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    psf = np.zeros((31, 31, 31), np.float32)
    psf[15, 15, 15] = 1
    points = (rng.random(shape) < 1e-3) * rng.random(shape)
    blurred = gaussian_filter(points, (5, 2, 2))
    image = rng.poisson(20 + 400 * blurred / blurred.max()).astype(np.float32)
    volumes = [
        Volume(data=data, voxel_um=(1.0, 1.0, 1.0))
        for data in (image, gaussian_filter(psf, (5, 2, 2), truncate=3.0))
    ]
    settings = RichardsonLucy(device="cpu")
    if "-" in method:
        count = int(method.split("-")[1])
        settings = RichardsonLucy(device="cpu", iterations=count, acceleration="none")
    return lambda: deconvolve(*volumes, settings)


def tensorflow_action(method: str, shape: list[int], threads: int) -> Action:
    """Return one run of the authors' graph as their script builds it, with random weights."""
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)

    def random(*size: int) -> tf.Variable:
        return tf.Variable(rng.standard_normal(size).astype(np.float32) * 0.1)

    def normal(channels: int) -> Action:
        mean, beta = random(channels), random(channels)
        variance, gamma = tf.Variable(np.ones(channels, np.float32)), random(channels)
        return lambda x: tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

    def conv(inputs: int, outputs: int, *, norm: bool = True) -> Action:
        w, bn = random(3, 3, 3, inputs, outputs), normal(outputs) if norm else lambda x: x
        return lambda *x: tf.nn.softplus(
            bn(tf.nn.conv3d(x[0] if len(x) == 1 else tf.concat(x, 4), w, [1] * 5, "SAME"))
        )

    def mean(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(x, 4, keepdims=True)

    e_1, e_2, e_3, e_4 = conv(1, 4), conv(4, 4), conv(8, 4), conv(1, 8)
    e_5, e_6, e_8 = conv(8, 8), conv(16, 8), conv(4, 4)
    u_1, u_2, u_3, u_4 = conv(1, 4), conv(4, 4), conv(1, 8), conv(8, 8)
    u_5, u_6, u_7 = conv(1, 8, norm=False), conv(10, 8, norm=False), conv(16, 8)
    e_7, bn_7 = random(2, 2, 2, 4, 8), normal(4)
    bn_DV1, bn_e, bn_DV2, bn_e2 = (normal(1) for _ in range(4))

    @tf.function
    def graph(x: tf.Tensor) -> tf.Tensor:
        small = tf.nn.avg_pool3d(x, 2, 2, "SAME")
        a = e_1(small)
        f = e_3(a, e_2(a)) + tf.nn.softplus(small)
        g = e_4(bn_DV1(small / (mean(f) + 1e-3)))
        k = e_6(e_5(g), g)
        size = [1, *shape, 4]
        u = e_8(tf.nn.softplus(bn_7(tf.nn.conv3d_transpose(k, e_7, size, 2, "SAME"))))
        E1 = tf.nn.softplus(bn_e(x * mean(u)))
        q = u_2(u_1(x)) + tf.nn.softplus(x)
        E2 = tf.nn.softplus(bn_e2(E1 * mean(u_4(u_3(bn_DV2(x / (mean(q) + 1e-3)))) + 1)))
        m1 = u_5(E2)
        return mean(u_7(m1, u_6(m1, E2, E1)))

    x = tf.constant(rng.random((1, *shape, 1), np.float32))
    return lambda: graph(x).numpy()


def measure(job: Result) -> Result:
    """Return seconds to get ready, of the first call, of one in the main thread, in another."""
    began = time.perf_counter()
    method, shape, threads = job["method"], job["shape"], job["threads"]
    make = {"tensorflow": tensorflow_action}.get(method, network_action)
    action = (rld_action if method.startswith("rld") else make)(method, shape, threads)
    ready = time.perf_counter() - began
    first = _seconds(action)
    main = min(_seconds(action) for _ in range(job["repeats"]))
    times: list[float] = []

    def work() -> None:
        action()  # a thread's first call may set up its memory
        times.extend(_seconds(action) for _ in range(job["repeats"]))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    return {"ready": ready, "first": first, "main": main, "worker": min(times)}


def _seconds(action: Action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def least_bytes() -> int:
    """Return bytes per voxel moved if each convolution read and wrote its channels once, float32.

    Convolutions that are computed one after the other cannot be faster than this over the memory's
    bandwidth.
    """
    from napari_rln.networks.inference import fold
    from napari_rln.networks.rln import RLN

    channels = 0.0
    for name, (weight, bias) in fold(RLN())[0].items():
        inputs = weight.numel() // (len(bias) * weight[0, 0].numel())
        half = int(name[2:]) < 7 and name.startswith("e")
        before, after = (1 / 8 if half or name == "e_7" else 1), 1 / 8 if half else 1
        channels += inputs * before + len(bias) * after
    return round(4 * channels)


def gpu_bandwidth() -> float:
    """Return the bytes per second of a copy on the GPU, read and written."""
    import torch

    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)

    def copy() -> None:
        y.copy_(x)
        torch.cuda.synchronize()

    copy()
    return 2 * x.nbytes / min(_seconds(copy) for _ in range(5))


def call(python: str, job: Result, **environment: str) -> Result:
    """Measure in a fresh process; or return why it could not be, as ``{"failed": reason}``."""
    threads = dict.fromkeys(_THREAD_VARIABLES, str(job["threads"]))
    done = subprocess.run(
        [python, str(Path(__file__).resolve()), "--job", json.dumps(job)],
        capture_output=True,
        text=True,
        env=os.environ | _ENVIRONMENT | threads | environment,
        check=False,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(shape: list[int], results: dict[str, list[Result]]) -> None:
    """Print a table of one size."""
    voxels = shape[0] * shape[1] * shape[2]
    paper = PAPER_SHAPE[0] * PAPER_SHAPE[1] * PAPER_SHAPE[2]
    print(f"\n### {'x'.join(map(str, shape))}\n")
    print(
        "| method | first call s | s | in a worker thread | Mvoxel/s | x plain | "
        f"hours for {'x'.join(map(str, PAPER_SHAPE))} (paper: {PAPER_HOURS}) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    plain = None
    for method, rows in results.items():
        if failed := [row for row in rows if "failed" in row]:
            print(f"| {METHODS[method]} | not measured: {failed[0]['failed']} | | | | | |")
            continue
        first, main, worker = (
            statistics.median(row[key] for row in rows) for key in ("first", "main", "worker")
        )
        plain = main if method == "plain" else plain
        gain = "" if plain is None else f"{plain / main:.1f}"
        print(
            f"| {METHODS[method]} | {first:.2f} | {main:.3f} | {worker:.3f} | "
            f"{voxels / main / 1e6:.2f} | {gain} | {main * paper / voxels / 3600:.1f} |"
        )
        if method.startswith("cuda"):
            size = 0.5 if method.endswith("16") else 1.0
            limit = size * least_bytes() * voxels / gpu_bandwidth()
            print(f"| its share of the bandwidth limit | | {limit / main:.2f} | | | | |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["64x128x128"], metavar="DxHxW")
    parser.add_argument("--threads", type=int, default=2, help="of every method")
    parser.add_argument("--rounds", type=int, default=3, help="processes per method")
    parser.add_argument("--repeats", type=int, default=5, help="calls, of which the fastest counts")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="these methods")
    parser.add_argument("--tensorflow", metavar="PYTHON", help="an interpreter that has TensorFlow")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        print(json.dumps(measure(json.loads(chosen.job))))
        return

    if chosen.tensorflow and shutil.which(chosen.tensorflow) is None:
        parser.error(f"there is no interpreter {chosen.tensorflow}")

    import torch

    methods = chosen.only or list(METHODS)
    if not torch.cuda.is_available():
        methods = [name for name in methods if not name.startswith("cuda")]
    pythons = {"tensorflow": chosen.tensorflow or sys.executable}
    print(f"torch {torch.__version__}, {chosen.threads} threads, {chosen.rounds} rounds in turn.")
    print(f"Bandwidth limit: {least_bytes()} bytes per voxel in float32 over that of a copy.")
    print("Hours are for computing alone: no overlap of tiles, no reading or writing.")
    if "compiled" in methods:
        job = {"method": "compiled", "shape": [2, 2, 2], "threads": 1, "repeats": 1}
        with tempfile.TemporaryDirectory() as cache:
            environment = {"NUMBA_CACHE_DIR": cache}
            anew, kept = (call(sys.executable, job, **environment)["ready"] for _ in range(2))
        print(f"Compilation, once on a machine: {anew - kept:.1f} s.")
    for size in chosen.sizes:
        shape = [int(n) for n in size.split("x")]
        results: dict[str, list[Result]] = {name: [] for name in methods}
        for _ in range(chosen.rounds):
            for name, rows in results.items():
                job = {"method": name, "shape": shape, "threads": chosen.threads}
                job["repeats"] = 1 if name.startswith("rld") else chosen.repeats
                rows.append(call(pythons.get(name, sys.executable), job))
        report(shape, results)


if __name__ == "__main__":
    main()
