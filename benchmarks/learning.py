"""Learning curve of the universal model: quality over the number of volumes, and over steps.

Networks are trained from first weights or those of a model, for the same number of steps on the
first so many examples of a folder, and validated on held-out volumes of other PSFs, one kind of
structures each, two of them absent from training. Examples that the folder lacks are created.

    python benchmarks/learning.py FOLDER --volumes 100 300 1000 --steps 1500
    python benchmarks/learning.py FOLDER --volumes 1000 --seeds 0 1 --initial-model FILE
"""

import argparse
import os
import platform
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.table import Table
from tables import markdown

import napari_rln as rln
from napari_rln.core.generators import finish, relay
from napari_rln.networks.model import load_model
from napari_rln.train.training_settings import PRESETS, TrainReport


def main() -> None:
    """Train on each number of volumes with each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of examples")
    parser.add_argument("--volumes", nargs="+", type=int, default=(100, 300, 1000))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,), help="of weights and patches")
    parser.add_argument("--seed-of-examples", type=int, default=0)
    parser.add_argument("--initial-model", help="name or file; none: first weights")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--held-out", type=int, default=22)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = Table(
        title=f"{given.steps} steps, {given.held_out} held-out volumes", title_justify="left"
    )
    for column in ("volumes", "seed", "step", "minutes", "above best RLD dB", "SSIM"):
        table.add_column(column)
    for volumes in given.volumes:
        for seed in given.seeds:
            for report in _validations(given, volumes, seed):
                quality, baseline = report.quality, report.baseline
                assert quality is not None
                assert baseline is not None
                assert baseline.rld is not None
                gain = quality.psnr_db - baseline.rld.psnr_db
                table.add_row(
                    str(volumes), str(seed), str(report.step), f"{report.seconds / 60:.1f}",
                    f"{gain:+.2f}", f"{quality.ssim:.3f}",
                )  # fmt: skip
            print(f"{volumes} volumes, seed {seed}: {gain:+.2f} dB", flush=True)
    print(
        f"\nnapari-rln {rln.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {given.threads} threads, {platform.machine()}\n"
    )
    print(markdown(table))


def _validations(given: argparse.Namespace, volumes: int, seed: int) -> list[TrainReport]:
    """Return the reports of the validations of a training."""
    settings = replace(
        PRESETS["universal"],
        steps=given.steps,
        examples=volumes,
        steps_per_example=max(1, given.steps // (4 * volumes)),
        validate=given.held_out,
        validate_every=-(-given.steps // 3),
        seed=given.seed_of_examples,
    )
    initial = given.initial_model and load_model(given.initial_model)
    training_set = rln.train.training_set_of(
        settings, any_psf=True, folder=given.folder, initial_model=initial
    )
    reports: list[TrainReport] = []
    steps = rln.train.train_model_iter(training_set, replace(settings, seed=seed))
    finish(relay(steps, reports.append))
    return [report for report in reports if report.quality is not None]


if __name__ == "__main__":
    main()
