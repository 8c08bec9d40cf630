"""Calibration of a whole volume from samples of it, before the first tile.

Background, stop and normalisation for a network: one each for all tiles and all time points of a
series, so that these can be compared.
"""

import math
import time
from collections.abc import Generator, Iterable
from dataclasses import replace

import numpy as np
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import MemoryGb
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.record import array_hash
from napari_rln.core.report import Report
from napari_rln.core.tiles import as_text, blocks, plan_tiles, within
from napari_rln.core.volume import Box, FloatArray, ImageLike, OnGrid, Shape, Volume
from napari_rln.deconvolution.calibration import (
    MOST_VOXELS,
    REPAIR_HALO,
    Calibration,
    Negatives,
    calibrate_parts,
    prepare_data,
    sample_boxes,
)
from napari_rln.deconvolution.method import Json, Method, SampleEstimates, TileStage
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import without_negatives
from napari_rln.deconvolution.stopping import structured_crop, structured_shape
from napari_rln.engine.image_state import ImageState
from napari_rln.io.image import checksum

_PIECE = (32, 256, 256)  # of a sample, processed at once
_STRUCTURE = (32, 64, 64)  # assumed size of a PSF where there is none
_MOST_FURTHER, _FURTHER_DIVISOR = 8, 8  # number of further parts; the volume over the size of each


