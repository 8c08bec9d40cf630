"""The defaults on images with the flaws of real microscopes, simulated and real.

Simulated: filaments and nuclei in a water-immersion widefield microscope, as a clean image and
with one flaw each: a camera's offset, hot voxels, saturation, few bits, an interpolation, an
inexact PSF. The score is the PSNR after the least-squares fit of scale and offset, and
its loss against the clean image. Every method uses its defaults: camera, background,
bad voxels and number of iterations are estimated.

Real: a nucleus taken by widefield camera and by confocal microscope, which is the reference
(Pearson's r and NRMSE after the fit); and, of images without one, how far the blurred result
explains the image: the reduced chi squared unscaled, the factor that would fit it best, the light,
and the fraction of the light in the darkest nine tenths of the voxels.

    python benchmarks/field.py
    python benchmarks/field.py --real ../shared/data --figure nucleus.png
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from scipy import ndimage

import napari_rln as rln
from napari_rln import samples
from napari_rln.core.errors import RlnWarning
from napari_rln.core.metrics import fitted, psnr
from napari_rln.core.record import Record
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.evaluate.figure import save_figure
from napari_rln.evaluate.figure_content import FigureSettings

SHAPE = (48, 80, 80)
VOXEL_UM = (0.25, 0.11, 0.11)
PHOTONS, BACKGROUND, READ_NOISE = 150.0, 0.08, 1.6  # background as a share of the light
CLASSES = ("filaments", "nuclei")
OPTICS = rln.psf.MicroscopeSettings(
    na=1.2, immersion_index=1.333, wavelength_um=0.52, size=(47, 63, 63)
)
NUCLEUS_BOX = np.s_[8:36, 20:115, 15:110]  # where both images of the pair show it
INSIDE = 3000.0  # counts of the confocal image, within the nucleus

Method = Callable[[Volume, Volume], Volume]
METHODS: dict[str, Method] = {
    "RLD auto": rln.deconvolve,
    "WB auto": lambda image, psf: rln.deconvolve(
        image, psf, rln.RichardsonLucy(back_projector="wiener-butterworth")
    ),
    "RLN universal": lambda image, psf: rln.deconvolve(image, psf, rln.Network()),
}


@dataclass(frozen=True)
class Condition:
    """Change of an image, and PSF that the methods use for it."""

    spoil: Callable[[FloatArray, np.random.Generator], FloatArray] = lambda data, rng: data
    true: rln.psf.MicroscopeSettings = OPTICS
    given: rln.psf.MicroscopeSettings = OPTICS
    given_voxel_um: tuple[float, float, float] = VOXEL_UM
    move: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _offset(level: float) -> Callable[[FloatArray, np.random.Generator], FloatArray]:
    def spoil(data: FloatArray, rng: np.random.Generator) -> FloatArray:
        return np.rint(data + level + rng.normal(0, READ_NOISE, data.shape)).clip(0)

    return spoil


def _hot(data: FloatArray, rng: np.random.Generator) -> FloatArray:
    data = _offset(100)(data, rng)
    data[rng.random(data.shape) < 1 / 2000] = 2000
    return data


def _saturated(data: FloatArray, rng: np.random.Generator) -> FloatArray:
    data = _offset(100)(data, rng)
    return np.minimum(data, np.rint(100 + 0.6 * (np.percentile(data, 99.9) - 100)))


def _twelve_bits(data: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Four photons per count, as with a camera of large full-well capacity."""
    return np.rint(100 + (data + rng.normal(0, READ_NOISE, data.shape)) / 4).clip(0, 4095)


def _interpolated(data: FloatArray, rng: np.random.Generator) -> FloatArray:
    return ndimage.shift(_offset(100)(data, rng), HALF, order=1, mode="nearest")


HALF = (0.5, 0.0, 0.5)
CONDITIONS = {
    "clean": Condition(),
    "offset 0": Condition(_offset(0)),
    "offset 100": Condition(_offset(100)),
    "offset 500": Condition(_offset(500)),
    "hot voxels, 1 in 2000": Condition(_hot),
    "saturated at 60 %": Condition(_saturated),
    "12 bit, 4 photons a count": Condition(_twelve_bits),
    "interpolated half a voxel": Condition(_interpolated, move=HALF),
    "PSF with NA -5 %": Condition(_offset(100), given=replace(OPTICS, na=0.95 * OPTICS.na)),
    "5 um deep at index 1.38": Condition(
        _offset(100), true=replace(OPTICS, sample_index=1.38, depth_um=5.0)
    ),
    "z step +3 %": Condition(_offset(100), given_voxel_um=(1.03 * VOXEL_UM[0], *VOXEL_UM[1:])),
}


def psf_of(optics: rln.psf.MicroscopeSettings, voxel_um: tuple[float, float, float]) -> Volume:
    """Return a user's PSF for the image, computed for its voxel size."""
    return replace(rln.psf.compute_psf(optics, voxel_um), voxel_um=VOXEL_UM)


