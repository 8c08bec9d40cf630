"""Two views together against either alone: `python benchmarks/dual.py --help`.

Structures that influenced no choice, imaged by two objectives at right angles, each with its own
noise. NRMSE and PSNR after the best scale and offset, on the volume and on xz planes; with the
automatic stop, and with the best of several counts, selected by ground truth.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.signal import fftconvolve

VOXEL_UM = (0.1, 0.1, 0.1)
SHAPE, PSF = (72, 80, 80), (25, 25, 25)
COUNTS = (3, 5, 10, 20, 30, 50)


def gaussian(sigma):
    from napari_rln.core.volume import Volume

    axes = [
        np.exp(-0.5 * ((np.arange(n) - n // 2) / s) ** 2) for n, s in zip(PSF, sigma, strict=True)
    ]
    data = np.einsum("i,j,k->ijk", *axes)
    return Volume.from_array(data / data.sum(), VOXEL_UM, name="psf")


def scene(kind, seed):
    """Return the light of a kind of structures, brightest 400 photons."""
    from napari_rln.simulate.structures import StructureSettings, draw

    data = draw(SHAPE, StructureSettings(structures=(kind,)), seed=seed).data
    return 400 * data / data.max()


def trained(views, psf, psf_b, minutes, seed):
    """Return a network trained for the PSFs at hand, on structures of every kind."""
    from napari_rln.train.loop import train_model
    from napari_rln.train.training_set import choose_settings, training_set_of

    settings, _ = choose_settings("full", views=views)
    settings = replace(settings, minutes=minutes, seed=seed + 100, device="cpu")
    setting = training_set_of(settings, psf=psf, psf_b=None if views == "single" else psf_b)
    model = train_model(setting, settings, name=views)
    facts = model.record.facts
    print(views, facts["steps"], "steps,", json.dumps(facts["validation"]), flush=True)
    return model


def main() -> None:
    from napari_rln.core.generators import finish
    from napari_rln.core.metrics import nrmse, psnr
    from napari_rln.core.volume import Volume
    from napari_rln.deconvolution.classical import RichardsonLucy
    from napari_rln.deconvolution.views import DualSettings, pair_views_iter, rotated
    from napari_rln.engine.in_memory import deconvolve
    from napari_rln.networks.network import Network

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["filaments", "nuclei", "shells"])
    parser.add_argument("--transform", default="affine", help="of the registration, or none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="train networks too, each so long"
    )
    parser.add_argument("--out", type=Path, help="JSON with every number")
    options = parser.parse_args()
    a, b = gaussian((4, 1.4, 1.4)), gaussian((1.4, 1.4, 4))
    kinds = ("single", "averaged", "concatenated") if options.minutes else ()
    models = {kind: trained(kind, a, b, options.minutes, options.seed) for kind in kinds}
    table = Table("structures", "method", "stopped by itself: dB / NRMSE", "xz planes: dB",
                  "best count: dB (at)")  # fmt: skip
    found = {}
    for kind in options.kinds:
        truth = scene(kind, options.seed).astype(np.float32)

        def view(psf, seed, truth=truth):
            blurred = fftconvolve(truth, psf.data, mode="same").clip(0) + 10
            return Volume.from_array(np.random.default_rng(seed).poisson(blurred), VOXEL_UM)

        first, second = view(a, 1), view(b, 2)
        pair = finish(
            pair_views_iter(
                first, rotated(second, "y-90"), a, rotated(b, "y-90"),
                settings=DualSettings(rotation="y+90", transform=options.transform),
            )
        )  # fmt: skip
        networks = {
            "first view, universal network": partial(deconvolve, first, a, Network()),
            "second view, universal network": partial(deconvolve, second, b, Network()),
            "both, universal network": partial(deconvolve, pair, method=Network()),
        }
        for views, model in models.items():
            if views == "single":
                networks["first view, network trained for it"] = partial(
                    deconvolve, first, a, Network(model=model)
                )
            else:
                name = f"both, network trained on {views} views"
                networks[name] = partial(deconvolve, pair, method=Network(model=model))
        for name, network in networks.items():
            data = network().data
            row = {"auto": psnr(data, truth), "nrmse": nrmse(data, truth),
                   "xz": psnr(data[:, 20:60:8], truth[:, 20:60:8])}  # fmt: skip
            found[f"{kind} {name}"] = row
            table.add_row(
                kind, name, f"{row['auto']:.2f} / {row['nrmse']:.3f}", f"{row['xz']:.2f}", ""
            )
        for projector in ("matched", "wiener-butterworth"):

            def settings(iterations, projector=projector):
                return RichardsonLucy(iterations=iterations, back_projector=projector)

            methods = {
                "first view": lambda s, first=first: deconvolve(first, a, s),
                "second view": lambda s, second=second: deconvolve(second, b, s),
                "both": lambda s, pair=pair: deconvolve(pair, method=s),
            }
            for name, method in methods.items():
                alone = method(settings("auto")).data
                scores = {n: psnr(method(settings(n)).data, truth) for n in COUNTS}
                best = max(scores, key=scores.get)
                planes = psnr(alone[:, 20:60:8], truth[:, 20:60:8])
                row = {"auto": psnr(alone, truth), "nrmse": nrmse(alone, truth), "xz": planes,
                       "counts": scores}  # fmt: skip
                found[f"{kind} {projector} {name}"] = row
                table.add_row(
                    kind,
                    f"{name}, {projector}",
                    f"{row['auto']:.2f} / {row['nrmse']:.3f}",
                    f"{planes:.2f}",
                    f"{scores[best]:.2f} ({best})",
                )
    Console(width=120).print(table)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
