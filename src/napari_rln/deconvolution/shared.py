"""Cache of intermediate results that several methods use for one image.

Richardson-Lucy deconvolution and a network that starts from it need the same calibration, defective
voxels, number of iterations, and sequence of estimates, of which the network's initial estimate is
a few iterations beyond the end of the deconvolution.
"""

import json
from collections.abc import Callable, Generator, Hashable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from napari_rln.core.limits import as_dict
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.calibration import (
    Calibration,
    Known,
    Mask,
    calibrate,
    measured_volume,
)
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.settings import RichardsonLucySettings
from napari_rln.deconvolution.stopping_trial import Stop, seek_stop

T = TypeVar("T")

# Settings that do not change the estimates of a run, or only through the calibration.
_IRRELEVANT = ("iterations", "tolerance", "background", "offset", "gain", "repair_image",
              "negatives", "report_every", "device")  # fmt: skip


class Shared:
    """Cache of intermediate results, passed to all methods that are to share them.

    It holds several volumes; discard it after the last method.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, Any] = {}
        self._path: tuple[Hashable, RichardsonLucyIteration] | None = None

    def calibrate(self, image: Volume, known: Known) -> Calibration:
        """Return the calibration of an image, see :func:`.calibration.calibrate`."""
        key = ("calibration", image.hash, known.background, known.offset, known.gain)
        return self.once(key, lambda: calibrate(image, known))

    def measure(
        self, image: Volume, psf: Volume | None, calibration: Calibration, *, repair: bool
    ) -> tuple[Volume, Mask | None, dict[str, Any]]:
        """Return a prepared image, see :func:`.calibration.measured_volume`; warns once."""
        key = ("measured", image.hash, psf and psf.hash, _text(calibration), repair)
        return self.once(key, lambda: measured_volume(image, psf, calibration, repair=repair))

    def seek_stop(
        self,
        image: Volume,
        psf: Volume,
        calibration: Calibration,
        settings: RichardsonLucySettings,
        device: torch.device,
        began: float,
        seen: Mask | None = None,
    ) -> Generator[Report, None, Stop]:
        """Yield reports, return the number of iterations, see :func:`.stopping_trial.seek_stop`."""
        key = ("stop", _key(image, psf, calibration, settings, device))
        if key not in self._results:
            steps = seek_stop(image, psf, calibration, settings, device, began, seen)
            self._results[key] = yield from steps
        stop: Stop = self._results[key]
        return stop

    def path(
        self,
        image: Volume,
        psf: Volume,
        calibration: Calibration,
        settings: RichardsonLucySettings,
        device: torch.device,
        iterations: int,
        seen: Mask | None = None,
    ) -> RichardsonLucyIteration:
        """Return a new run, or one continued from an earlier method.

        Parameters
        ----------
        image, psf, calibration, settings, device, seen
            As for :func:`napari_rln.deconvolution.settings.start`.
        iterations
            Number of iterations to reach; the run has done fewer.
        """
        key = _key(image, psf, calibration, settings, device)
        if self._path is None or self._path[0] != key or self._path[1].done >= iterations:
            self._path = None  # frees its memory for the next
            self._path = key, rld.start(image, psf, calibration, settings, device, seen=seen)
        return self._path[1]

    def leave_path(self) -> None:
        """Discard the last run of :meth:`path`, and free its memory."""
        self._path = None

    def keep_outside(
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

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the result of a function, called once for each key."""
        if key not in self._results:
            self._results[key] = find()
        result: T = self._results[key]
        return result


def _key(
    image: Volume,
    psf: Volume,
    calibration: Calibration,
    settings: RichardsonLucySettings,
    device: torch.device,
) -> Hashable:
    """Return a key that is equal for runs with the same estimates."""
    plain = RichardsonLucySettings()
    path = replace(settings, **{name: getattr(plain, name) for name in _IRRELEVANT})
    return image.hash, psf.hash, _text(calibration), json.dumps(as_dict(path)), str(device)


def _text(calibration: Calibration) -> str:
    return json.dumps(calibration.as_json())
