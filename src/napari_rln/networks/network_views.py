"""Two views of one object, deconvolved together by a network.

A network that starts from a classical deconvolution, such as the universal one, needs no training
for it: it begins with what the views show together, and is given their mean. Those that were
trained on two views are given the sum of both, or both.
"""

import time
from collections.abc import Generator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from napari_rln.core.device import Peak, check_memory, computing, resolve_device
from napari_rln.core.errors import RlnError, warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.grid import on_grid
from napari_rln.core.record import Record
from napari_rln.core.settings import as_dict
from napari_rln.core.volume import Box, FloatArray, Volume
from napari_rln.deconvolution.check import explained, facts_of
from napari_rln.deconvolution.residual import Residual
from napari_rln.deconvolution.rld_settings import RldReport
from napari_rln.deconvolution.views import DualImage, iterate_views, seek_views_stop
from napari_rln.networks.application import Input, network_steps
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.inference import Folded, compile_ahead, is_compiling
from napari_rln.networks.model import Model, load_model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.rln import together
from napari_rln.networks.rln_settings import ADVICE, RlnReport, RlnSettings, bytes_allowed
from napari_rln.networks.suitability import check_grid, doubts


def apply_views(
    pair: DualImage, model: Model | None = None, settings: RlnSettings | None = None
) -> Volume:
    """Return the object that two views show; see :func:`apply_views_steps`, its last word."""
    return finish(apply_views_steps(pair, model, settings))


def apply_views_steps(
    pair: DualImage, model: Model | None = None, settings: RlnSettings | None = None
) -> Generator[RlnReport, None, Volume]:
    """Deconvolve two views by a network; yield reports with finished tiles, return the result.

    Parameters
    ----------
    pair
        As :func:`napari_rln.deconvolution.views.pair_views` made it, which has its own settings for
        the backgrounds and negative voxels.
    model
        The universal one when none. One that was trained on single views must start from a
        classical deconvolution.
    settings
        The defaults when none; ``background``, ``negatives`` and ``grid`` mean nothing here.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in the first view's unit on the pair's grid, background removed, with a
        record. Its facts hold ``chi2`` and ``flux_ratio`` against the first view.

    Raises
    ------
    RlnError
        For a model that cannot be used with two views or with their voxels, a missing device or
        too little memory.
    ComputeError
        If the computation fails on the way.

    Warns
    -----
    RlnWarning
        If a PSF is unlike those that the model was trained for.
    """
    began = time.perf_counter()
    settings = settings or RlnSettings()
    model = model or load_model()
    check_views_model(model)
    if not check_grid(model, pair.first):
        assert model.psf is not None
        raise RlnError(
            f"the views have voxels of {pair.first.voxel_um} um but model {model.name} was trained "
            f"for {model.psf.voxel_um} um (z, y, x); choose other voxels of the result (`voxels`), "
            "or the universal model."
        )
    for doubt in (*doubts(model, pair.psf_first), *_doubts_of_second(model, pair.psf_second)):
        warn(doubt)
    device = resolve_device(settings.device)
    if device.type == "cpu" and settings.precision == "float32":
        compile_ahead()  # on a new machine it takes as long as the first estimate
    most = bytes_allowed(settings, device)
    if settings.memory_gb != "auto":
        check_memory(most, device, ADVICE)
    facts: dict[str, Any] = pair.facts | pair.calibrations() | {"device": str(device)}
    memory = Peak(device)
    estimate, iterations = yield from _joint(pair, model, settings, began)
    facts["start_iterations"] = iterations
    with computing(most, device, ADVICE):
        memory.look()
        lights = (
            (pair.first.data, pair.calibration_first.background),
            (pair.second.data[pair.seen], pair.calibration_second.background),
        )
        scalings = [
            Normalisation.of(seen, estimate, background, model.normalisation)
            for seen, background in lights
        ]
        facts["normalisation"], facts["normalisation_b"] = map(asdict, scalings)
        background, scaling = pair.calibration_first.background, scalings[0]

        def window(box: Box) -> Input:
            a, b = scaling.apply(pair.first.data[box]), scalings[1].apply(pair.second.data[box])
            x = together(model.network.settings.views, a, np.where(pair.seen[box], b, a))
            if not model.start.needs_psf:
                return Input(x, None)
            return Input(x, [scaling.apply(estimate[box] + np.float32(background))] * len(x))

        if is_compiling():
            yield RlnReport(phase="compile", done=0, total=0, seconds=time.perf_counter() - began)
        network = Folded(model.network, device, settings.precision)
        merge = Merge(Consistency()) if model.start.needs_psf else None
        data = yield from network_steps(
            window, estimate, scaling, background, model, network, settings, facts, most, began,
            merge=merge,
        )  # fmt: skip
        memory.look()
    found = _explained(pair, data)
    if found is not None and merge is not None:
        data *= np.float32(found.scale)
        facts["consistency"] = asdict(Consistency(result=found.scale))
        found = _explained(pair, data)
    facts |= facts_of(found)
    facts |= {
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(memory.peak / 1e6),
        "model": model.card()["record"],
    }
    for name, psf in (("psf", pair.psf_first), ("psf_b", pair.psf_second)):
        if psf.record:
            facts[name] = psf.record.as_dict()
    return pair.first.with_data(
        data,
        name=f"{pair.original.name} · dual RLN {model.name}",
        record=Record(
            method="rln dual",
            settings=as_dict(settings) | {"model": model.name, "start": as_dict(model.start)},
            facts=facts,
            inputs=pair.inputs | {"model": model.hash},
        ),
    )


def _explained(pair: DualImage, data: FloatArray) -> Residual | None:
    """Return how far a result explains the first view as it was taken."""
    original, as_seen = pair.original, data
    if pair.first.shape != original.shape:
        as_seen = on_grid(data, pair.first.voxel_um, original.shape, original.voxel_um)
    return explained(
        original, as_seen, pair.psf_original, pair.calibration_first, seen=pair.seen_original
    )


def check_views_model(model: Model) -> None:
    """Raise unless a model can be applied to two views.

    Raises
    ------
    RlnError
        If it cannot.
    """
    if model.network.settings.views == "single" and not model.start.needs_psf:
        raise RlnError(
            f"model {model.name} knows one view of the object only; use one that starts from a "
            "classical deconvolution, such as universal, or one that was trained on two views."
        )


def _doubts_of_second(model: Model, psf: Volume) -> tuple[str, ...]:
    """Return what speaks against using a model with the PSF of a second view."""
    if model.psf_b is None:
        return ()
    return doubts(replace(model, psf=model.psf_b, reach={}), psf)


def _joint(
    pair: DualImage, model: Model, settings: RlnSettings, began: float
) -> Generator[RlnReport, None, tuple[FloatArray, int]]:
    """Yield reports, return the first estimate without background, and its iterations."""
    if not model.start.needs_psf:
        return pair.first.data - np.float32(pair.calibration_first.background), 0
    start = replace(model.start.rld(), device=settings.device)

    def told(report: RldReport) -> RlnReport:
        return RlnReport(
            phase="stop" if report.phase == "stop" else "start",
            done=report.iteration,
            total=report.total,
            seconds=time.perf_counter() - began,
            _start=report if pair.first.shape == pair.original.shape else None,
        )

    if model.start.iterations == "auto":
        stop = yield from relay(seek_views_stop(pair, start), told)
        iterations = model.start.after(stop)
    else:
        iterations = model.start.iterations
    steps = iterate_views(pair, replace(start, iterations=iterations))
    estimate = yield from relay(steps, told)
    return estimate.data, iterations