def made(structure: str, condition: Condition, seed: int) -> tuple[Volume, FloatArray]:
    """Return an image and its truth; the object reaches beyond the field of view."""
    pair = rln.simulate.simulate_pair(
        psf_of(condition.true, VOXEL_UM),
        rln.simulate.StructureSettings(structures=(structure,), at_once=1, haze=0.0),
        rln.simulate.ImagingSettings(
            photons=(PHOTONS, PHOTONS), background=(BACKGROUND, BACKGROUND), read_noise=(0, 0)
        ),
        shape=SHAPE,
        seed=seed,
        name=structure,
    )
    image = condition.spoil(pair.image.data.astype(np.float64), np.random.default_rng(seed))
    truth = ndimage.shift(pair.truth.data, condition.move, order=1, mode="nearest")
    return pair.image.with_data(image), truth


def simulated(seed: int) -> None:
    """Print the table of the simulated images."""
    names = [f"{method}, {structure}" for structure in CLASSES for method in METHODS]
    print(f"| condition | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    clean: dict[str, float] = {}
    for label, condition in CONDITIONS.items():
        psf = psf_of(condition.given, condition.given_voxel_um)
        cells = []
        for structure in CLASSES:
            image, truth = made(structure, condition, seed)
            for method, run in METHODS.items():
                found = run(image, psf)
                score, key = psnr(found.data, truth, fit=True), f"{method}, {structure}"
                lost = score - clean.setdefault(key, score)
                count = _iterations(found.record)
                cells.append(f"{score:.2f} ({lost:+.2f}) @{count}")
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def _iterations(record: Record | None) -> int:
    assert record is not None
    facts = record.facts
    return int(facts.get("iterations", facts.get("start_iterations", 0)))


def reals(folder: Path | None) -> Iterator[tuple[str, Volume, Volume]]:
    """Yield name, image and PSF of the available real volumes."""
    yield "bead", *_fitted(samples.bead(), samples.bead_psf())
    if folder is None:
        print("(no folder of further real volumes was given: --real)")
        return
    optics = rln.psf.MicroscopeSettings(na=1.45, immersion_index=1.512, wavelength_um=0.461)
    image = rln.read(folder / "deconwolf_dapi" / "nucleus.tif")
    yield "nucleus", image, rln.psf.compute_psf(optics, image.voxel_um, planes=image.shape[0])
    image = rln.read(folder / "celegans_dapi" / "embryo.tif")
    yield "embryo", *_fitted(image, rln.read(folder / "celegans_dapi" / "psf.tif"))
    bars, psf = (
        rln.read(folder / "flowdec_bars" / name, voxel_um=samples.NOMINAL_VOXEL_UM)
        for name in ("blurred.tif", "psf.tif")
    )
    yield "bars", *_fitted(bars, psf)


def _fitted(image: Volume, psf: Volume) -> tuple[Volume, Volume]:
    return image, rln.psf.fit_psf(psf, image)[0]


def explained(folder: Path | None) -> None:
    """Print how well results explain real images without ground truth."""
    print("\n| image | method | iterations | chi2 | scale | flux ratio | dark 90 % | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, image, psf in reals(folder):
        results, took = [], []
        for run in METHODS.values():
            began = time.perf_counter()
            results.append(run(image, psf))
            took.append(time.perf_counter() - began)
        table = rln.compare(image, results, psf=psf)
        for method, result, row, seconds in zip(
            METHODS, results, table.rows[1:], took, strict=True
        ):
            print(
                f"| {name} | {method} | {_iterations(result.record)} | {row.chi2:.2f} "
                f"| {row.reblur_scale:.3f} | {row.flux_ratio:.3f} | {dark(result.data):.4f} "
                f"| {seconds:.1f} |",
                flush=True,
            )


def dark(data: FloatArray) -> float:
    """Return the fraction of the light in the darkest nine tenths of the voxels."""
    ordered = np.sort(data.ravel())
    return float(ordered[: int(0.9 * ordered.size)].sum() / ordered.sum())


def pair(path: Path | None) -> None:
    """Compare results of the nucleus with its confocal image; print, and optionally draw them."""
    image, psf, confocal = samples.nucleus(), samples.nucleus_psf(), samples.nucleus_confocal()
    results = {method: run(image, psf) for method, run in METHODS.items()}
    truth = confocal.data[NUCLEUS_BOX]
    inside = truth > INSIDE
    print("\n| nucleus against its confocal image | r | NRMSE | r inside |")
    print("|---|---|---|---|")
    for name, result in {"widefield": image, **results}.items():
        data = result.data[NUCLEUS_BOX]
        fit = fitted(data, truth)
        error = np.linalg.norm(fit - truth) / np.linalg.norm(truth - truth.mean())
        r, within = (
            np.corrcoef(data[part].ravel(), truth[part].ravel())[0, 1] for part in (..., inside)
        )
        print(f"| {name} | {r:.3f} | {error:.3f} | {within:.3f} |")
    if path is not None:
        z, y, x = NUCLEUS_BOX
        shown = [
            Volume.from_array(v.data[z, y, x], v.voxel_um, name=label)
            for label, v in (
                ("widefield", image),
                ("RLD", results["RLD auto"]),
                ("RLN", results["RLN universal"]),
                ("confocal", confocal),
            )
        ]
        look = FigureSettings(profile=False, contrast_percentile=99.9)
        save_figure(rln.figure(shown[:-1], truth=shown[-1], settings=look), path)
        print(f"Written: {path}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="folder of real volumes, a folder each")
    parser.add_argument("--figure", type=Path, help="draw the nucleus: .png, .pdf or .svg")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RlnWarning)  # of what was put there on purpose
        simulated(given.seed)
        pair(given.figure)
        explained(given.real)
    print(f"\n{time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
