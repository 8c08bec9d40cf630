"""Time that a training is expected to take, by its settings and earlier trainings here."""

import math
from dataclasses import dataclass

from napari_rln.core.device import resolve_device
from napari_rln.core.report import duration
from napari_rln.core.volume import Shape
from napari_rln.engine.history import expected_seconds, remember
from napari_rln.train.examples import LARGEST_CROP
from napari_rln.train.pool import FIRST
from napari_rln.train.timing import Timing
from napari_rln.train.training_settings import TrainReport, TrainSettings

# Seconds on two cores, measured, where no training has run yet: to prepare a voxel of a volume and
# its margins, from images alone less; and to train on a voxel of a patch, with the tests.
_PREPARATION, _FROM_IMAGES, _STEP = 2.4e-6, 0.8e-6, 3.1e-6
_ALONE = 0.5  # of the time for a volume and its scores, for the volume


@dataclass(frozen=True, kw_only=True)
class ExpectedTime:
    """Seconds of the preparation, and of the training; none where not known."""

    preparation: float
    training: float | None

    def __str__(self) -> str:
        first = f"{duration(self.preparation, approximate=True)} of preparation"
        if self.training is None:
            return f"{first}; the time of the training is known after its first steps"
        return f"{first}, then {duration(self.training, approximate=True)} of training"


def expected_time(settings: TrainSettings, psf_shape: Shape) -> ExpectedTime:
    """Return the expected time of a training with a PSF of a shape (z, y, x)."""
    device = resolve_device(settings.device).type
    most = settings.validate, min(FIRST, settings.examples)
    volume = expected_seconds(_preparation(settings), "cpu", _volume_voxels(settings, psf_shape))
    if volume is None:
        rate = _FROM_IMAGES if settings.start_settings.method == "image" else _PREPARATION
        volume = rate * _volume_voxels(settings, psf_shape)
    if settings.steps is None:
        most = Timing(settings).volumes_in_time(_ALONE * volume, most)
        preparation = volume * sum(most)
        left = max(60 * settings.minutes - preparation, 0.0)
        return ExpectedTime(preparation=preparation, training=left)
    voxels = settings.steps * _step_voxels(settings)
    training = expected_seconds(_steps(settings), device, voxels)
    if training is None and device == "cpu" and settings.architecture == "rln":
        training = _STEP * voxels
    return ExpectedTime(preparation=volume * sum(most), training=training)


class MeasuredTime:
    """Time that a training takes by its reports, for the next one."""

    def __init__(self) -> None:
        self._volumes = 0
        self._preparation = 0.0
        self._steps: list[TrainReport] = []  # the first one's and the last one's

    def add(self, report: TrainReport) -> None:
        """Measure the training up to a report."""
        if report.phase == "train":
            self._steps = [*self._steps[:1], report]
            return
        self._preparation = report.seconds
        if report.phase == "examples":
            self._volumes = report.total

    def remember(self, settings: TrainSettings, psf_shape: Shape, *, whole: bool) -> None:
        """Keep the time of an ended training; of its steps alone if it is not the ``whole``."""
        if whole and self._volumes:
            voxels = self._volumes * _volume_voxels(settings, psf_shape)
            remember(_preparation(settings), "cpu", voxels, {"seconds": self._preparation})
        if len(self._steps) == 2:
            first, last = self._steps
            voxels = (last.step - first.step) * _step_voxels(settings)
            device = resolve_device(settings.device).type
            seconds = last.seconds - first.seconds
            remember(_steps(settings), device, voxels, {"seconds": seconds})


def _preparation(settings: TrainSettings) -> str:
    """Return the name of the preparation, by which its time is remembered."""
    return f"training volumes {settings.start_settings.method}"


def _steps(settings: TrainSettings) -> str:
    """Return the name of the training steps, by which their time is remembered."""
    return f"training steps {settings.architecture}"


def _volume_voxels(settings: TrainSettings, psf_shape: Shape) -> int:
    """Return the voxels of a volume with its margins, on which its time depends."""
    sizes = zip(settings.shape, psf_shape, LARGEST_CROP, strict=True)
    return math.prod(n + min(m, largest) for n, m, largest in sizes)


def _step_voxels(settings: TrainSettings) -> int:
    return settings.batch * settings.patch**3
