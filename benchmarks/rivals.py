"""The architectures that RLN is compared with: learning rates for a short training, and their cost.

`rates` trains each of them for the PSF of the shipped nucleus with several learning rates, all for
the same minutes and on the same volumes, and scores them on held-out volumes; those of the common
budget (napari_rln/train/rivals.py) were chosen so. `cost` measures time and memory of applying each
to an image.

    python benchmarks/rivals.py rates --minutes 5
    python benchmarks/rivals.py rates --only care --rates 3e-4 1e-3 3e-3
    python benchmarks/rivals.py cost --shape 64 128 128
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.table import Table
from tables import markdown

from napari_rln import __version__
from napari_rln.networks.architectures.registry import ArchitectureName, new_network
from napari_rln.networks.torch_inference import inference_of
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_set import choose_settings, training_set_of

NAMES: tuple[ArchitectureName, ...] = (
    "rln", "care", "rcan", "ddn", "ista", "ista-large", "admm", "kld",
)  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
VOXEL_UM = (0.3, 0.13, 0.13)


def nucleus_psf():
    """Return the PSF of the widefield nucleus that is shipped as a sample."""
    optics = MicroscopeSettings(na=1.45, immersion_index=1.512, wavelength_um=0.461)
    return compute_psf(optics, VOXEL_UM, planes=41)


def rates(arguments: argparse.Namespace) -> None:
    """Print the quality on held-out volumes by architecture and learning rate."""
    psf = nucleus_psf()
    table = Table(title="Peak learning rate of a short training", title_justify="left")
    for column in ("architecture", "rate", "steps", "PSNR dB", "over best RLD", "SSIM"):
        table.add_column(column)
    for name in arguments.only:
        for rate in arguments.rates:
            settings, _ = choose_settings("full", architecture=name, initial_model="none")
            settings = replace(
                settings, minutes=arguments.minutes, learning_rate=rate, validate=6,
                validate_every=arguments.validate_every, examples=48, steps_per_example=4,
                seed=arguments.seed,
            )  # fmt: skip
            if name == "rln":
                settings = replace(settings, variant="paper", mirror=False)
            best = None
            for report in train_model_iter(training_set_of(settings, psf=psf), settings):
                if report.quality and (best is None or report.quality.psnr_db > best.psnr_db):
                    best, known = report.quality, report.baseline
            row = [name, f"{rate:g}", str(report.step)]
            if best is not None:
                over = best.psnr_db - known.rld.psnr_db
                row += [f"{best.psnr_db:.2f}", f"{over:+.2f}", f"{best.ssim:.3f}"]
            table.add_row(*row)
            print(" | ".join(row), flush=True)
    print(markdown(table))


def cost(arguments: argparse.Namespace) -> None:
    """Print time and memory of applying each architecture, each in a process of its own."""
    table = Table(title=f"Applied to {tuple(arguments.shape)}", title_justify="left")
    for column in ("architecture", "parameters", "s", "s per Mvoxel", "bytes per voxel"):
        table.add_column(column)
    for name in arguments.only:
        command = [sys.executable, __file__, "once", "--only", name, "--shape"]
        shown = subprocess.run(
            [*command, *map(str, arguments.shape), "--threads", str(arguments.threads)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        table.add_row(name, *shown.stdout.split())
    print(markdown(table))


def once(arguments: argparse.Namespace) -> None:
    """Print parameters, seconds, seconds per million voxels and bytes per voxel of one."""
    (name,) = arguments.only
    network = new_network(name)
    psf = nucleus_psf().data
    network.bind(psf)
    network.initialise(torch.Generator().manual_seed(0))
    voxels = torch.Size(arguments.shape).numel()
    x = torch.rand(1, *arguments.shape)
    apply = inference_of(network.eval(), torch.device("cpu"), psf=psf)
    apply(x[:, :16, :32, :32])  # compiles, and loads libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        apply(x)
        seconds.append(time.perf_counter() - began)
    used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    least = min(seconds)
    print(network.parameter_count, f"{least:.2f}", f"{1e6 * least / voxels:.2f}", used // voxels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rates", "cost", "once"))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--validate-every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", nargs=3, type=int, default=(64, 128, 128))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what != "once":
        print(
            f"napari-rln {__version__}, torch {torch.__version__}, "
            f"{platform.processor() or 'CPU'}, {arguments.threads} threads",
            flush=True,
        )
    {"rates": rates, "cost": cost, "once": once}[arguments.what](arguments)


if __name__ == "__main__":
    main()
