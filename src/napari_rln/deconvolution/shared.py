"""What is found out about an image, kept for the next method: work that is done once.

Richardson-Lucy deconvolution and a network that starts from it need the same of an image: its
calibration, its bad voxels, where to stop, and the path of estimates, on which the network starts a
few iterations beyond the point where the deconvolution ends.
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

# Of the settings of a run, those that do not change its path, or only through the calibration.
_NO_MATTER = ("iterations", "tolerance", "background", "offset", "gain", "repair_image",
              "negatives", "report_every", "device")  # fmt: skip


class Shared:
    """Keeps what methods find out about images and PSFs, for others that are given it too.

    It holds some volumes; let go of it when the methods are done.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._path: tuple[Hashable, RichardsonLucyIteration] | None = None

    def calibrate(self, image: Volume, known: Known) -> Calibration:
        """Return the calibration of an image, as :func:`.calibration.calibrate` does."""
        key = ("calibration", image.hash, known.background, known.offset, known.gain)
        return self.once(key, lambda: calibrate(image, known))

    def measure(
        self, image: Volume, psf: Volume | None, calibration: Calibration, *, repair: bool
    ) -> tuple[Volume, Mask | None, dict[str, Any]]:
        """Do what :func:`.calibration.measured_volume` does; its warnings come once."""
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
        """Yield reports, return where to stop, as :func:`.stopping_trial.seek_stop` does."""
        key = ("stop", _key(image, psf, calibration, settings, device))
        if key not in self._found:
            steps = seek_stop(image, psf, calibration, settings, device, began, seen)
            self._found[key] = yield from steps
        found: Stop = self._found[key]
        return found

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
        """Return a run from the start, or as far on as another method has left it.

        Parameters
        ----------
        image, psf, calibration, settings, device, seen
            As for :func:`napari_rln.deconvolution.settings.start`.
        iterations
            That will be done: it is less far on than that.
        """
        key = _key(image, psf, calibration, settings, device)
        if self._path is None or self._path[0] != key or self._path[1].done >= iterations:
            self._path = None  # before there is memory for another
            self._path = key, rld.start(image, psf, calibration, settings, device, seen=seen)
        return self._path[1]

    def leave_path(self) -> None:
        """Let go of the run that :meth:`path` returned last, and of its memory."""
        self._path = None

    def keep_outside(
        self, image: Volume, psf: Volume, calibration: Calibration, light: FloatArray
    ) -> None:
        """Keep the light from beyond the field of view, for who asks for :meth:`outside`."""
        self._found["outside", image.hash, psf.hash, _text(calibration)] = light

    def outside(self, image: Volume, psf: Volume, calibration: Calibration) -> FloatArray | None:
        """Return the light in an image from beyond its field of view; none if nobody found it."""
        found: FloatArray | None = self._found.get(
            ("outside", image.hash, psf.hash, _text(calibration))
        )
        return found

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return what a function finds, or found for the same key before."""
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found


def _key(
    image: Volume,
    psf: Volume,
    calibration: Calibration,
    settings: RichardsonLucySettings,
    device: torch.device,
) -> Hashable:
    """Return what is the same for two runs on one path."""
    plain = RichardsonLucySettings()
    path = replace(settings, **{name: getattr(plain, name) for name in _NO_MATTER})
    return image.hash, psf.hash, _text(calibration), json.dumps(as_dict(path)), str(device)


def _text(calibration: Calibration) -> str:
    return json.dumps(calibration.as_json())
