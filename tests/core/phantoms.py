"""Small objects and PSFs that the tests share."""

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.ladder import STOP
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.refinement import Refinement, RefinementSettings
from napari_rln.networks.rln import RLN, NetworkSettings, initialise, initialise_as_identity
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.structures import StructureSettings

VOXEL_UM = (0.2, 0.1, 0.1)
SMALL_REFINEMENT = RefinementSettings(width=4, deep_width=4, before=0, deep=1, after=0)
FloatArray = npt.NDArray[np.float32]


def gaussian_psf(shape=(9, 9, 9), sigma=(1.6, 1.2, 1.2)) -> Volume:
    """Return a Gaussian PSF centred on voxel n // 2."""
    axes = [
        np.exp(-0.5 * ((np.arange(n) - n // 2) / s) ** 2) for n, s in zip(shape, sigma, strict=True)
    ]
    data = np.einsum("i,j,k->ijk", *axes)
    return Volume.from_array(data / data.sum(), VOXEL_UM, name="psf")


def comatic_psf(shape=(11, 13, 13)) -> Volume:
    """Return a PSF with a side lobe towards larger z, y and x, peak on voxel n // 2."""
    main = gaussian_psf(shape, (1.5, 1.2, 1.2)).data
    lobe = np.roll(gaussian_psf(shape, (1.8, 1.5, 1.5)).data, (2, 3, 2), (0, 1, 2))
    data = main + 0.5 * lobe
    return Volume.from_array(data / data.sum(), VOXEL_UM, name="psf")


def spots(shape=(24, 40, 40), seed=0, count=25, level=2000.0) -> FloatArray:
    """Return soft spots of several sizes, dark at the border."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    data = np.zeros(shape)
    for _ in range(count):
        centre = [rng.uniform(0.25 * n, 0.75 * n) for n in shape]
        sigma = rng.uniform(0.8, 2.0)
        squared = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        data += rng.uniform(0.3, 1) * np.exp(-0.5 * squared / sigma**2)
    return (level * data / data.max()).astype(np.float32)


def gaussian_spot(sigma_um: float, name: str, height=100.0, voxel_um=(0.3, 0.1, 0.1)) -> Volume:
    """Return (12, 40, 60) with one spot of a known width around voxel (6, 20, 30), on 5."""
    grid = np.indices((12, 40, 60))
    squared = sum(((g - c) * d) ** 2 for g, c, d in zip(grid, (6, 20, 30), voxel_um, strict=True))
    return Volume.from_array(5 + height * np.exp(-squared / 2 / sigma_um**2), voxel_um, name=name)


def nrmse(result, truth) -> float:
    """Return the relative error after the best scale and offset."""
    x, g = (np.asarray(v, dtype=float).ravel() for v in (result, truth))
    xm, gm = x - x.mean(), g - g.mean()
    return float(np.linalg.norm((xm @ gm) / (xm @ xm) * xm - gm) / np.linalg.norm(g))


def spot_columns() -> tuple[list[Volume], Volume]:
    """Return a blurred spot, two sharper results, and the truth: columns of a figure."""
    columns = [
        gaussian_spot(0.5, "raw"),
        gaussian_spot(0.3, "RL 10", 300),
        gaussian_spot(0.2, "RL 50", 900),
    ]
    return columns, gaussian_spot(0.15, "truth", 1e4)


def blobs() -> FloatArray:
    """Return (24, 40, 48) float32, smooth blobs with a sharp part on a level of 5."""
    rng = np.random.default_rng(0)
    points = (rng.random((24, 40, 48)) > 0.995).astype(np.float32)
    return gaussian_filter(points, 1) * 1000 + 5


def noisy_image(truth, psf: Volume, background=10.0, seed=0) -> Volume:
    """Return the photons that a microscope counts of an object in the dark."""
    odd = np.pad(psf.data.astype(float), [(0, 1 - n % 2) for n in psf.shape])
    full = fftconvolve(truth, odd)
    cut = tuple(slice(k // 2, k // 2 + n) for n, k in zip(truth.shape, odd.shape, strict=True))
    counts = np.random.default_rng(seed).poisson(full[cut].clip(0) + background)
    return Volume.from_array(counts, VOXEL_UM, name="image")


def small_model(variant="started", *, seed=0, views="single", **changes) -> Model:
    """Return a model of first weights that hands its first estimate on, more or less."""
    network = RLN(NetworkSettings(views=views))
    initialise(network, torch.Generator().manual_seed(seed))
    initialise_as_identity(network)
    x = torch.from_numpy(spots((16, 24, 24), level=1.0))[None, None]
    x = x.repeat(1, network.settings.channels, 1, 1, 1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0  # the statistics of the next volume
    with torch.no_grad():
        network(x, x)
    start = StartSettings(method="image" if variant == "paper" else "matched", iterations=3)
    given = {
        "name": variant, "network": network, "start": start, "psf": gaussian_psf(),
        "record": Record(method="train", facts={"steps": 12}),
    }  # fmt: skip
    return Model(**given | changes)


def random_refinement(settings=SMALL_REFINEMENT, *, seed=0) -> Refinement:
    """Return a refinement of random weights, whose result depends on all that it sees."""
    refinement = Refinement(settings)
    generator = torch.Generator().manual_seed(seed)
    for parameter in refinement.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        torch.nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    return refinement.eval()


def refined_model(*, seed=0, beyond=1.4, **changes) -> Model:
    """Return a small model with a refinement of random weights."""
    start = StartSettings(method="ladder", beyond=beyond)
    given = {
        "name": "refined", "refinement": random_refinement(seed=seed), "start": start, "stop": STOP,
        "normalisation": "photons", "output_scale": 0.2, "psf": None,
    }  # fmt: skip
    return small_model(seed=seed, **given | changes)


def simulated_again(record: Record, psf: Volume, psf_b: Volume | None = None) -> Pair:
    """Return the pair that a record describes."""

    def tuples(values):
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    settings = tuples(record.settings)
    structures = StructureSettings(**tuples(settings.pop("structures")))
    imaging = ImagingSettings(**tuples(settings.pop("imaging")))
    if "conditions" in settings:
        settings["conditions"] = FieldConditions(**tuples(settings["conditions"]))
    return simulate_pair(psf, structures, imaging, psf_b=psf_b, **settings)
