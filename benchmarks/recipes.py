"""Effect of each choice of the training: initial estimates, first weights, statistics, loss.

Every recipe trains the network over the family of PSFs from one seed, on the same synthetic
volumes and for the same number of steps, and is examined on the same held-out volumes, against
Richardson-Lucy stopped where it is best by the truth.

    python benchmarks/recipes.py                       # over an hour on one core
    python benchmarks/recipes.py --only "auto x 1.4" "matched 30" --steps 100
"""

import argparse
import os
import platform
import time
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.table import Table
from tables import markdown

from napari_rln import __version__
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_set import choose_settings, training_set_of

RECIPES = {
    "auto x 1.4": {},
    "auto": {"start_beyond": 1.0},
    "auto x 2": {"start_beyond": 2.0},
    "matched 10": {"start_iterations": 10},
    "matched 30": {"start_iterations": 30},
    "matched 60": {"start_iterations": 60},
    "wiener-butterworth 3": {"start": "wiener-butterworth", "start_iterations": 3},
    "wiener-butterworth 6": {"start": "wiener-butterworth", "start_iterations": 6},
    "image (paper's variant)": {"variant": "paper"},
    "auto x 1.4, the paper's first weights": {"initial": "paper"},
    "auto x 1.4, statistics of each batch": {"frozen": 0.0},
    "auto x 1.4, both": {"initial": "paper", "frozen": 0.0},
    "auto x 1.4, the paper's loss": {"loss": "paper"},
    "auto x 1.4, patches of 48 less a margin of 8": {"patch": 48, "margin": 8, "batch": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--held-out", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=RECIPES, metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base, _ = choose_settings("universal")
    base = replace(
        base,
        start="matched",
        mirror=False,
        steps=arguments.steps,
        examples=arguments.examples,
        steps_per_example=max(1, arguments.steps // (2 * arguments.examples)),
        shape=(64, 64, 64),
        validate=arguments.held_out,
        validate_every=arguments.steps,
        seed=arguments.seed,
    )
    print(
        f"napari-rln {__version__}, torch {torch.__version__}, {platform.processor() or 'CPU'}, "
        f"{arguments.threads} threads; {arguments.steps} steps, {arguments.examples} volumes, "
        f"{arguments.held_out} held out, seed {arguments.seed}",
        flush=True,
    )
    rows, heading = [], None
    for name, changes in RECIPES.items():
        if arguments.only and name not in arguments.only:
            continue
        settings = replace(base, **changes)
        began = time.process_time()
        for report in train_model_iter(training_set_of(settings, any_psf=True), settings):
            last = report
        spent = time.process_time() - began
        quality, known = last.quality, last.baseline
        if heading is None:
            heading = known
            for kind in ("image", "rld", "wiener_butterworth"):
                found = getattr(known, kind)
                rows.append([kind, f"{found.psnr_db:.2f}", "", f"{found.ssim:.3f}", ""])
        rows.append(
            [
                name,
                f"{quality.psnr_db:.2f}",
                f"{quality.psnr_db - known.rld.psnr_db:+.2f}",
                f"{quality.ssim:.3f}",
                f"{spent:.0f}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    table = Table(title="What each choice is worth", title_justify="left")
    for column in ("start and recipe", "PSNR dB", "above best RLD", "SSIM", "CPU s"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    print(markdown(table))


if __name__ == "__main__":
    main()
