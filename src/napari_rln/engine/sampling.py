"""What has to be known of a whole volume before its first tile, found in samples of it.

The background, when to stop, the map to the network's range: one each for all tiles, and for all
time points of a series, so that these can be compared.
"""

import math
import time
from collections.abc import Generator
from dataclasses import asdict, replace

import numpy as np
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import relay
from napari_rln.core.machine import LIBRARIES_BYTES
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.record import array_hash
from napari_rln.core.tiles import Shape, as_text, blocks, plan_tiles, within
from napari_rln.core.volume import Box, FloatArray, Volume
from napari_rln.deconvolution import rld_settings as rld
from napari_rln.deconvolution.calibration import (
    MOST_VOXELS,
    REPAIR_HALO,
    Calibration,
    Mask,
    Negatives,
    calibrate_parts,
    measured,
    sample_boxes,
)
from napari_rln.deconvolution.rld_settings import RldReport, RldSettings, without_negatives
from napari_rln.deconvolution.stopping import telling_crop, telling_shape
from napari_rln.deconvolution.stopping_trial import seek_stop
from napari_rln.engine.job import Settings
from napari_rln.engine.reports import LargeReport
from napari_rln.engine.request import LargeRun
from napari_rln.engine.whole_image import Statistics
from napari_rln.io.image import Image, checksum
from napari_rln.networks.application import consistency_of
from napari_rln.networks.inference import Folded
from napari_rln.networks.normalisation import HIGH, LOW, brightness
from napari_rln.networks.rln_settings import SPLIT_BYTES, RlnSettings, bytes_allowed

_LEAST_BYTES = 60_000_000  # for a network, of which the smallest tiles take some 30 MB
_PIECE = (32, 256, 256)  # of a sample, that is looked at at once
_TELLING = (32, 64, 64)  # size of a PSF in whose stead there is none
_MOST_FURTHER, _FURTHER_SHARE = 8, 8  # parts deconvolved besides, and what they are of a volume


