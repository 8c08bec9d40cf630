"""Richardson-Lucy deconvolution (Richardson 1972, Lucy 1974): the loop.

The image is modelled as ``Poisson(A x + b)``; an iteration multiplies the estimate ``x`` by
``A_adjoint(y / (A x + b)) / A_adjoint(1)``.
"""

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from napari_rln.calibration import Calibration, Camera, Mask, calibrate, measured_volume
from napari_rln.device import Peak, check_memory, computing, resolve_device
from napari_rln.iteration import RichardsonLucy
from napari_rln.outside import Outside
from napari_rln.record import Record
from napari_rln.rld import (
    RldReport,
    RldSettings,
    Seen,
    check_pair,
    memory_bytes,
    start,
    start_views,
)
from napari_rln.settings import as_dict
from napari_rln.steps import finish
from napari_rln.stop import SplitPhotons, Watch, telling_crop
from napari_rln.volume import FloatArray, Volume

_LABELS = {"wiener-butterworth": "WB"}  # what is not called RLD in tables and layers
_ADVICE = "crop the PSF (psf repair), deconvolve a part of the image, or use another device."


def deconvolve(image: Volume, psf: Volume, settings: RldSettings | None = None) -> Volume:
    """Return the deconvolved image; see :func:`iterate`, of which this is the last word."""
    settings = settings or RldSettings()
    # Where nobody looks at the reports, they need not be made.
    every = settings.report_every if settings.tolerance else settings.max_iterations
    return finish(_run(image, psf, settings, every))


def iterate(
    image: Volume, psf: Volume, settings: RldSettings | None = None
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
    result = yield from _run(image, psf, settings, settings.report_every)
    return result


def _run(
    image: Volume, psf: Volume, settings: RldSettings, every: int
) -> Generator[RldReport, None, Volume]:
    """Do what :func:`iterate` says, with a report after ``every`` iterations."""
    began = time.perf_counter()
    image = check_pair(image, psf, settings.negatives)
    device = resolve_device(settings.device)
    needed = memory_bytes(image.shape, psf.shape, settings)
    check_memory(needed, device, _ADVICE)
    memory = Peak(device)
    calibration = calibrate(image, settings)
    inputs = {"image": image.hash, "psf": psf.hash}
    image, seen, found = measured_volume(image, psf, calibration, repair=settings.repair_image)
    facts: dict[str, Any] = calibration.facts() | found | {"device": str(device)}
    if psf.record:
        facts["psf"] = asdict(psf.record)
    with computing(needed, device, _ADVICE):
        iterations = settings.iterations
        if iterations == "auto":
            stop = yield from seek_stop(image, psf, calibration, settings, device, began, seen)
            iterations = stop.iterations
        run = start(image, psf, calibration, settings, device, seen=seen)
        data, found = yield from step_through(run, iterations, settings, memory, began, every)
    facts |= found
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
        As :func:`napari_rln.rld.start` or :func:`napari_rln.rld.start_views` made it.
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
    for done in range(1, iterations + 1):
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


@dataclass(kw_only=True, eq=False)
class Trial:
    """The deconvolution of a part of an image's photons, by which the stop was found.

    Attributes
    ----------
    part
        (z, y, x) of the image.
    view
        The photons that were deconvolved, as an image in the units of the whole.
    split
        Those and the others.
    run
        The deconvolution.
    best
        Iterations after which it predicted the other photons best.
    done
        And how many were done.
    """

    part: tuple[slice, ...]
    view: Seen
    split: SplitPhotons
    run: RichardsonLucy
    best: int
    done: int

    def estimate(self, iterations: int) -> FloatArray:
        """Return the estimate after so many iterations, or as many as were done if more were."""
        while self.done < iterations:
            self._step()
        return self.run.estimate()

    @cached_property
    def outside(self) -> FloatArray:
        """The light in the part from beyond it, image units, for which more iterations are done."""
        watch = Outside(self.view.image, self.view.calibration)
        while not watch.look(self.run, self.done):
            self._step()
        return watch.light

    def _step(self) -> None:
        self.run.step(measure=False)
        self.done += 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """Where a deconvolution is to be stopped.

    Attributes
    ----------
    iterations
        After how many.
    trial
        By which that was found; none for an image without photon noise.
    """

    iterations: int
    trial: Trial | None = None


def seek_stop(
    image: Volume,
    psf: Volume,
    calibration: Calibration,
    settings: RldSettings,
    device: torch.device,
    began: float,
    seen: Mask | None = None,
) -> Generator[RldReport, None, Stop]:
    """Yield reports; return where to stop.

    A part of the photons is deconvolved until it predicts the others best. Without noise it is the
    most that the settings allow.

    Parameters
    ----------
    image, psf
        As :func:`napari_rln.rld.check_pair` passed them.
    calibration
        Of the image.
    settings
        Of the deconvolution that is to be stopped.
    device
        Where to compute.
    began
        ``time.perf_counter()`` from which the reports count.
    seen
        (Z, Y, X) bool, where the image is a measurement; everywhere when none.
    """
    if not calibration.camera.counts_photons:
        return Stop(iterations=settings.max_iterations)
    part = telling_crop(image.data, psf.shape)
    photons = calibration.camera.photons(image.data[part])
    level = calibration.background_photons
    shown = None if seen is None or seen[part].all() else seen[part]
    split = SplitPhotons(
        photons, psf.data, level, calibration.spectrum, settings.seed, seen=shown, device=device
    )
    # So that the estimate is as bright as that of the whole image.
    unit = calibration.camera.gain / split.share
    view = Seen(
        image=image.with_data(split.image * np.float32(unit)),
        psf=psf,
        calibration=Calibration(camera=Camera(gain=unit), background=unit * split.background),
        seen=shown,
        held_out=split,
    )
    run = start_views([view], settings, device)
    watch = Watch()
    # A step tells how well the estimate before it predicts, so one more shows the last.
    run.step()
    for done in range(1, settings.max_iterations + 1):
        change = run.step()
        yield RldReport(
            phase="stop",
            iteration=done,
            total=settings.max_iterations,
            relative_change=change,
            seconds=time.perf_counter() - began,
            held_out=run.error,
            part=part,
            _run=run,
        )
        if watch.add(run.error):
            break
    iterations = min(split.whole(watch.iteration), settings.max_iterations)
    # Of the last step it was not asked how well it predicts.
    trial = Trial(part=part, view=view, split=split, run=run, best=watch.iteration, done=done + 1)
    return Stop(iterations=iterations, trial=trial)
