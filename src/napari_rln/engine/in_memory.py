"""Deconvolution of a volume in memory, by any method."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_rln.core.device import PeakMemory, resolve_device
from napari_rln.core.errors import warn
from napari_rln.core.generators import finish
from napari_rln.core.grid import on_grid, resampled_image
from napari_rln.core.machine import MemoryGb
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.core.tiles import TileSide
from napari_rln.core.volume import Volume, same_grid
from napari_rln.deconvolution.calibration import LEAST_MEASURED
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method, Observation, WholeResult
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.residual import facts_of, residual_of
from napari_rln.deconvolution.settings import check_image
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.views import TwoViews
from napari_rln.engine.execution import Execution
from napari_rln.engine.history import remember
from napari_rln.engine.tiled import deconvolve_tiled
from napari_rln.psf.prepare import RESAMPLE_ONLY, prepare_psf


def deconvolve(
    image: Volume | TwoViews,
    psf: Volume | None = None,
    method: Method | None = None,
    *,
    tile: TileSide = "auto",
    memory_gb: MemoryGb = "auto",
    shared: Shared | None = None,
) -> Volume:
    """Deconvolve a volume; see :func:`deconvolve_iter`, which reports on the way."""
    return finish(_steps(image, psf, method, tile, memory_gb, shared, watched=False))


def deconvolve_iter(
    image: Volume | TwoViews,
    psf: Volume | None = None,
    method: Method | None = None,
    *,
    tile: TileSide = "auto",
    memory_gb: MemoryGb = "auto",
    shared: Shared | None = None,
) -> Generator[Report, None, Volume]:
    """Deconvolve a volume; yield reports, return the result. Closing the generator cancels.

    Parameters
    ----------
    image
        (Z, Y, X), in any unit proportional to photons; or two views of one object with their PSFs,
        from :func:`napari_rln.deconvolution.views.pair_views_iter`.
    psf
        On the image's voxel grid, sum 1, centre on voxel ``n // 2``; None for a network that
        starts from the image alone.
    method
        Richardson-Lucy with its defaults if None.
    tile
        Side of a tile, voxels; auto is the largest that fits the memory.
    memory_gb
        Memory limit of the process with its libraries, image and result, GB; on a CUDA device, of
        the device's memory. auto takes what is free.
    shared
        Calibration and other measurements of the image, shared with other methods.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in the image's unit, background removed, with a record. Its facts hold
        ``chi2``, the reduced chi squared of the blurred result against the image in units of the
        image's noise, ``reblur_scale`` and ``flux_ratio``, see
        :class:`napari_rln.deconvolution.residual.Residual`, where the image's noise is known.

    Raises
    ------
    RlnError
        If image, PSF or model are invalid or do not match, for a missing device, or for too little
        memory.
    ComputeError
        If the computation fails on the way.

    Warns
    -----
    RlnWarning
        For voxels that are not measurements, an uncertain background, or a PSF unlike those that a
        model was trained for.
    """
    result = yield from _steps(image, psf, method, tile, memory_gb, shared, watched=True)
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class _Input:
    """Views on the grid of the result, with their entries of the record."""

    raw: Volume
    views: tuple[PreparedView, ...]
    original: PreparedView
    facts: dict[str, Any]
    inputs: dict[str, str]
    psfs: dict[str, Volume]


def _steps(
    image: Volume | TwoViews,
    psf: Volume | None,
    method: Method | None,
    tile: TileSide,
    memory_gb: MemoryGb,
    shared: Shared | None,
    *,
    watched: bool,
) -> Generator[Report, None, Volume]:
    started = time.perf_counter()
    Execution(tile=tile, memory_gb=memory_gb)  # checks their limits
    method, shared = method or RichardsonLucy(), shared or Shared()
    if isinstance(image, TwoViews):
        prepared = _two_views(image, method)
    else:
        prepared = _one_view(image, psf, method, shared)
    method = method.of_views(len(prepared.views))
    for message in method.warnings(*(view.psf for view in prepared.views)):
        warn(message)
    device = resolve_device(method.device)
    observation = Observation(
        views=prepared.views,
        original=prepared.original,
        shared=shared,
        device=device,
        tile=tile,
        memory_gb=memory_gb,
        shows_estimates=watched,
        started=started,
        memory=PeakMemory(device),
    )
    whole = yield from method.whole(observation)
    if whole is None:
        data, facts = yield from deconvolve_tiled(
            prepared.raw, prepared.original.psf, method, tile, memory_gb
        )
        whole = WholeResult(data, facts)
    original = prepared.original
    data, outside = whole.data, whole.outside
    on_image = data
    if not observation.on_own_voxels:
        shape, voxel_um = original.image.shape, original.image.voxel_um
        on_image = on_grid(data, observation.image.voxel_um, shape, voxel_um)
        outside = None  # is not on this grid
    facts = prepared.facts | {"device": str(device)} | whole.facts
    if original.psf is not None:
        facts |= facts_of(
            residual_of(
                original.image, on_image, original.psf, original.calibration, outside=outside,
                mask=original.mask,
            )
        )  # fmt: skip
    described = method.describe()
    facts |= described.facts | {
        "seconds": round(time.perf_counter() - started, 3),
        "peak_mb": round(observation.memory.peak / 1e6),
    }
    facts |= {name: its.record.as_dict() for name, its in prepared.psfs.items() if its.record}
    several = len(prepared.views) > 1
    if not several:  # two views take longer
        remember(method, device.type, prepared.raw.data.size, facts)
    title = f"{'dual ' * several}{method.title}"
    if "iterations" in facts:
        title += f" {facts['iterations']}"
    where = observation.image if several else original.image
    return where.with_data(
        data if several else on_image,
        name=f"{original.image.name} · {title}",
        record=Record(
            method=f"{method.kind}{' dual' * several}",
            settings=described.settings,
            facts=facts,
            inputs=prepared.inputs | described.inputs,
        ),
    )


def _one_view(image: Volume, psf: Volume | None, method: Method, shared: Shared) -> _Input:
    """Return an image prepared for deconvolution, on the voxels of the method."""
    method.check(image, psf)
    image = check_image(image, method.negatives)
    inputs = {"image": image.hash}
    psfs = {}
    if psf is not None:
        inputs["psf"], psfs["psf"] = psf.hash, psf
    calibration = shared.calibrate(image, method)
    clean, mask, defects = shared.prepare(image, psf, calibration, repair=method.repair_image)
    original = PreparedView(image=clean, psf=psf, calibration=calibration, mask=mask)
    view, voxel_um = original, method.grid_of(image)
    if not same_grid(voxel_um, image.voxel_um, 0.0):
        resampled, shown = resampled_image(clean, voxel_um), None
        if mask is not None:
            mask_volume = clean.with_data(mask.astype(np.float32))
            shown = resampled_image(mask_volume, voxel_um).data > LEAST_MEASURED
        fitted = psf and prepare_psf(psf, RESAMPLE_ONLY, image_voxel_um=voxel_um)
        view = PreparedView(image=resampled, psf=fitted, calibration=calibration, mask=shown)
    return _Input(
        raw=image,
        views=(view,),
        original=original,
        facts=calibration.facts() | defects,
        inputs=inputs,
        psfs=psfs,
    )


def _two_views(pair: TwoViews, method: Method) -> _Input:
    first, second = pair.first, pair.second
    assert first.psf is not None
    assert second.psf is not None
    method.check(first.image, first.psf, views=2)
    return _Input(
        raw=pair.original.image,
        views=(first, second),
        original=pair.original,
        facts=pair.facts | pair.calibrations(),
        inputs=pair.inputs,
        psfs={"psf": first.psf, "psf_b": second.psf},
    )
