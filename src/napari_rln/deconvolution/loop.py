"""Richardson-Lucy deconvolution (Richardson 1972, Lucy 1974): the loop.

The image is modelled as ``Poisson(A x + b)``; an iteration multiplies the estimate ``x`` by
``A_adjoint(y / (A x + b)) / A_adjoint(1)``.
"""

import time
from collections.abc import Generator
from typing import Any

from napari_rln.core.device import Peak, check_memory, computing, resolve_device
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.settings import as_dict
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.check import explained, facts_of
from napari_rln.deconvolution.richardson_lucy import RichardsonLucy
from napari_rln.deconvolution.rld_settings import (
    RldReport,
    RldSettings,
    check_pair,
    memory_bytes,
)
from napari_rln.deconvolution.study import Study

_LABELS = {"wiener-butterworth": "WB"}  # what is not called RLD in tables and layers
_ADVICE = "crop the PSF (psf repair), deconvolve a part of the image, or use another device."


def deconvolve(
    image: Volume, psf: Volume, settings: RldSettings | None = None, study: Study | None = None
) -> Volume:
    """Return the deconvolved image; see :func:`iterate`, of which this is the last word."""
    settings = settings or RldSettings()
    # Where nobody looks at the reports, they need not be made.
    every = settings.report_every if settings.tolerance else settings.max_iterations
    return finish(_run(image, psf, settings, every, study))


def iterate(
    image: Volume, psf: Volume, settings: RldSettings | None = None, study: Study | None = None
) -> Generator[RldReport, None, Volume]:
    """Deconvolve an image; yield a report after every so many iterations, return the result.

    Closing the generator cancels.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative, in any unit proportional to photons.
    psf
        On the image's voxel grid, sum 1, centre on voxel ``n // 2``.
    settings
        The defaults when none.
    study
        Of the image, where other methods are applied to it too.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in the image's unit, background removed, with a record.

    Raises
    ------
    RlnError
        For an image or PSF that cannot be used, a missing device or too little memory.
    ComputeError
        If the computation fails on the way.
    """
    settings = settings or RldSettings()
    result = yield from _run(image, psf, settings, settings.report_every, study)
    return result


def _run(
    image: Volume, psf: Volume, settings: RldSettings, every: int, study: Study | None
) -> Generator[RldReport, None, Volume]:
    """Do what :func:`iterate` says, with a report after ``every`` iterations."""
    began = time.perf_counter()
    study = study or Study()
    image = check_pair(image, psf, settings.negatives)
    device = resolve_device(settings.device)
    needed = memory_bytes(image.shape, psf.shape, settings)
    check_memory(needed, device, _ADVICE)
    memory = Peak(device)
    calibration = study.calibrate(image, settings)
    inputs = {"image": image.hash, "psf": psf.hash}
    image, seen, found = study.measure(image, psf, calibration, repair=settings.repair_image)
    facts: dict[str, Any] = calibration.facts() | found | {"device": str(device)}
    if psf.record:
        facts["psf"] = psf.record.as_dict()
    with computing(needed, device, _ADVICE):
        iterations, stop = settings.iterations, None
        if iterations == "auto":
            stop = yield from study.seek_stop(
                image, psf, calibration, settings, device, began, seen
            )
            iterations = stop.iterations
        run = study.path(image, psf, calibration, settings, device, iterations, seen)
        if run.done:
            facts["shared_iterations"] = run.done
        data, found = yield from step_through(run, iterations, settings, memory, began, every)
        outside = run.outside()
        if settings.back_projector == "matched" and stop and stop.trial and stop.trial.is_of(image):
            outside = stop.trial.outside  # steady, and the same for all who judge a result
    facts |= found
    facts |= facts_of(explained(image, data, psf, calibration, outside=outside, seen=seen))
    label = _LABELS.get(settings.back_projector, "RLD")
    return image.with_data(
        data,
        name=f"{image.name} · {label} {facts['iterations']}",
        record=Record(
            method="rld",
            settings=as_dict(settings),
            facts=facts,
            inputs=inputs,
        ),
    )


def step_through(
    run: RichardsonLucy,
    iterations: int,
    settings: RldSettings,
    memory: Peak,
    began: float,
    every: int = 1,
) -> Generator[RldReport, None, tuple[FloatArray, dict[str, Any]]]:
    """Do the iterations of a run; yield reports, return the estimate and how it came to its end.

    Parameters
    ----------
    run
        As :func:`napari_rln.deconvolution.rld_settings.start` or
        :func:`napari_rln.deconvolution.rld_settings.start_views` made it.
    iterations
        How many to do at the most.
    settings
        Of the run: what decided on the iterations, and the relative change below which to stop
        earlier.
    memory
        What is told of the peak.
    began
        ``time.perf_counter()`` from which the reports count.
    every
        After how many iterations there is a report, and one after the last.

    Returns
    -------
    tuple
        (Z, Y, X) float32, and the facts ``iterations``, ``stopped_by``, ``relative_change``,
        ``seconds`` and ``peak_mb``.
    """
    stopped = "iterations"
    if settings.iterations == "auto":
        stopped = "held-out photons" if iterations < settings.max_iterations else "limit"
    for done in range(run.done + 1, iterations + 1):
        due = done % every == 0 or done == iterations
        change = run.step(measure=due)
        if not due:
            continue
        memory.look()
        yield RldReport(
            phase="deconvolve",
            iteration=done,
            total=iterations,
            relative_change=change,
            seconds=time.perf_counter() - began,
            _run=run,
        )
        if change < settings.tolerance:
            stopped = "tolerance"
            break
    return run.estimate(), {
        "iterations": done,
        "stopped_by": stopped,
        "relative_change": change,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(memory.peak / 1e6),
    }