class Samples:
    """Parts of a volume of a source that stand for the whole.

    Of a series it is the first volume that shows anything: a shutter may have opened late.

    Parameters
    ----------
    source
        To be looked at.
    negatives
        What to do with negative voxels.

    Raises
    ------
    RlnError
        If a sample holds NaN, infinities or negative values that must not be, or if all voxels
        have one value.
    """

    def __init__(self, source: Image, negatives: Negatives) -> None:
        self.boxes = sample_boxes(source.shape)
        self.source = source
        for self.time in range(source.times):
            read = [source.read(box, self.time) for box in self.boxes]
            if any(part.max() > part.min() for part in read):
                break
        else:
            raise RlnError(
                f"all voxels of {source.name} are {float(read[0].max()):g}; there is nothing to "
                "deconvolve."
            )
        # Of a series the last volume is looked at too, by which the image is known again.
        more = [source.read(self.boxes[0], source.times - 1)] if source.times > 1 else []
        hashes = [int(array_hash(part), 16) for part in (*read, *more)]
        self.hash = array_hash(np.array(hashes, np.uint64))
        self.parts = [
            without_negatives(part, negatives, f"{source.name} at {as_text(box)}")
            for part, box in zip(read, self.boxes, strict=True)
        ]

    @property
    def voxels(self) -> int:
        """How many were looked at."""
        return sum(part.size for part in self.parts)

    def mean(self, calibration: Calibration) -> float:
        """Return the mean of what was measured in the samples, image units.

        Piece by piece, as a small image is one sample and all at once would take ten times its
        memory.
        """
        total, count = 0.0, 0
        for part in self.parts:
            for tile in plan_tiles(part.shape, _PIECE, (REPAIR_HALO,) * 3):
                z = tile.window[0]
                planes = [p - z.start for p in calibration.planes if z.start <= p < z.stop]
                data, seen, _ = measured(part[tile.window], None, calibration, planes=planes)
                shown = data[tile.inner] if seen is None else data[tile.inner][seen[tile.inner]]
                total += float(shown.sum(dtype=np.float64))
                count += shown.size
        return total / max(1, count)

    def telling(self, psf_shape: Shape) -> Box:
        """Return the part of the volume with most structure, as :func:`telling_crop` does."""
        shape = self.source.shape
        if len(self.parts) == 1:
            crop = telling_crop(self.parts[0], psf_shape)
            z, y, x = (slice(*part.indices(n)) for part, n in zip(crop, shape, strict=True))
            return z, y, x
        energies = [np.square(part, dtype=np.float64).mean() for part in self.parts]
        best = self.boxes[int(np.argmax(energies))]
        size = telling_size(shape, psf_shape)
        starts = [
            min(max(0, (part.start + part.stop - s) // 2), n - s)
            for part, s, n in zip(best, size, shape, strict=True)
        ]
        z, y, x = (slice(a, a + s) for a, s in zip(starts, size, strict=True))
        return z, y, x


def telling_size(shape: Shape, psf_shape: Shape) -> Shape:
    """Return the size (z, y, x) of the part of a volume with most structure."""
    if len(sample_boxes(shape)) == 1:
        return telling_shape(shape, psf_shape)
    return telling_shape((min(shape[0], max(2 * psf_shape[0], 64)), *shape[1:]), psf_shape)


def sampled_bytes(source: Image) -> int:
    """Return how much memory the samples of a source take."""
    boxes = sample_boxes(source.shape)
    return 4 * sum(int(math.prod(p.stop - p.start for p in box)) for box in boxes)


def looking_bytes(source: Image, psf: Volume | None, told: RldSettings | None) -> int:
    """Return how much memory it takes to look at the part with most structure."""
    if psf is None or told is None:
        return 0
    part = telling_size(source.shape, psf.shape)
    return rld.memory_bytes(part, psf.shape, told) + SPLIT_BYTES * math.prod(part)


def further(source: Image, size: Shape) -> list[Box]:
    """Return boxes of a size all over a volume, of an eighth of it or less."""
    voxels = size[0] * size[1] * size[2]
    most = min(_MOST_FURTHER, source.voxels // (_FURTHER_SHARE * voxels), MOST_VOXELS // voxels)
    return list(blocks(source.shape, size, most)) if most else []


def look(
    run: LargeRun, samples: Samples, device: torch.device
) -> Generator[LargeReport, None, Statistics]:
    """Yield reports, return what tiles are planned by: calibration and iterations.

    Parameters
    ----------
    run
        What is asked for.
    samples
        Of the image.
    device
        Where to compute.

    Raises
    ------
    RlnError
        If nothing stands above the background.
    """
    began = time.perf_counter()
    told, psf = run.told, run.psf
    consistency = None
    box = samples.telling(psf.shape if psf is not None else _TELLING)
    source = samples.source
    calibration = calibrate_parts(samples.parts, source.name, run.settings, source.fill)
    release_freed_memory()  # else what follows would come on top of what this took
    if told is None or told.iterations != "auto":
        iterations = 0 if told is None else told.iterations
    else:
        assert psf is not None

        def report(stop: RldReport) -> LargeReport:
            lasted = time.perf_counter() - began
            return LargeReport(phase="stop", done=stop.iteration, total=stop.total, seconds=lasted)

        crop, seen = measured_crop(run, source, calibration, box, samples.time)
        steps = seek_stop(crop, psf, calibration, told, device, began, seen)
        stop = yield from relay(steps, report)
        iterations = stop.iterations
        release_freed_memory()
        if run.model is not None:
            assert isinstance(run.settings, RlnSettings)
            iterations = run.model.start.after(iterations)
            network = Folded(run.model.network, device, run.settings.precision)
            most = max(bytes_allowed(run.settings, device) - LIBRARIES_BYTES, _LEAST_BYTES)
            consistency = consistency_of(stop.trial, run.model, network, run.settings, most)
    return Statistics(
        hash=samples.hash,
        time=samples.time,
        sampled=samples.voxels,
        calibration=calibration.as_json(),
        mean=samples.mean(calibration),
        iterations=int(iterations),
        telling=[[part.start, part.stop] for part in box],
        consistency=None if consistency is None else asdict(consistency),
    )


def calibrated(
    run: LargeRun, samples: Samples, found: Statistics, device: torch.device, *, whole: bool
) -> Generator[LargeReport, None, tuple[Statistics, FloatArray | None]]:
    """Yield reports; return what tiles are computed by, and the deconvolved volume if it is one.

    Parameters
    ----------
    run
        What is asked for.
    samples
        Of the image.
    found
        By :func:`look`.
    device
        Where to compute.
    whole
        Whether the plan has a single tile. It is deconvolved here, so that all is exact; else
        parts of the volume are.

    Raises
    ------
    RlnError
        If the image is flat.
    """
    model, told = run.model, run.told
    classic = model is not None and model.normalisation == "percentiles"
    if classic:
        values = np.concatenate([part.ravel() for part in samples.parts])
        low, high = (float(v) for v in np.percentile(values, (LOW, HIGH)))
        found = _scaled(found, low, high - low)
    if told is None or (whole and (model is None or classic)):
        if model is not None and not classic:
            level = np.float32(found.background)
            light = _joined_brightness([part - level for part in samples.parts])
            found = _scaled(found, found.background, light)
        return found, None
    z, y, x = (slice(start, stop) for start, stop in found.telling)
    boxes: list[Box] = [(z, y, x)]
    if whole:
        z, y, x = (slice(0, n) for n in samples.source.shape)
        boxes = [(z, y, x)]
    elif model is not None and not classic:
        size = z.stop - z.start, y.stop - y.start, x.stop - x.start
        boxes += further(samples.source, size)
    crops = [
        measured_crop(run, samples.source, found.calibrated, box, samples.time) for box in boxes
    ]
    momenta, estimates = yield from _deconvolved(crops, run, told, found, device, whole=whole)
    if model is not None and not classic:
        level = np.float32(found.background)
        light = _joined_brightness(estimates)
        if not whole:
            # How much brighter structures are in an estimate than in the image is taken from the
            # parts that were deconvolved, how bright they are in the image from all samples.
            here = _joined_brightness([crop.data - level for crop, _ in crops])
            everywhere = _joined_brightness([part - level for part in samples.parts])
            light = everywhere * light / here if here else 0.0
        found = _scaled(found, found.background, light)
    return replace(found, momenta=momenta), estimates[0] if whole else None


def _deconvolved(
    crops: list[tuple[Volume, Mask | None]],
    run: LargeRun,
    told: RldSettings,
    found: Statistics,
    device: torch.device,
    *,
    whole: bool,
) -> Generator[LargeReport, None, tuple[list[float] | None, list[FloatArray]]]:
    """Return the estimates of parts of the volume; all follow the acceleration of the first."""
    began = time.perf_counter()
    assert run.psf is not None
    momenta: list[float] | None = None
    estimates = []
    for number, (crop, seen) in enumerate(crops):
        flat = None if whole else found.mean - found.background
        steps = rld.start(
            crop, run.psf, found.calibrated, told, device, momenta=momenta, flat=flat, seen=seen
        )
        for done in range(1, found.iterations + 1):
            steps.step(measure=False)
            yield LargeReport(
                phase="sample",
                done=number * found.iterations + done,
                total=len(crops) * found.iterations,
                seconds=time.perf_counter() - began,
            )
        momenta = momenta or [float(m) for m in steps.momenta] or None
        estimates.append(steps.estimate())
        del steps
    return momenta, estimates


def measured_crop(
    run: LargeRun, source: Image, calibration: Calibration, box: Box, time: int
) -> tuple[Volume, Mask | None]:
    """Return a part of a volume as it is deconvolved, and where it is seen."""
    around = Around(source, box, run.settings, time)
    data, seen = around.measured(calibration, run.psf, run.settings)
    return Volume(data=data, voxel_um=source.voxel_um, name=source.name), seen


class Around:
    """A part of an image, read with as much around it as decides which voxels are believed.

    Parameters
    ----------
    source
        The image.
    box
        The part (z, y, x).
    settings
        What to do with negative voxels.
    time
        Which volume of a series.

    Raises
    ------
    RlnError
        If it holds negative values that must not be.
    """

    def __init__(self, source: Image, box: Box, settings: Settings, time: int = 0) -> None:
        z, y, x = (
            slice(max(0, part.start - REPAIR_HALO), min(n, part.stop + REPAIR_HALO))
            for part, n in zip(box, source.shape, strict=True)
        )
        self._inner, self._planes = within(box, (z, y, x)), z
        data = source.read((z, y, x), time)
        where = f"{source.name} at {as_text((z, y, x))}"
        self._data: FloatArray | None = without_negatives(data, settings.negatives, where)

    def checksum(self, part: Box) -> str:
        """Return by what a part (z, y, x) of the box is known again; before it is measured."""
        assert self._data is not None
        return checksum(self._data[self._inner][part])

    def measured(
        self, calibration: Calibration, psf: Volume | None, settings: Settings
    ) -> tuple[FloatArray, Mask | None]:
        """Return the part as it is deconvolved, and where it is seen; as of the whole. Once.

        Parameters
        ----------
        calibration
            Of the image.
        psf
            On its voxels.
        settings
            Whether isolated voxels are repaired.
        """
        assert self._data is not None
        z, data = self._planes, self._data
        self._data = None
        planes = [p - z.start for p in calibration.planes if z.start <= p < z.stop]
        kernel = None if psf is None else psf.data
        data, seen, _ = measured(
            data, kernel, calibration, repair=settings.repair_image, planes=planes
        )
        seen = None if seen is None or seen[self._inner].all() else seen[self._inner].copy()
        return np.ascontiguousarray(data[self._inner]), seen


def _joined_brightness(parts: list[FloatArray]) -> float:
    # A small image is one sample, of which a copy would take as much again.
    return brightness(parts[0] if len(parts) == 1 else np.concatenate([p.ravel() for p in parts]))


def _scaled(found: Statistics, offset: float, scale: float) -> Statistics:
    """Return what was found, with the map to the network's range."""
    if not scale > 0:
        raise RlnError("the image is flat; there is nothing to deconvolve.")
    return replace(found, offset=offset, scale=scale)
