"""Cache of intermediate results that several methods use for one image.

Richardson-Lucy deconvolution and a network that starts from it need the same calibration, defective
voxels, number of iterations, and sequence of estimates: the network's initial estimate is a few
iterations beyond the end of the deconvolution.
"""

import json
from collections.abc import Callable, Collection, Generator, Hashable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from napari_rln.core.limits import as_dict
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Mask, Volume
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.calibration import (
    Calibration,
    CalibrationSettings,
    calibrate,
    prepare_image,
)
from napari_rln.deconvolution.outside_light import OutsideLight
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.settings import RichardsonLucySettings
from napari_rln.deconvolution.stopping_trial import IterationChoice, find_iterations

T = TypeVar("T")

# Settings that do not change the estimates of a run, or only through the calibration.
_IRRELEVANT = ("iterations", "tolerance", "background", "offset", "gain", "repair_image",
              "negatives", "report_every", "device")  # fmt: skip


class Shared:
    """Cache of intermediate results, passed to all methods that are to share them.

    It holds several volumes; discard it after the last method.

    Attributes
    ----------
    marks : set of int
        Numbers of iterations whose estimates a later method needs too; see :meth:`path`.
    """

    def __init__(self, marks: Iterable[int] = ()) -> None:
        self.marks = set(marks)
        self._results: dict[Hashable, Any] = {}
        self._path: tuple[Hashable, RichardsonLucyIteration, OutsideLight | None] | None = None

    def calibrate(self, image: Volume, settings: CalibrationSettings) -> Calibration:
        """Return the calibration of an image, see :func:`.calibration.calibrate`."""
        key = ("calibration", image.hash, settings.background, settings.offset, settings.gain)
        return self.cached(key, lambda: calibrate(image, settings))

    def prepare(
        self, image: Volume, psf: Volume | None, calibration: Calibration, *, repair: bool
    ) -> tuple[Volume, Mask | None, dict[str, Any]]:
        """Return a prepared image, see :func:`.calibration.prepare_image`; warns once."""
        key = ("measured", image.hash, psf and psf.hash, _text(calibration), repair)
        return self.cached(key, lambda: prepare_image(image, psf, calibration, repair=repair))

    def find_iterations(
        self,
        view: PreparedView,
        settings: RichardsonLucySettings,
        device: torch.device,
        started: float,
    ) -> Generator[Report, None, IterationChoice]:
        """Return :func:`.stopping_trial.find_iterations`, as a generator of reports."""
        key = ("stop", _key(view, settings, device))
        if key not in self._results:
            self._results[key] = yield from find_iterations(view, settings, device, started)
        stop: IterationChoice = self._results[key]
        return stop

    def path(
        self,
        view: PreparedView,
        settings: RichardsonLucySettings,
        device: torch.device,
        iterations: int,
        marks: Collection[int] = (),
        *,
        beyond: bool = False,
    ) -> RichardsonLucyIteration:
        """Return a run with fewer iterations than requested, continued from an earlier method.

        It keeps the estimates after ``marks`` iterations, and those that a later method needs. With
        ``beyond`` it may have more iterations, if it has kept the estimate of those requested.
        """
        key = _key(view, settings, device)
        if self._path is not None:
            run = self._path[1]
            lost = any(mark <= run.done and mark not in run.kept for mark in marks)
            is_usable = run.done < iterations or (beyond and iterations in run.kept)
            if self._path[0] == key and is_usable and not lost:
                return run
        self._path = None  # frees its memory for the next
        kept = self.marks.union(marks)
        run = rld.start_iteration([view], settings, device, marks=kept)
        # A network scales its result with the light, taken at the same iteration by any method.
        watch = OutsideLight(view.image, view.calibration) if kept else None
        self._path = key, run, watch
        return run

    def watch(self, run: RichardsonLucyIteration) -> OutsideLight | None:
        """Return the light from outside in a run of :meth:`path`, after an update.

        To be called after each of its steps; none if no method needs it.
        """
        if self._path is None or self._path[1] is not run:
            return None
        light = self._path[2]
        if light is not None:
            light.update(run)
        return light

    def release_path(self) -> None:
        """Discard the last run of :meth:`path`, and free its memory."""
        self._path = None

    def store_outside(
        self, image: Volume, psf: Volume, calibration: Calibration, light: FloatArray
    ) -> None:
        """Store the light from beyond the field of view, for :meth:`outside`."""
        self._results["outside", image.hash, psf.hash, _text(calibration)] = light

    def outside(self, image: Volume, psf: Volume, calibration: Calibration) -> FloatArray | None:
        """Return the light in an image from beyond its field of view; none if not stored."""
        light: FloatArray | None = self._results.get(
            ("outside", image.hash, psf.hash, _text(calibration))
        )
        return light

    def cached(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the result of a function, called once for each key."""
        if key not in self._results:
            self._results[key] = find()
        result: T = self._results[key]
        return result


def _key(view: PreparedView, settings: RichardsonLucySettings, device: torch.device) -> Hashable:
    """Return a key that is equal for runs with the same estimates."""
    plain = RichardsonLucySettings()
    path = replace(settings, **{name: getattr(plain, name) for name in _IRRELEVANT})
    text = json.dumps(as_dict(path))
    return view.image.hash, view.psf and view.psf.hash, _text(view.calibration), text, str(device)


def _text(calibration: Calibration) -> str:
    return json.dumps(calibration.as_json())
