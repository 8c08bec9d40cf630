"""The first estimate, from which the network starts.

For the paper's network it is the image. For the started variant it is a classical deconvolution
with the PSF at hand: that is how one set of weights serves any PSF.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.settings import check_limits
from napari_rln.core.tiles import Shape, Tile, largest_core, plan_tiles
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution import rld_settings as rld
from napari_rln.deconvolution.calibration import Calibration, Mask
from napari_rln.deconvolution.outside_light import Outside
from napari_rln.deconvolution.rld_settings import RldReport, RldSettings
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.deconvolution.study import Study

StartMethod = Literal["image", "matched", "wiener-butterworth"]


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """How the first estimate is made.

    Parameters
    ----------
    method
        image for the paper's network; matched or wiener-butterworth for that back projector.
    iterations
        Accelerated iterations of the classical deconvolution; auto stops it where the image's own
        noise says so, so that the network always meets an estimate of the same ripeness.
    beyond
        Factor on the iterations where auto stops: the network takes noise away better than blur,
        of which it learns through its start alone.
    """

    method: StartMethod = "matched"
    iterations: Annotated[int | Literal["auto"], {"min": 1, "max": 1000}] = "auto"
    beyond: Annotated[float, {"min": 0.1, "max": 10.0}] = 1.0

    def __post_init__(self) -> None:
        check_limits(self)
        if self.iterations != "auto" and not isinstance(self.iterations, int):
            raise RlnError(f"iterations is {self.iterations!r}; give a whole number, or auto.")

    @property
    def needs_psf(self) -> bool:
        """Whether a PSF takes part."""
        return self.method != "image"

    def after(self, stop: int) -> int:
        """Return how many iterations to do where auto stops after so many."""
        return max(1, round(self.beyond * stop))

    def rld(self) -> RldSettings:
        """Return the settings of the classical deconvolution."""
        return RldSettings(
            iterations=self.iterations,
            back_projector="matched" if self.method == "image" else self.method,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstEstimate:
    """What the network starts from, in image units, background removed.

    Attributes
    ----------
    data
        (Z, Y, X) float32.
    iterations
        Of the classical deconvolution; 0 for the image.
    outside
        (Z, Y, X) float32, the light in the image that comes from beyond the field of view, as
        :mod:`napari_rln.deconvolution.outside_light` finds it; none where it was not asked for,
        there was no matched deconvolution of the whole, or a trial of the whole tells.
    trial
        By which the stop was found; none where it was given, or nothing could be held out.
    """

    data: FloatArray
    iterations: int = 0
    outside: FloatArray | None = None
    trial: Trial | None = None


def first_estimate(
    image: Volume,
    psf: Volume | None,
    calibration: Calibration,
    settings: StartSettings,
    device: torch.device,
    *,
    seen: Mask | None = None,
    most_bytes: int | None = None,
    outside: bool = False,
    study: Study | None = None,
) -> Generator[RldReport, None, FirstEstimate]:
    """Yield reports of a classical deconvolution, return the first estimate of an image's object.

    Parameters
    ----------
    image
        (Z, Y, X), image units, as :func:`napari_rln.deconvolution.rld_settings.check_pair` passed
        it.
    psf
        On the image's voxels, sum 1; with the image as the start it is not used.
    calibration
        Of the image.
    settings
        How.
    device
        Where to compute.
    seen
        (Z, Y, X) bool, where the image is a measurement; everywhere when none.
    most_bytes
        Memory that may be taken. Where the volume needs more it is cut into tiles that overlap by
        half of the PSF's size on either side.
    outside
        Whether the light from beyond the field of view is wanted too, for which more iterations
        may be needed than the estimate takes.
    study
        Of the image, where other methods are applied to it too.

    Raises
    ------
    RlnError
        If a PSF is needed and there is none, or no tile is small enough.
    """
    if not settings.needs_psf:
        return FirstEstimate(data=image.data - np.float32(calibration.background))
    if psf is None:
        raise RlnError(
            "this model starts from a classical deconvolution and needs the PSF; give one (`psf`)."
        )
    began = time.perf_counter()
    study = study or Study()
    told = settings.rld()
    tiles = start_tiles(image.shape, psf.shape, told, most_bytes)
    trial = None
    if settings.iterations == "auto":
        stop = yield from study.seek_stop(image, psf, calibration, told, device, began, seen)
        iterations, trial = settings.after(stop.iterations), stop.trial
    else:
        iterations = settings.iterations
    whole = np.empty_like(image.data) if len(tiles) > 1 else None
    watch = None
    # A trial of the whole image tells of it too.
    told_by_trial = trial is not None and trial.is_of(image)
    if outside and whole is None and settings.method == "matched" and not told_by_trial:
        watch = Outside(image, calibration)
    for number, tile in enumerate(tiles):
        part = image.with_data(image.data[tile.window]) if whole is not None else image
        shown = None if seen is None else seen[tile.window]
        run = study.path(part, psf, calibration, told, device, iterations, shown)
        while run.done < iterations:
            change = run.step(measure=False)
            yield RldReport(
                phase="deconvolve",
                iteration=number * iterations + run.done,
                total=len(tiles) * iterations,
                relative_change=change,
                seconds=time.perf_counter() - began,
                part=tile.window if len(tiles) > 1 else (slice(None),) * 3,
                _run=run,
            )
            if watch is not None:
                watch.look(run)
        data = run.estimate()
        # The result will be judged by it: it has to be steady, whatever the estimate is.
        while watch is not None and not watch.look(run):
            run.step(measure=False)
        study.leave_path()  # a network follows, which needs the memory
        del run
        if whole is None:
            light = None if watch is None else watch.light
            return FirstEstimate(data=data, iterations=iterations, outside=light, trial=trial)
        whole[tile.core] = data[tile.inner]
    assert whole is not None
    return FirstEstimate(data=whole, iterations=iterations, trial=trial)


def start_tiles(
    shape: Shape, psf_shape: Shape, told: RldSettings, most_bytes: int | None
) -> tuple[Tile, ...]:
    """Return the largest tiles whose deconvolution fits into the memory, with the PSF's reach.

    Parameters
    ----------
    shape, psf_shape
        (Z, Y, X) of image and PSF.
    told
        What the deconvolution is told.
    most_bytes
        That may be taken; one tile when none.

    Raises
    ------
    RlnError
        If none is small enough.
    """
    z, y, x = (n // 2 + n // 2 % 2 for n in psf_shape)
    halo, core = (z, y, x), shape
    while most_bytes is not None:
        z, y, x = (min(n, c + 2 * h) for n, c, h in zip(shape, core, halo, strict=True))
        needed = rld.memory_bytes((z, y, x), psf_shape, told)
        if needed <= most_bytes:
            break
        smaller = largest_core(core, (0, 0, 0), core[0] * core[1] * core[2] - 1)
        if max(smaller) < 16:
            raise RlnError(
                f"a tile of 16 voxels with the PSF's reach of {halo} on either side takes "
                f"{needed / 1e9:.2f} GB but {most_bytes / 1e9:.2f} GB may be taken; crop the PSF."
            )
        core = smaller
    return plan_tiles(shape, core, halo)
