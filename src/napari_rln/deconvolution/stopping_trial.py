"""Where to stop a deconvolution: a part of the photons is deconvolved as a trial.

:mod:`napari_rln.deconvolution.stopping` holds how photons are split and by what a trial is ended.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Calibration, Camera, Mask
from napari_rln.deconvolution.outside_light import Outside
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.settings import RichardsonLucySettings, Seen, start_views
from napari_rln.deconvolution.stopping import SplitPhotons, Watch, telling_crop


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """The deconvolution of a part of an image's photons, by which the stop was found.

    Attributes
    ----------
    view
        The photons that were deconvolved, as an image in the units of the whole.
    split
        Those and the others.
    run
        The deconvolution.
    best
        Iterations after which it predicted the other photons best.
    sought
        Iterations that were done to find that.
    begin
        Returns the same deconvolution at its beginning.
    """

    view: Seen
    split: SplitPhotons
    run: RichardsonLucyIteration
    best: int
    sought: int
    begin: Callable[[], RichardsonLucyIteration]

    def is_of(self, image: Volume) -> bool:
        """Tell whether all of an image was deconvolved, not a part of it."""
        return self.view.image.shape == image.shape

    def estimate(self, iterations: int) -> FloatArray:
        """Return the estimate after so many iterations, or as many as were sought in if more."""
        wanted = max(iterations, self.sought)
        run = self.run if self.run.done <= wanted else self.begin()  # others may have gone on
        while run.done < wanted:
            run.step(measure=False)
        return run.estimate()

    @cached_property
    def outside(self) -> FloatArray:
        """The light in the part from beyond it, image units, for which more iterations are done."""
        watch = Outside(self.view.image, self.view.calibration)
        while not watch.look(self.run):
            self.run.step(measure=False)
        return watch.light


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
    settings: RichardsonLucySettings,
    device: torch.device,
    began: float,
    seen: Mask | None = None,
) -> Generator[Report, None, Stop]:
    """Yield reports; return where to stop.

    A part of the photons is deconvolved until it predicts the others best. Without noise it is the
    most that the settings allow.

    Parameters
    ----------
    image, psf
        As :func:`napari_rln.deconvolution.settings.check_pair` passed them.
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
        yield Report(
            phase="stop",
            done=done,
            total=settings.max_iterations,
            relative_change=change,
            seconds=time.perf_counter() - began,
            held_out=run.error,
            part=part,
            snapshot=run.estimate,
        )
        if watch.add(run.error):
            break
    iterations = min(split.whole(watch), settings.max_iterations)
    trial = Trial(
        view=view, split=split, run=run, best=watch.iteration, sought=run.done,
        begin=lambda: start_views([view], settings, device),
    )  # fmt: skip
    return Stop(iterations=iterations, trial=trial)
