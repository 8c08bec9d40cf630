"""Trial deconvolution of a part of an image's photons, to determine the number of iterations.

:mod:`napari_rln.deconvolution.stopping` holds the split of the photons and the stopping criterion.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Calibration, Camera
from napari_rln.deconvolution.outside_light import OutsideLight
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.settings import RichardsonLucySettings, start_iteration
from napari_rln.deconvolution.stopping import SplitPhotons, StoppingRule, structured_crop

# Iterations with the matched back projector that gain as much as an accelerated one: without
# acceleration the rule gets every eighth error only: its limits are those of accelerated runs.
_PACE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Trial deconvolution of a part of an image's photons.

    ``view`` holds these as an image in the units of the whole.

    Attributes
    ----------
    run
        Deconvolution, possibly continued.
    best
        Iteration with the best prediction of the held-out photons.
    done
        Number of iterations of the trial.
    restart
        Returns the deconvolution before its first iteration.
    """

    view: PreparedView
    split: SplitPhotons
    run: RichardsonLucyIteration
    best: int
    done: int
    restart: Callable[[], RichardsonLucyIteration]

    def covers(self, image: Volume) -> bool:
        """Return whether the trial covers a whole image, not a crop."""
        return self.view.image.shape == image.shape

    def estimate(self, iterations: int) -> FloatArray:
        """Return the estimate after ``iterations``, or after those of the trial if more."""
        total = max(iterations, self.done)
        run = self.run if self.run.done <= total else self.restart()  # may have been continued
        while run.done < total:
            run.step(measure=False)
        return run.estimate()

    @cached_property
    def outside(self) -> FloatArray:
        """Light in the crop from beyond it, image units; continues the run until it converges."""
        watch = OutsideLight(self.view.image, self.view.calibration)
        while not watch.update(self.run):
            self.run.step(measure=False)
        return watch.light


class IterationChoice(NamedTuple):
    """Number of iterations, and the trial behind it; none for an image without photon noise."""

    iterations: int
    trial: Trial | None = None


def find_iterations(
    whole: PreparedView, settings: RichardsonLucySettings, device: torch.device, started: float
) -> Generator[Report, None, IterationChoice]:
    """Yield reports; return the number of iterations.

    A part of the photons is deconvolved until it predicts the others best. Without photon noise the
    number is ``max_iterations``. ``started`` is ``time.perf_counter()`` at the start.
    """
    image, psf, calibration, mask = whole.image, whole.psf, whole.calibration, whole.mask
    assert psf is not None
    if not calibration.camera.counts_photons:
        return IterationChoice(iterations=settings.max_iterations)
    part = structured_crop(image.data, psf.shape)
    photons = calibration.camera.photons(image.data[part])
    level = calibration.background_photons
    shown = None if mask is None or mask[part].all() else mask[part]
    split = SplitPhotons(
        photons, psf.data, level, calibration.spectrum, settings.seed, mask=shown, device=device
    )
    # The estimate then has the brightness of that of the whole image.
    unit = calibration.camera.gain / split.deconvolved_fraction
    view = PreparedView(
        image=image.with_data(split.image * np.float32(unit)),
        psf=psf,
        calibration=Calibration(camera=Camera(gain=unit), background=unit * split.background),
        mask=shown,
        held_out=split,
    )
    run = start_iteration([view], settings, device)
    slow = settings.back_projector == "matched" and not settings.accelerated
    watch, pace = StoppingRule(), _PACE if slow else 1
    # A step returns the error of the estimate before it, so there is one step more.
    run.step()
    for done in range(1, settings.max_iterations + 1):
        change = run.step()
        yield Report(
            phase="stop",
            done=done,
            total=settings.max_iterations,
            relative_change=change,
            seconds=time.perf_counter() - started,
            held_out=run.error,
            part=part,
            snapshot=run.estimate,
        )
        if done % pace == 0 and watch.add(run.error):
            break
    iterations = min(split.whole(watch, pace), settings.max_iterations)
    trial = Trial(
        view=view, split=split, run=run, best=pace * watch.iteration, done=run.done,
        restart=lambda: start_iteration([view], settings, device),
    )  # fmt: skip
    return IterationChoice(iterations=iterations, trial=trial)
