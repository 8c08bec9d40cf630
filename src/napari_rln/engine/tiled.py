"""Computation of tiles and blocks, independent of executor and output."""

import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch

from napari_rln.core.device import bytes_allowed, resolve_device
from napari_rln.core.machine import Allowance, MemoryGb
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.report import Report
from napari_rln.core.tiles import TileSide, within
from napari_rln.core.volume import FloatArray, ImageLike, Volume
from napari_rln.deconvolution.method import Json, Method
from napari_rln.engine.division import make_plan
from napari_rln.engine.image_state import ImageState
from napari_rln.engine.plan import Plan, blend
from napari_rln.engine.sampling import PaddedPart, Samples, calibrate_samples, fit_stages

_KEPT_BYTES = 12  # per voxel of an image in memory: result, tiles, and copies of parts


class Computation:
    """The stages of a method for one image, ready to compute tiles and blocks of it."""

    def __init__(
        self,
        image: ImageLike,
        psf: Volume | None,
        method: Method,
        image_state: ImageState,
        plan: Plan,
        device: torch.device,
    ) -> None:
        self.image, self.psf, self.method = image, psf, method
        self.image_state, self.plan, self.device = image_state, plan, device
        second = method.blocks
        self.second = None if second is None else second.ready(psf, image_state.blocks, device)

    def read_tile(self, number: int, time: int = 0) -> PaddedPart:
        """Return the input of a tile."""
        return PaddedPart(self.image, self.plan.tiles[number].window, self.method, time)

    def read_block(self, number: int, time: int = 0) -> PaddedPart:
        """Return the input of a block."""
        return PaddedPart(self.image, self.plan.blocks[number].window, self.method, time)

    def tile(self, read: PaddedPart, number: int, time: int = 0) -> tuple[FloatArray, float]:
        """Return the kept box of a tile, image units, and the light of the image in its core."""
        plan, stage, psf = self.plan, self.method.tiles, self.psf
        assert stage is not None
        assert psf is not None
        tile = plan.tiles[number]
        calibration = self.image_state.calibrated_at(time)
        crop = read.prepared(calibration, psf, self.method)
        light = float(crop.image.data[tile.inner].sum(dtype=np.float64))
        # All tiles share their start and iterations; a single one has its own.
        level = self.image_state.level if len(plan.tiles) > 1 else None
        kept = within(plan.stored_part(tile), tile.window)
        data = stage.tile(crop, self.image_state.tiles, level, self.device, kept)
        return data, light

    def estimate(self, number: int, load: Callable[[int], FloatArray]) -> FloatArray | None:
        """Return the blended tiles in a block's window; None without tiles.

        ``load`` returns the kept box of a tile, by its number.
        """
        if not self.plan.tiles:
            return None
        window = self.plan.blocks[number].window
        return blend(self.plan, window, {n: load(n) for n in self.plan.needed(window)})

    def block(
        self, read: PaddedPart | None, number: int, estimate: FloatArray | None, time: int = 0
    ) -> tuple[FloatArray, float]:
        """Return the result of a block, and the light of the image in it if there are no tiles.

        ``read`` is None without a second stage; ``estimate`` is that of :meth:`estimate`.
        """
        inner = self.plan.blocks[number].inner
        if read is None or self.second is None:
            assert estimate is not None
            return estimate[inner], 0.0
        calibration = self.image_state.calibrated_at(time)
        crop = read.prepared(calibration, self.psf, self.method)
        light = 0.0
        if estimate is None:
            light = float(crop.image.data[inner].sum(dtype=np.float64))
        return self.second(crop, estimate, inner), light


def deconvolve_tiled(
    image: Volume,
    psf: Volume | None,
    method: Method,
    tile: TileSide,
    memory_gb: MemoryGb,
) -> Generator[Report, None, tuple[FloatArray, dict[str, Any]]]:
    """Deconvolve a volume in memory tile by tile; yield reports, return result and facts.

    Raises
    ------
    RlnError
        If the memory holds no tile, or the method cannot be applied in parts.
    """
    started = time.perf_counter()
    method.check_tiled()
    device = resolve_device(method.device)
    kept_bytes = _KEPT_BYTES * image.data.size
    ram = Allowance(memory_gb).left_bytes - kept_bytes
    memory = bytes_allowed(memory_gb, device) - (kept_bytes if device.type == "cpu" else 0)

    def plan_of(shared: Json) -> Plan:
        return make_plan(
            image, 1, psf, method, shared, form="tiff", version="0.5", kind=device.type,
            memory=memory, ram=ram, side=None if tile == "auto" else tile,
        )  # fmt: skip

    if method.tiles is not None:
        plan_of(method.tiles.expected())  # raises for too little memory before the work
    samples = Samples(image, method.negatives)
    image_state = yield from calibrate_samples(samples, psf, method, device, memory_gb)
    plan = plan_of(image_state.tiles)
    image_state, only = yield from fit_stages(
        samples, psf, method, image_state, device, whole=len(plan.tiles) == 1
    )
    work = Computation(image, psf, method, image_state, plan, device)
    kept: dict[int, FloatArray] = {} if only is None else {0: only}
    for number in range(len(kept), len(plan.tiles)):
        kept[number], _ = work.tile(work.read_tile(number), number)
        release_freed_memory()
        seconds = time.perf_counter() - started
        yield Report(phase="deconvolve", done=number + 1, total=len(plan.tiles), seconds=seconds)
    result = np.empty_like(image.data)
    for number, block in enumerate(plan.blocks):
        estimate = work.estimate(number, kept.__getitem__)
        read = None if work.second is None else work.read_block(number)
        result[block.core], _ = work.block(read, number, estimate)
        yield Report(
            phase="tiles",
            done=number + 1,
            total=len(plan.blocks),
            seconds=time.perf_counter() - started,
            tile=block,
            piece=result[block.core],
            box=block.core,
        )
    facts = parts_facts(method, image_state, plan)
    if method.blocks is not None and "iterations" in facts:
        facts["start_iterations"] = facts.pop("iterations")
    return result, facts


def parts_facts(method: Method, image_state: ImageState, plan: Plan) -> dict[str, Any]:
    """Return the facts in the record of a result that was computed in parts."""
    facts: dict[str, Any] = {"sampled_voxels": image_state.sampled, "block": list(plan.block)}
    if method.tiles is not None:
        facts |= method.tiles.facts(image_state.tiles)
        facts |= {"tile": list(plan.core), "halo": list(plan.halo), "blended": list(plan.overlap)}
    if method.blocks is not None:
        facts |= method.blocks.facts(image_state.blocks)
    return facts
