"""The initial estimate of a network.

For the paper's network it is the image. For the started variant it is a classical deconvolution
with the PSF of the image, so that one set of weights serves any PSF.
"""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.classical import find_iterations_of, iteration_of, predict_stop
from napari_rln.deconvolution.ladder import COUNTS, Ladder
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.outside_light import OutsideLight
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import RichardsonLucySettings
from napari_rln.deconvolution.stopping import structured_crop, structured_shape
from napari_rln.deconvolution.stopping_trial import Trial

StartMethod = Literal["image", "matched", "wiener-butterworth", "ladder"]

_LARGE = 4  # times the part of an image from which its stop is predicted


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """Settings of the initial estimate.

    Parameters
    ----------
    method
        Initial estimate: image, as in the paper; a classical deconvolution with the matched or
        wiener-butterworth back projector; or ladder, a matched one whose best number of iterations
        is predicted, with further estimates (:mod:`napari_rln.deconvolution.ladder`).
    iterations
        Number of iterations of the classical deconvolution, or auto: by the image's noise, for
        initial estimates of equal quality. Not used by a ladder.
    beyond
        Factor on the number of iterations of auto: the network removes noise better than blur,
        about which it has information from the initial estimate alone.
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
        """Whether the initial estimate needs a PSF."""
        return self.method != "image"

    def after(self, stop: int) -> int:
        """Return the number of iterations for that of auto."""
        return max(1, round(self.beyond * stop))

    def rld(self) -> RichardsonLucySettings:
        """Return the settings of the classical deconvolution."""
        return RichardsonLucySettings(
            iterations=COUNTS[-1] if self.method == "ladder" else self.iterations,
            back_projector=(self.method if self.method == "wiener-butterworth" else "matched"),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialEstimate:
    """Initial estimate of a network, image units, background removed.

    Attributes
    ----------
    data
        (Z, Y, X) float32; with a ladder (n, Z, Y, X), the last the initial estimate.
    stop
        Predicted best number of iterations; none without a ladder.
    iterations
        Number of iterations of the classical deconvolution; 0 for the image.
    outside
        (Z, Y, X) float32, light in the image from beyond the field of view; none if not requested,
        without a matched deconvolution of the whole, or if the trial has it.
    trial
        Trial that determined the number of iterations; none if that is fixed, or without photon
        noise.
    """

    data: FloatArray
    stop: float | None = None
    iterations: int = 0
    outside: FloatArray | None = None
    trial: Trial | None = None


def initial_estimate(
    observation: Observation,
    start: StartSettings,
    ladder: Ladder | None = None,
    *,
    outside: bool = False,
) -> Generator[Report, None, InitialEstimate]:
    """Yield reports of a classical deconvolution; return the initial estimate of an observation.

    With a ladder there are several estimates, and the number of iterations is predicted. With
    ``outside`` the light from beyond the field of view is estimated too, which may need more.

    Raises
    ------
    RlnError
        If a PSF is needed but missing.
    """
    image, calibration = observation.image, observation.calibration
    if not start.needs_psf:
        return InitialEstimate(data=image.data - np.float32(calibration.background))
    if observation.psf is None:
        raise RlnError(
            "this model starts from a classical deconvolution and needs the PSF; give one (`psf`)."
        )
    settings, trial, best = start.rld(), None, None
    single = len(observation.views) == 1
    if settings.iterations == "auto":
        stop = yield from find_iterations_of(observation, settings)
        iterations, trial = start.after(stop.iterations), stop.trial
    else:
        iterations = settings.iterations
    if ladder is not None and single:  # the result is scaled with it
        outside = True
    known = trial is not None and trial.covers(image)  # a trial of the whole image has it too
    outside = outside and settings.back_projector == "matched" and not known
    if ladder is not None:
        # Of two views the first on its own voxels: interpolation would correlate its noise. As each
        # corrects the estimate, their joint iterations are fewer (benchmarks/dual.py).
        view = observation.views[0] if single else observation.original
        part = _small_part(view)
        if part is None and not single:
            part = view
        if part is not None:
            best = yield from predict_stop(
                part, ladder, settings, observation.device, observation.started
            )
            if not single:
                best = max(COUNTS[0], best / len(observation.views) ** 0.5)
            iterations = ladder.iterations(best)
    if not single:  # the stop is that of the first view alone
        settings = replace(settings, start="image")
    marks = () if ladder is None else COUNTS
    run = iteration_of(observation, settings, iterations, marks, beyond=True)
    if ladder is not None and best is None and COUNTS[-1] in run.kept:  # by an earlier method
        best = ladder.predict(observation.views[0], run)
        iterations = ladder.iterations(best)
        run = iteration_of(observation, settings, iterations, marks, beyond=True)
    watch = None
    if outside:
        watch = observation.shared.watch(run) or OutsideLight(image, calibration)
    while run.done < iterations:
        change = run.step(measure=False)
        yield Report(
            phase="deconvolve",
            done=run.done,
            total=iterations,
            relative_change=change,
            seconds=time.perf_counter() - observation.started,
            snapshot=run.estimate,
        )
        if watch is not None:
            watch.update(run)
        if ladder is not None and best is None and run.done == COUNTS[-1]:
            best = ladder.predict(observation.views[0], run)
            iterations = ladder.iterations(best)
    data = run.kept[iterations] if iterations < run.done else run.estimate()
    if ladder is not None and best is not None:
        kept = {count: estimate for count, estimate in run.kept.items() if count <= iterations}
        data = ladder.around(kept | {iterations: data}, best)
    # The residual of the result needs it converged, whatever the number of iterations.
    while watch is not None and not watch.update(run):
        run.step(measure=False)
    observation.shared.release_path()  # frees memory for the network
    light = None if watch is None else watch.light
    return InitialEstimate(data=data, stop=best, iterations=iterations, outside=light, trial=trial)


def _small_part(view: PreparedView) -> PreparedView | None:
    """Return the part of a large image with most structure; none for a smaller image."""
    assert view.psf is not None
    data, mask = view.image.data, view.mask
    if _LARGE * math.prod(structured_shape(data.shape, view.psf.shape)) > data.size:
        return None
    part = structured_crop(data, view.psf.shape)
    return replace(
        view, image=view.image.with_data(data[part]), mask=None if mask is None else mask[part]
    )
