"""Quality over minutes of training for one PSF, on this machine.

Trains for a PSF of `cells.py` as users would: the universal model adapted, the started variant and
the paper's from first weights, each for the same time and on the same light. Each is validated
at intervals on held-out synthetic volumes, one kind of structures each, against
Richardson-Lucy and wiener-butterworth with iterations selected by ground truth.

    python benchmarks/training.py --minutes 5 --out models      # a quarter of an hour
    python benchmarks/quality.py --adapted nucleus=models/adapted.safetensors
"""

import argparse
import os
import platform
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from cells import PSFS, psf
from rich.table import Table
from tables import markdown

import napari_rln as rln
from napari_rln.core.generators import finish, relay
from napari_rln.core.limits import as_dict
from napari_rln.networks.model import Model
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.train.training_settings import TrainReport

# What choose_settings is asked for.
WAYS = {
    "adapted": {"preset": "quick"},
    "started": {"preset": "full"},
    "paper": {"preset": "full", "variant": "paper"},
}


def main() -> None:
    """Train in every chosen way and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--psf", choices=PSFS, default="nucleus", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--photons", nargs=2, type=float, default=(20.0, 500.0))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the models")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    print(
        f"napari-rln {rln.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {given.threads} threads, {platform.machine()}; PSF "
        f"{given.psf}, {given.minutes:g} minutes each, {given.photons[0]:g} to "
        f"{given.photons[1]:g} photons, seed {given.seed}\n",
        flush=True,
    )
    for way in given.ways:
        reports, model = _train(way, given)
        print(markdown(_curve(way, reports, model)), flush=True)
        if given.out:
            model.save(given.out / f"{way}.safetensors")


def _train(way: str, given: argparse.Namespace) -> tuple[list[TrainReport], Model]:
    """Return the reports of the validations, and the best model."""
    settings, initial_model = rln.train.choose_settings(**WAYS[way])
    settings = replace(settings, steps=None, minutes=given.minutes, seed=given.seed)
    setting = rln.train.training_set_of(
        settings,
        psf=psf(given.psf),
        imaging=ImagingSettings(photons=tuple(given.photons)),
        initial_model=initial_model,
    )
    reports: list[TrainReport] = []
    model = finish(relay(rln.train.train_model_iter(setting, settings, name=way), reports.append))
    return [report for report in reports if report.quality is not None], model


def _curve(way: str, reports: list[TrainReport], model: Model) -> Table:
    facts = model.record.facts
    table = Table(title=f"{way}: best of step {facts['best_step']}", title_justify="left")
    for column in ("", "step", "minutes", "PSNR dB", "SSIM"):
        table.add_column(column)
    known = facts["validation"]
    for kind in ("image", "rld", "wiener_butterworth"):
        table.add_row(f"best {kind}" if kind != "image" else kind, "", "", *_texts(**known[kind]))
    for report in reports:
        minutes = f"{report.seconds / 60:.1f}"
        step = str(report.step if report.phase == "train" else 0)
        table.add_row("network", step, minutes, *_texts(**as_dict(report.quality)))
    return table


def _texts(psnr_db: float, ssim: float) -> tuple[str, str]:
    return f"{psnr_db:.2f}", f"{ssim:.3f}"


if __name__ == "__main__":
    main()