class Samples:
    """Samples of a volume, representative of the whole.

    In a series they are from the first volume that shows anything: a shutter may have opened late.

    Raises
    ------
    RlnError
        If a sample holds NaN, infinities or invalid negative values, or if all voxels are equal.
    """

    def __init__(self, image: ImageLike, negatives: Negatives) -> None:
        self.boxes = sample_boxes(image.shape)
        self.image = image
        for self.time in range(image.times):
            read = [image.read(box, self.time) for box in self.boxes]
            if any(part.max() > part.min() for part in read):
                break
        else:
            raise RlnError(
                f"all voxels of {image.name} are {float(read[0].max()):g}; there is nothing to "
                "deconvolve."
            )
        # The last volume of a series is sampled too, to identify the image.
        more = [image.read(self.boxes[0], image.times - 1)] if image.times > 1 else []
        self.hash = samples_hash([*read, *more])
        self.parts = [
            without_negatives(part, negatives, f"{image.name} at {as_text(box)}")
            for part, box in zip(read, self.boxes, strict=True)
        ]

    @property
    def voxels(self) -> int:
        """Number of sampled voxels."""
        return sum(part.size for part in self.parts)

    def mean(self, calibration: Calibration) -> float:
        """Return the mean of the measured voxels of the samples, image units.

        Computed piece by piece: a small image is one sample, which would take ten times its memory.
        """
        total, count = 0.0, 0
        for part in self.parts:
            for tile in plan_tiles(part.shape, _PIECE, (REPAIR_HALO,) * 3):
                z = tile.window[0]
                planes = [p - z.start for p in calibration.planes if z.start <= p < z.stop]
                data, mask, _ = prepare_data(part[tile.window], None, calibration, planes=planes)
                shown = data[tile.inner] if mask is None else data[tile.inner][mask[tile.inner]]
                total += float(shown.sum(dtype=np.float64))
                count += shown.size
        return total / max(1, count)

    def structure(self, psf_shape: Shape) -> Box:
        """Return the part of the volume with most structure, as :func:`structured_crop` does."""
        shape = self.image.shape
        if len(self.parts) == 1:
            crop = structured_crop(self.parts[0], psf_shape)
            z, y, x = (slice(*part.indices(n)) for part, n in zip(crop, shape, strict=True))
            return z, y, x
        energies = [np.square(part, dtype=np.float64).mean() for part in self.parts]
        best = self.boxes[int(np.argmax(energies))]
        size = structure_size(shape, psf_shape)
        starts = [
            min(max(0, (part.start + part.stop - s) // 2), n - s)
            for part, s, n in zip(best, size, shape, strict=True)
        ]
        z, y, x = (slice(a, a + s) for a, s in zip(starts, size, strict=True))
        return z, y, x


def samples_hash(parts: Iterable[FloatArray]) -> str:
    """Return the hash of samples, which identifies an image in the record of a result on disk."""
    hashes = [int(array_hash(part), 16) for part in parts]
    return array_hash(np.array(hashes, np.uint64))


def structure_size(shape: Shape, psf_shape: Shape) -> Shape:
    """Return the size (z, y, x) of the part of a volume with most structure."""
    if len(sample_boxes(shape)) == 1:
        return structured_shape(shape, psf_shape)
    return structured_shape((min(shape[0], max(2 * psf_shape[0], 64)), *shape[1:]), psf_shape)


def sampled_bytes(image: OnGrid) -> int:
    """Return the memory of the samples of an image, bytes."""
    boxes = sample_boxes(image.shape)
    return 4 * sum(int(math.prod(p.stop - p.start for p in box)) for box in boxes)


def search_bytes(shape: Shape, psf: Volume | None, stage: TileStage | None) -> int:
    """Return the memory for deconvolving the part of an image with most structure, bytes."""
    if psf is None or stage is None:
        return 0
    return stage.search_bytes(structure_size(shape, psf.shape), psf.shape)


def spread_boxes(shape: Shape, size: Shape) -> list[Box]:
    """Return boxes spread over a volume, each of an eighth of it or less."""
    voxels = size[0] * size[1] * size[2]
    whole = shape[0] * shape[1] * shape[2]
    most = min(_MOST_FURTHER, whole // (_FURTHER_DIVISOR * voxels), MOST_VOXELS // voxels)
    return list(blocks(shape, size, most)) if most else []


def calibrate_samples(
    samples: Samples,
    psf: Volume | None,
    method: Method,
    device: torch.device,
    memory_gb: MemoryGb = "auto",
) -> Generator[Report, None, ImageState]:
    """Yield reports, return the basis of the plan: calibration and shared state of the stages.

    Raises
    ------
    RlnError
        If nothing stands above the background.
    """
    started = time.perf_counter()
    image = samples.image
    box = samples.structure(psf.shape if psf is not None else _STRUCTURE)
    calibration = calibrate_parts(samples.parts, image.name, method, image.fill)
    release_freed_memory()  # otherwise the memory of the next step would add to that of this one
    tiles: Json = {}
    fitted: Json = {}
    if method.tiles is not None:
        assert psf is not None
        crop = prepared_crop(image, box, calibration, psf, method, samples.time)
        tiles, trial = yield from method.tiles.search(crop, device, started)
        release_freed_memory()
        if method.blocks is not None:
            fitted = method.blocks.fit(trial, device, memory_gb)
    return ImageState(
        hash=samples.hash,
        time=samples.time,
        sampled=samples.voxels,
        calibration=calibration.as_json(),
        mean=samples.mean(calibration),
        structure=[[part.start, part.stop] for part in box],
        tiles=tiles,
        blocks=fitted,
    )


def fit_stages(
    samples: Samples,
    psf: Volume | None,
    method: Method,
    state: ImageState,
    device: torch.device,
    *,
    whole: bool,
) -> Generator[Report, None, tuple[ImageState, FloatArray | None]]:
    """Yield reports; return the shared state of the tiles, and the result of a single tile.

    ``state`` is the result of :func:`calibrate_samples`. With ``whole`` the plan has a single tile,
    which is deconvolved here, so that the shared state is exact; otherwise parts of the volume are.

    Raises
    ------
    RlnError
        If the image is flat.
    """
    image, stage, second = samples.image, method.tiles, method.blocks
    needs_estimates = second is not None and second.fits_estimates
    crops: list[PreparedView] = []
    sampled = SampleEstimates({}, [], [])
    estimate = None
    # A single tile is computed here if the second stage needs it, else by a worker.
    if stage is not None and (needs_estimates or not whole):
        assert psf is not None
        z, y, x = (slice(start, stop) for start, stop in state.structure)
        boxes: list[Box] = [(z, y, x)]
        if whole:
            z, y, x = (slice(0, n) for n in image.shape)
            boxes = [(z, y, x)]
        elif needs_estimates:
            size = z.stop - z.start, y.stop - y.start, x.stop - x.start
            boxes += spread_boxes(image.shape, size)
        calibration = state.calibrated
        crops = [prepared_crop(image, box, calibration, psf, method, samples.time) for box in boxes]
        level = None if whole else state.level
        sampled = yield from stage.sample(crops, state.tiles, level, device, time.perf_counter())
        state = replace(state, tiles=state.tiles | sampled.shared)
        estimate = sampled.estimates[0] if whole else None
    if second is not None:
        fitted = second.fit_range(
            samples.parts, state.background, crops, sampled, device, whole=whole
        )
        state = replace(state, blocks=state.blocks | fitted)
    return state, estimate


def prepared_crop(
    image: ImageLike,
    box: Box,
    calibration: Calibration,
    psf: Volume | None,
    method: Method,
    time: int = 0,
) -> PreparedView:
    """Return a part of a volume prepared for deconvolution, with its mask of measured voxels."""
    return PaddedPart(image, box, method, time).prepared(calibration, psf, method)


class PaddedPart:
    """A part of an image, read with the margin for detecting defective voxels.

    Raises
    ------
    RlnError
        If the part holds invalid negative values.
    """

    def __init__(self, image: ImageLike, box: Box, method: Method, time: int = 0) -> None:
        z, y, x = (
            slice(max(0, part.start - REPAIR_HALO), min(n, part.stop + REPAIR_HALO))
            for part, n in zip(box, image.shape, strict=True)
        )
        self._image, self._box = image, box
        self._inner, self._planes = within(box, (z, y, x)), z
        data = image.read((z, y, x), time)
        where = f"{image.name} at {as_text((z, y, x))}"
        self._data: FloatArray | None = without_negatives(data, method.negatives, where)

    def checksum(self, part: Box) -> str:
        """Return the checksum of a part (z, y, x) of the box; call before :meth:`prepared`."""
        assert self._data is not None
        return checksum(self._data[self._inner][part])

    def prepared(
        self, calibration: Calibration, psf: Volume | None, method: Method
    ) -> PreparedView:
        """Return the part prepared for deconvolution with its mask, as of the whole; call once."""
        assert self._data is not None
        z, data = self._planes, self._data
        self._data = None
        planes = [p - z.start for p in calibration.planes if z.start <= p < z.stop]
        kernel = None if psf is None else psf.data
        data, mask, _ = prepare_data(
            data, kernel, calibration, repair=method.repair_image, planes=planes
        )
        mask = None if mask is None or mask[self._inner].all() else mask[self._inner].copy()
        inside = np.ascontiguousarray(data[self._inner])
        volume = Volume(data=inside, voxel_um=self._image.voxel_um, name=self._image.name)
        z, y, x = (part.start for part in self._box)
        return PreparedView(
            image=volume, psf=psf, calibration=calibration, mask=mask, origin=(z, y, x)
        )
