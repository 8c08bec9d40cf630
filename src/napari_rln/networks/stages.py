"""Intermediate results of the network as volumes, with the paper's names."""

from dataclasses import replace

import numpy as np
import torch

from napari_rln.core.device import computing, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.tiles import even_sized
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import calibrate, prepare_image
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import check_image
from napari_rln.networks.application import last_of, scaling_of
from napari_rln.networks.initial_estimate import initial_estimate
from napari_rln.networks.network import Network
from napari_rln.networks.rln import RLN, Stages

_ADVICE = "look at a smaller part of the image."


STAGES = ("x", "E0", *Stages._fields)
"""Names of the stages, in order of computation."""


def network_stages(
    image: Volume, psf: Volume | None = None, method: Network | None = None
) -> dict[str, Volume]:
    """Return the stages of a network for a whole image, on the network's scale.

    Parameters
    ----------
    image, psf, method
        As for :func:`napari_rln.engine.in_memory.deconvolve`; by default the universal model.

    Returns
    -------
    dict
        ``x``, ``E0`` and the fields of :class:`napari_rln.networks.rln.Stages` by name. FP1 and DV1
        have voxels of twice the size. The output is unmerged, and of one orientation; results of
        the started variant are the mean over those of the model, merged with E0, see
        :mod:`napari_rln.networks.data_consistency`, or refined.

    Raises
    ------
    RlnError
        If image, PSF and model do not match, the network is of another architecture, or the GPU is
        unavailable.
    ComputeError
        If the computation fails.
    """
    method = replace(method or Network(), grid="refuse")
    model = method.loaded
    if not isinstance(model.network, RLN):
        raise RlnError(
            f"model {model.name} is of {model.network.title}; the stages are those of the "
            "Richardson-Lucy Network: choose such a model."
        )
    method.check(image, psf)
    image = check_image(image, method.negatives)
    calibration = calibrate(image, method)
    background = calibration.background
    image, mask, _ = prepare_image(image, psf, calibration, repair=method.repair_image)
    device = resolve_device(method.device)
    view = PreparedView(image=image, psf=psf, calibration=calibration, mask=mask)
    with computing(0, device, _ADVICE):
        started = initial_estimate(Observation.of(view, device), model.start, model.ladder)
        estimates = finish(started).data
        scaling = scaling_of(model, image.data, estimates, calibration)
        start = last_of(estimates)
        x, E0 = (
            torch.from_numpy(even_sized(scaling.apply(data)))[None, None]
            for data in (image.data, start + np.float32(background))
        )
        with torch.inference_mode():
            stages = Stages._asdict(model.network(x, E0))
    z, y, x_um = image.voxel_um
    volumes = {}
    for name, stage in ({"x": x, "E0": E0} | stages).items():
        whole = stage.shape[2:] == x.shape[2:]
        data = stage[0].mean(0).numpy()
        if whole:
            data = data[tuple(slice(n) for n in image.shape)]
        volumes[name] = Volume.from_array(
            data,
            image.voxel_um if whole else (2 * z, 2 * y, 2 * x_um),
            name=f"{image.name} · {name}",
        )
    return volumes
