"""The architectures that RLN is compared with: learning rates for a short training, and their cost.

`rates` trains each of them as the study of study_paper.toml does, for its first PSF on nuclei, with
several learning rates, and scores them on held-out volumes; those of the common budget
(napari_rln/train/recipes.py) were chosen so. `cost` measures time and memory of applying each to an
image.

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
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.table import Table
from tables import markdown

from napari_rln import __version__
from napari_rln.networks.architectures.registry import ArchitectureName, new_network
from napari_rln.networks.torch_inference import inference_of
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.study.config_file import load_study
from napari_rln.study.plan import Training, plan_study, trainings_of
from napari_rln.train.loop import train_model_iter

NAMES: tuple[ArchitectureName, ...] = (
    "rln", "care", "rcan", "ddn", "ista", "ista-large", "admm", "kld",
)  # fmt: skip
VOXEL_UM = (0.3, 0.13, 0.13)


def nucleus_psf():
    """Return a widefield PSF, oil, NA 1.45, as of images of nuclei stained with Hoechst."""
    optics = MicroscopeSettings(na=1.45, immersion_index=1.512, wavelength_um=0.461)
    return compute_psf(optics, VOXEL_UM, planes=41)


def rates(arguments: argparse.Namespace) -> None:
    """Print the quality on held-out volumes by architecture and learning rate."""
    table = Table(title="Peak learning rate of a short training", title_justify="left")
    for column in ("architecture", "rate", "steps", "PSNR dB", "over best RLD", "SSIM"):
        table.add_column(column)
    trainings = {t.settings.architecture: t for t in _trainings(arguments.seed)}
    for name in arguments.only:
        training = trainings["ista" if name == "ista-large" else name]
        own = training.settings.learning_rate
        for rate in arguments.rates or [own]:
            settings = replace(
                training.settings, architecture=name, minutes=arguments.minutes, learning_rate=rate
            )
            best = None
            for report in train_model_iter(training.training_set(), settings):
                if report.quality and (best is None or report.quality.psnr_db > best.psnr_db):
                    best, known = report.quality, report.baseline
            row = [name, f"{rate:g}", str(report.step)]
            if best is not None:
                over = best.psnr_db - known.rld.psnr_db
                row += [f"{best.psnr_db:.2f}", f"{over:+.2f}", f"{best.ssim:.3f}"]
            table.add_row(*row)
            print(" | ".join(row), flush=True)
    print(markdown(table))


def _trainings(seed: int) -> list[Training]:
    """Return the trainings of the study for its first PSF on nuclei, of RLN the paper's variant."""
    study = load_study(Path(__file__).with_name("study_paper.toml"))
    methods = tuple(m for m in study.methods if m.name != "RLN started")
    nuclei = tuple(c for c in study.train_structures if c.name == "nuclei")
    few = replace(
        study, psfs=study.psfs[:1], methods=methods, photons=study.train_photons, conditions=(),
        train_structures=nuclei, test_structures=nuclei, seeds=(seed,), train_seeds=(seed,),
    )  # fmt: skip
    return [*trainings_of(plan_study(few).cells).values()]


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
    parser.add_argument("--rates", nargs="+", type=float, help="those of the study when none")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=5)
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
