"""Results that are open without a run in this dock, and the images that they were made of.

A dock that was closed and opened again finds its results so, as does one for saved results. The
record of a result has the hashes of its image and PSF, which are searched for among the layers.
Of an image that was deconvolved on disk it is that of samples.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rln.core.errors import RlnError, capture_warnings
from napari_rln.deconvolution.calibration import sample_boxes
from napari_rln.engine.progress import Progress
from napari_rln.engine.sampling import samples_hash
from napari_rln.gui.compare.compared_image import WINDOW, ComparedImage
from napari_rln.gui.deconvolve.chosen_method import Inputs, StatedPsf
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.deconvolve.region import sample_of
from napari_rln.gui.deconvolve.streams import COMPARED, RESULTS
from napari_rln.gui.events import follow
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.layers import (
    SERIES,
    UNFINISHED,
    LayerImage,
    is_image,
    is_psf,
    record_of,
    source_of,
)
from napari_rln.psf.examine import fit_psf

_LARGEST, _LARGEST_PSF = 300_000_000, 2_000_000  # voxels of volumes that are read whole to look at

StatedPsfOf = Callable[[LayerImage], StatedPsf | None]


class _Task(NamedTuple):
    """Search for an image."""

    name: str  # its hash
    result: LayerImage
    images: list[tuple[LayerImage, StatedPsf | None]]
    psfs: list[LayerImage]


class OpenResults(QObject):
    """Search for the images of open results, in a background job."""

    ended = Signal(object)  # a search, with a list of the ComparedImages that are found

    def __init__(
        self,
        viewer: ViewerModel,
        jobs: JobQueue,
        stated_psf: StatedPsfOf,
        known: Callable[[], Collection[str]],
        parent: QObject,
    ) -> None:
        """Search in a viewer; ``known`` returns the hashes of the images that need no search."""
        super().__init__(parent)
        self._viewer, self._jobs, self._stated_psf, self._known = viewer, jobs, stated_psf, known
        self._hashes: WeakKeyDictionary[Layer, dict[Any, str]] = WeakKeyDictionary()
        self._searched: Any = None  # what the last search was for, and among what
        self._is_searching = False
        QTimer.singleShot(0, self.search)  # a result that just finished is known then
        follow(self, viewer.layers.events.inserted, self.search)

    @property
    def without_image(self) -> list[str]:
        """Names of the open results whose image is not found."""
        return [layer.name for layers in self._wanted().values() for layer in layers]

    def search(self) -> None:
        """Queue a search if there are results of unknown images, and new layers to look at."""
        wanted, point = self._wanted(), self._viewer.dims.point
        others = [layer for layer in self._viewer.layers if _may_be_input(layer)]
        searched = [*wanted], [(id(layer), id(layer.data)) for layer in others]
        if self._is_searching or not wanted or not others or searched == self._searched:
            return
        volumes = [volume for layer in others for volume in _volumes(layer, point)]
        tasks = [
            _Task(name, source_of(layers[0], point), self._images(volumes), _psfs(volumes))
            for name, layers in wanted.items()
        ]

        def steps() -> Steps[list[ComparedImage]]:
            found = []
            for task in tasks:
                yield Update(Progress(activity=f"looking for the image of {task.result.name}"))
                for image, stated in task.images:
                    for part in _parts(image, task.result):
                        yield None
                        if self._hash_of(part, _samples_hash) == task.name:
                            # Compared in a part, as after the run.
                            found.append(_compared(task, part, sample_of(part), stated))
                        elif self._hash_of(part, _whole_hash) == task.name:
                            found.append(_compared(task, part, part, stated))
            return found

        job = BackgroundJob(
            "open results", steps, done=self._done, stopped=self._stopped, end_note="",
            window=WINDOW,
        )  # fmt: skip
        self._searched, self._is_searching = searched, True
        self._jobs.add(job)

    def _images(self, volumes: list[LayerImage]) -> list[tuple[LayerImage, StatedPsf | None]]:
        """Return volumes that are no PSFs, with the PSFs by the optics that their files state."""
        images: list[tuple[LayerImage, StatedPsf | None]] = []
        for volume in volumes:
            if not is_psf(volume.layer):
                stated = None
                with contextlib.suppress(RlnError):  # the file contradicts itself
                    stated = self._stated_psf(volume)
                images.append((volume, stated))
        return images

    def _wanted(self) -> dict[str, list[Image]]:
        """Return the results of unknown images, by the hash of the image."""
        wanted: dict[str, list[Image]] = {}
        known = self._known()
        for layer in self._viewer.layers:
            record = record_of(layer)
            if isinstance(layer, Image) and record is not None and record.method in RESULTS:
                name = record.inputs.get("image")
                if name and name not in known:
                    wanted.setdefault(name, []).append(layer)
        return wanted

    def _hash_of(self, image: LayerImage, compute: Callable[[LayerImage], str]) -> str:
        """Return a hash of a volume, computed once; empty if it cannot be read."""
        hashes = self._hashes.setdefault(image.layer, {})
        key = id(image.layer.data), image.key, compute
        if key not in hashes:
            with contextlib.suppress(RlnError):
                hashes[key] = compute(image)
        return hashes.get(key, "")

    def _done(self, found: list[ComparedImage]) -> None:
        self._is_searching = False
        runs: dict[Any, PastRun] = {}
        for each in found:  # channels of one file are shown together
            layer = each.inputs.image.layer
            file = layer.source.path, layer.metadata.get(SERIES)
            each.run = runs.setdefault(file if file[0] else each, each.run)
        self.ended.emit(found)
        self.search()  # among layers that were added meanwhile

    def _stopped(self, reason: str) -> None:
        self._is_searching = False


def _samples_hash(image: LayerImage) -> str:
    boxes = sample_boxes(image.shape)
    return samples_hash(image.cropped(box).read().data for box in boxes)


def _whole_hash(image: LayerImage) -> str:
    """Return the hash of all voxels; none if they are too many to read."""
    return image.read().hash if np.prod(image.shape, dtype=float) <= _LARGEST else ""


def _compared(
    task: _Task, image: LayerImage, part: LayerImage, stated: StatedPsf | None
) -> ComparedImage:
    """Return the part to compare of an image, with the PSF of its result if that is found too."""
    assert task.result.record is not None
    name = task.result.record.inputs.get("psf")
    psf: LayerImage | StatedPsf | None = None
    repair: bool | None = True
    if name is not None:
        for psf in (*task.psfs, *([stated] if stated else ())):
            repair = _repair_of(psf, image, name)
            if repair is not None:
                break
        else:
            psf = None
    inputs = Inputs(image=part, psf=psf, repair=bool(repair))
    run = PastRun(image=image.name, psf=psf.name if psf else "", methods=[])
    return ComparedImage(key=task.name, inputs=inputs, run=run)


def _may_be_input(layer: Layer) -> bool:
    """Return whether a layer may be the image or PSF of a result."""
    record = record_of(layer)
    made = UNFINISHED in layer.metadata or (record and record.method in (*COMPARED, "check"))
    return is_image(layer) and not layer.rgb and not made


def _psfs(volumes: list[LayerImage]) -> list[LayerImage]:
    """Return the volumes that may be PSFs, the likely ones first."""
    small = [each for each in volumes if np.prod(each.shape, dtype=float) <= _LARGEST_PSF]
    return sorted(small, key=lambda each: not is_psf(each.layer))


def _volumes(layer: Layer, point: Any) -> Iterator[LayerImage]:
    """Yield the volumes of a layer, the displayed one first."""
    with contextlib.suppress(RlnError):
        shown = source_of(layer, point)
        yield shown
        if not isinstance(layer.data, np.ndarray) or layer.data.ndim <= 3:
            return
        for index in np.ndindex(layer.data.shape[:-3]):
            other = source_of(layer, layer.data_to_world((*index, 0, 0, 0)))
            if other.indices != shown.indices:
                yield other


def _parts(image: LayerImage, result: LayerImage) -> Iterator[LayerImage]:
    """Yield an image, or its part with the shape and place of a result, which may be of it."""
    if image.shape == result.shape or image.voxel_um != result.voxel_um:
        yield image  # two views have a result on other voxels
        return
    offset = np.subtract(result.transform["translate"], image.transform["translate"])
    start = np.rint(offset / image.transform["scale"]).astype(int)
    first = [0] * (3 - start.size) + start.tolist()
    last = np.add(first, result.shape)
    if min(first) >= 0 and np.all(last <= image.shape):
        with contextlib.suppress(RlnError):  # rotated
            yield image.cropped([slice(*each) for each in zip(first, last.tolist(), strict=True)])


def _repair_of(psf: LayerImage | StatedPsf, image: LayerImage, name: str) -> bool | None:
    """Return whether a PSF was repaired for a run on an image; None if it is not the run's."""
    with capture_warnings(lambda message: None), contextlib.suppress(RlnError):
        volume = psf.read()
        for repair in (True, False):
            with contextlib.suppress(RlnError):
                if fit_psf(volume, image, repair=repair)[0].hash == name:
                    return repair
    return None
