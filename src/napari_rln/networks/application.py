"""Applying a trained network to volumes of any size.

The first estimate, one affine map for the whole volume, the network tile by tile, and back to the
image's units. Tiles overlap by what the network sees, so that they give what the whole would.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_rln.core.device import Peak, check_memory, computing, resolve_device
from napari_rln.core.errors import warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.grid import on_grid, resampled_image
from napari_rln.core.record import Record
from napari_rln.core.settings import as_dict
from napari_rln.core.tiles import even_sized
from napari_rln.core.volume import Box, FloatArray, Volume
from napari_rln.deconvolution.calibration import WHOLLY, Calibration, Mask
from napari_rln.deconvolution.check import explained, facts_of
from napari_rln.deconvolution.rld_settings import RldReport
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.deconvolution.study import Study
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.inference import Folded, compile_ahead, is_compiling
from napari_rln.networks.initial_estimate import FirstEstimate, first_estimate
from napari_rln.networks.model import Model, load_model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.rln_settings import (
    ADVICE,
    RlnReport,
    RlnSettings,
    bytes_allowed,
    check_allowed,
    check_inputs,
    kept_bytes,
    network_tiles,
)
from napari_rln.networks.suitability import check_grid, doubts, refuse_grid
from napari_rln.psf.prepare import AS_IT_IS, prepare_psf


def apply_model(
    image: Volume,
    psf: Volume | None = None,
    model: Model | None = None,
    settings: RlnSettings | None = None,
    study: Study | None = None,
) -> Volume:
    """Return the image deconvolved by a network; see :func:`apply_steps`, whose last word it is."""
    return finish(apply_steps(image, psf, model, settings, study))


def apply_steps(
    image: Volume,
    psf: Volume | None = None,
    model: Model | None = None,
    settings: RlnSettings | None = None,
    study: Study | None = None,
) -> Generator[RlnReport, None, Volume]:
    """Deconvolve an image by a network; yield reports with finished tiles, return the result.

    Closing the generator cancels.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative, in any unit proportional to photons.
    psf
        On the image's voxel grid, sum 1, centre on voxel ``n // 2``; a model of the paper's
        variant needs none.
    model
        The universal one when none.
    settings
        The defaults when none.
    study
        Of the image, where other methods are applied to it too.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in the image's unit, background removed, with a record. Its facts hold
        ``chi2``, the reduced chi squared of the blurred result against the image in units of the
        image's noise, ``reblur_scale`` and ``flux_ratio``, see
        :class:`napari_rln.deconvolution.residual.Residual`, where they can be told.

    Raises
    ------
    RlnError
        For an image, PSF or model that cannot be used or do not go together, a missing device or
        too little memory.
    ComputeError
        If the computation fails on the way.

    Warns
    -----
    RlnWarning
        If the PSF is unlike those that the model was trained for.
    """
    began = time.perf_counter()
    settings, study = settings or RlnSettings(), study or Study()
    model = model or load_model()
    image = check_inputs(image, psf, model, settings)
    original, given = image, psf
    fits = check_grid(model, image)
    if not fits and settings.grid == "refuse":
        raise refuse_grid(model, image)
    calibration = study.calibrate(image, settings)
    background = calibration.background
    clean, measured, found = study.measure(image, psf, calibration, repair=settings.repair_image)
    image, seen = clean, measured
    if not fits:
        assert model.psf is not None
        image = resampled_image(clean, model.psf.voxel_um)
        if measured is not None:
            shows = clean.with_data(measured.astype(np.float32))
            seen = resampled_image(shows, model.psf.voxel_um).data > WHOLLY
        psf = psf and prepare_psf(psf, AS_IT_IS, image_voxel_um=image.voxel_um)
    for doubt in doubts(model, psf):
        warn(doubt)
    device = resolve_device(settings.device)
    if device.type == "cpu" and settings.precision == "float32":
        compile_ahead()  # on a new machine it takes as long as the first estimate
    most = bytes_allowed(settings, device)
    if settings.memory_gb != "auto":
        check_memory(most, device, ADVICE)
        if device.type != "cuda":  # on which only what is computed lies
            shapes = image.shape, None if psf is None else psf.shape
            most -= kept_bytes(*shapes, model)
            check_allowed(*shapes, settings, most)
    facts: dict[str, Any] = calibration.facts() | found | {"device": str(device)}
    memory = Peak(device)
    with computing(most, device, ADVICE):
        shown = image.shape == original.shape
        start = yield from _start(
            image, psf, calibration, model, device, most, began, shown, seen, study
        )
        facts |= {"start_iterations": start.iterations}
        memory.look()
        scaling = Normalisation.of(image.data, start.data, background, model.normalisation)
        facts |= {"normalisation": asdict(scaling)}
        if is_compiling():
            yield RlnReport(phase="compile", done=0, total=0, seconds=time.perf_counter() - began)
        network = Folded(model.network, device, settings.precision)
        merge = None
        if model.start.needs_psf:
            assert psf is not None
            consistency = consistency_of(start.trial, model, network, settings, most)
            facts |= {"consistency": asdict(consistency)}
            merge = Merge(consistency, psf.data)

        def window(box: Box) -> Input:
            shown = None if seen is None else seen[box]
            return input_of(scaling, background, image.data[box], start.data[box], shown)

        data = yield from network_steps(
            window, start.data, scaling, background, model, network, settings, facts, most, began,
            seen=seen, merge=merge,
        )  # fmt: skip
        memory.look()
    outside = start.outside
    if model.start.method == "matched" and start.trial is not None and start.trial.is_of(image):
        outside = start.trial.outside
    if given is not None and shown and outside is not None:
        study.keep_outside(clean, given, calibration, outside)
    if not shown:
        data = on_grid(data, image.voxel_um, original.shape, original.voxel_um)
        outside = None  # is not on this grid
    if given is not None:
        facts |= facts_of(
            explained(clean, data, given, calibration, outside=outside, seen=measured)
        )
    facts |= {
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(memory.peak / 1e6),
        "model": model.card()["record"],
    }
    if given is not None and given.record:
        facts["psf"] = given.record.as_dict()
    return original.with_data(
        data,
        name=f"{original.name} · RLN {model.name}",
        record=Record(
            method="rln",
            settings=as_dict(settings) | {"model": model.name, "start": as_dict(model.start)},
            facts=facts,
            inputs={"image": original.hash, "model": model.hash}
            | ({"psf": given.hash} if given is not None else {}),
        ),
    )


def _start(
    image: Volume,
    psf: Volume | None,
    calibration: Calibration,
    model: Model,
    device: torch.device,
    most: int,
    began: float,
    shown: bool,
    seen: Mask | None,
    study: Study,
) -> Generator[RlnReport, None, FirstEstimate]:
    def told(report: RldReport) -> RlnReport:
        return RlnReport(
            phase="stop" if report.phase == "stop" else "start",
            done=report.iteration,
            total=report.total,
            seconds=time.perf_counter() - began,
            _start=report if shown else None,
        )

    steps = first_estimate(
        image,
        psf,
        calibration,
        model.start,
        device,
        seen=seen,
        most_bytes=most,
        outside=shown,
        study=study,
    )
    return (yield from relay(steps, told))


class Input(NamedTuple):
    """What a network is given, on its own scale.

    Attributes
    ----------
    x
        Its channels, each (z, y, x): the image, or views of it.
    E0
        As many, the first estimate; none where that is the image.
    """

    x: Sequence[FloatArray]
    E0: Sequence[FloatArray] | None


def input_of(
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    seen: Mask | None = None,
) -> Input:
    """Return what a network is given of an image and its first estimate, (z, y, x), image units.

    Where the image is dark only because it was not measured, it is given the background.
    """
    if seen is not None:
        image = np.where(seen, image, np.maximum(image, np.float32(background)))
    return Input([scaling.apply(image)], [scaling.apply(estimate + np.float32(background))])


def network_steps(
    window: Callable[[Box], Input],
    estimate: FloatArray,
    scaling: Normalisation,
    background: float,
    model: Model,
    network: Folded,
    settings: RlnSettings,
    facts: dict[str, Any],
    most: int,
    began: float,
    *,
    seen: Mask | None = None,
    merge: Merge | None = None,
) -> Generator[RlnReport, None, FloatArray]:
    """Yield the tiles as they are finished; return (Z, Y, X), image units, background removed.

    Parameters
    ----------
    window
        Returns what the network is given of a part of the volume.
    estimate
        (Z, Y, X), the first one, image units, background removed.
    scaling
        Of the whole volume.
    background
        Image units.
    model, network, settings
        What is applied, ready for that, and how.
    facts
        Here it is noted how it was done.
    most
        Bytes that may be taken.
    began
        ``time.perf_counter()`` from which the reports count.
    seen
        (Z, Y, X) bool, where the image is a measurement; everywhere when none. Elsewhere the
        network has nothing to go by, and the result is the first estimate.
    merge
        Makes the result of the network's output and the first estimate; the output is the result
        when none.
    """
    z, y, x = estimate.shape
    tiles = network_tiles((z, y, x), settings, network.bytes_per_voxel, most)
    core = [part.stop - part.start for part in tiles[0].core]
    facts |= {"tiles": len(tiles), "tile": core, "network": network.path}
    whole = np.empty_like(estimate)
    for number, tile in enumerate(tiles, 1):
        given, start = window(tile.window), estimate[tile.window]
        piece = output_of(network, model, scaling, background, given, start, tile.inner, merge)
        if seen is not None:
            piece = np.where(seen[tile.core], piece, estimate[tile.core])
        whole[tile.core] = piece
        yield RlnReport(
            phase="network",
            done=number,
            total=len(tiles),
            seconds=time.perf_counter() - began,
            tile=tile,
            piece=piece,
        )
    return whole


def through_network(
    network: Folded,
    model: Model,
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    inner: Box,
    seen: Mask | None = None,
    merge: Merge | None = None,
) -> FloatArray:
    """Return what a network makes of a window, image units, background removed.

    Parameters
    ----------
    network
        Of the model, ready to be applied.
    model
        Says how it is applied.
    scaling
        Of the whole volume.
    background
        Image units.
    image, estimate
        (z, y, x) of the window, the estimate without background.
    inner
        Part of the window that is returned: what the network sees whole.
    seen
        (z, y, x) bool of the window, as for :func:`network_steps`.
    merge
        As for :func:`network_steps`.
    """
    given = input_of(scaling, background, image, estimate, seen)
    piece = output_of(network, model, scaling, background, given, estimate, inner, merge)
    return piece if seen is None else np.where(seen[inner], piece, estimate[inner])


def output_of(
    network: Folded,
    model: Model,
    scaling: Normalisation,
    background: float,
    given: Input,
    estimate: FloatArray,
    inner: Box,
    merge: Merge | None = None,
) -> FloatArray:
    """Return what a network makes of what it is given, as :func:`through_network` does."""
    x = _stacked(given.x)
    output = network(x, None if given.E0 is None else _stacked(given.E0))[0]
    whole = tuple(slice(n) for n in estimate.shape)
    data: FloatArray = output.to("cpu", torch.float32).numpy()[whole]
    # The offset is part of the map; the background is not part of a result.
    data = scaling.undo(data * np.float32(model.output_scale)) - np.float32(background)
    if model.share:
        data += np.float32(model.share) * (estimate - data)
    if merge is not None:
        data = merge(data, estimate, scaling.scale)
    return data[inner]


def consistency_of(
    trial: Trial | None, model: Model, network: Folded, settings: RlnSettings, most: int
) -> Consistency:
    """Return how a network's output is to be merged with its first estimate, for an image.

    Parameters
    ----------
    trial
        By which the stop was found; nothing can be said without.
    model, network, settings
        What will be applied, ready for that, and how.
    most
        Bytes that may be taken.
    """
    if trial is None:
        return Consistency()
    image, seen = trial.view.image.data, trial.view.seen
    estimate = trial.estimate(model.start.after(trial.best))
    background = trial.view.calibration.background
    scaling = Normalisation.of(image, estimate, background, model.normalisation)

    def window(box: Box) -> Input:
        shown = None if seen is None else seen[box]
        return input_of(scaling, background, image[box], estimate[box], shown)

    steps = network_steps(
        window, estimate, scaling, background, model, network, settings, {}, most, 0.0, seen=seen
    )
    return Consistency.of(trial, estimate, finish(steps), scaling.scale)


def _stacked(channels: Sequence[FloatArray]) -> torch.Tensor:
    """Return (C, z, y, x) of even sizes."""
    return torch.stack([torch.from_numpy(even_sized(channel)) for channel in channels])
