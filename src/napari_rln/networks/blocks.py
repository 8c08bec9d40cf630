"""The stage of blocks of a network, and their size."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from napari_rln.core.brightness import brightness
from napari_rln.core.device import bytes_allowed
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, MemoryGb
from napari_rln.core.tiles import Tile, TileSide, largest_core, plan_tiles
from napari_rln.core.volume import Box, FloatArray, Shape, Volume
from napari_rln.deconvolution.method import BlockComputer, Json, SampleEstimates
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.networks.application import (
    Application,
    Combination,
    brightness_estimate,
    consistency_of,
    explain_light,
    halo_of,
    last_of,
    merge_of,
)
from napari_rln.networks.data_consistency import VOXEL_BYTES as MERGE_BYTES
from napari_rln.networks.data_consistency import Consistency
from napari_rln.networks.inference import MIRROR_BYTES, TORCH_VOXEL_BYTES, Precision
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.refinement import VOXEL_BYTES as REFINEMENT_BYTES
from napari_rln.networks.refinement import InferenceRefinement, Refiner
from napari_rln.networks.rln import RLN
from napari_rln.networks.suitability import warn_of_seams
from napari_rln.networks.torch_inference import Inference

_WINDOW_BYTES = 60  # measured: bytes per voxel of a tile, of its input and output
LEAST_SIDE = 16  # of a tile's core: smaller tiles are mostly halo
_MOST_VOXELS = 1 << 25  # of a tile: larger ones are hardly faster, and report less often
_LEAST_BYTES = 60_000_000  # for a network, whose smallest tiles take some 30 MB


def block_tiles(
    shape: Shape, model: Model, network: Inference, tile: TileSide, most: int
) -> tuple[Tile, ...]:
    """Return the tiles of a model's network, with its receptive field as their halo."""
    halo = (halo_of(model, network),) * 3
    if tile != "auto":
        return plan_tiles(shape, (tile,) * 3, halo)
    after = MERGE_BYTES if model.refinement is None else REFINEMENT_BYTES
    voxels = int(most // (max(network.bytes_per_voxel, after) + _WINDOW_BYTES))
    core = largest_core(shape, halo, min(voxels, _MOST_VOXELS))
    if max(core) < min(LEAST_SIDE, max(shape)):
        raise RlnError(
            f"the network needs more memory than the limit of {most / 1e9:.2f} GB; raise it "
            "(`memory_gb`), or use another device."
        )
    return plan_tiles(shape, core, halo)


class NetworkBlocks:
    """The stage of blocks of a network."""

    def __init__(self, model: Model, precision: Precision) -> None:
        self._model, self._precision = model, precision

    @property
    def receptive_field(self) -> int:
        """Halo of a block in voxels on either side."""
        return halo_of(self._model)

    @property
    def fits_estimates(self) -> bool:
        """Whether the normalisation needs estimates of several parts of the image."""
        return self._model.normalisation != "percentiles" and self._model.start.needs_psf

    def voxel_bytes(self, kind: str) -> float:
        """Return the memory per voxel of a block on a type of device, in bytes."""
        own = self._model.network
        if not isinstance(own, RLN):
            return own.voxel_bytes * (2 if self._precision == "float64" else 1)
        if kind == "cpu":
            network = self._model.for_inference(torch.device(kind), self._precision).bytes_per_voxel
        else:  # known without preparing it on the device
            network = TORCH_VOXEL_BYTES[self._precision] + MIRROR_BYTES * any(self._model.mirrors)
        after = MERGE_BYTES if self._model.refinement is None else REFINEMENT_BYTES
        return max(network, after)

    def fit(self, trial: Trial | None, device: torch.device, memory_gb: MemoryGb) -> Json:
        """Return the parameters of merging the network's output with its initial estimate."""
        if trial is None or self._model.refinement is not None:
            return {}
        network = self._model.for_inference(device, self._precision)
        most = max(bytes_allowed(memory_gb, device) - LIBRARIES_BYTES, _LEAST_BYTES)
        consistency = consistency_of(
            trial,
            self._model,
            network,
            lambda shape: block_tiles(shape, self._model, network, "auto", most),
        )
        return {"consistency": asdict(consistency)}

    def fit_range(
        self,
        parts: Sequence[FloatArray],
        background: float,
        crops: Sequence[PreparedView],
        sampled: SampleEstimates,
        device: torch.device,
        *,
        whole: bool,
    ) -> Json:
        """Return offset and scale of the normalisation, and the factor on the network's output.

        The latter, with which the result explains the image, is for models with a predicted stop;
        those with a trial have it from :meth:`fit`. That of a refinement is on the result.

        Raises
        ------
        RlnError
            If the image is flat.
        """
        if self._model.normalisation == "percentiles":
            values = np.concatenate([part.ravel() for part in parts])
            return asdict(Normalisation.of(values, values, background, "percentiles"))
        level = np.float32(background)
        used = [brightness_estimate(estimate) for estimate in sampled.estimates]
        light = _joined_brightness(used or [part - level for part in parts])
        if used and not whole:
            # The ratio of brightness in an estimate to that in the image is from the deconvolved
            # crops, the brightness in the image from all samples.
            here = _joined_brightness([crop.image.data - level for crop in crops])
            everywhere = _joined_brightness([part - level for part in parts])
            light = everywhere * light / here if here else 0.0
        fitted: Json = asdict(Normalisation(offset=background, scale=light))
        if self._model.ladder is not None and crops:
            crop = crops[0]
            z, y, x = (slice(0, n) for n in crop.image.shape)
            result = self.ready(crop.psf, fitted, device)(crop, sampled.estimates[0], (z, y, x))
            outside = sampled.outsides[0] if sampled.outsides else None
            estimate = last_of(sampled.estimates[0])
            fitted["consistency"] = explain_light(
                self._model, crop, result, estimate, light, outside, device
            )
        return fitted

    def ready(self, psf: Volume | None, fitted: Json, device: torch.device) -> BlockComputer:
        """Return a computer of blocks with these parameters."""
        model = self._model
        network = model.for_inference(device, self._precision, psf)
        if halo_of(model, network) > self.receptive_field:
            warn_of_seams(model)
        scaling = Normalisation(offset=fitted["offset"], scale=fitted["scale"])
        refinement = None
        if model.refinement is not None:
            refinement = InferenceRefinement(model.refinement, device, self._precision)
        combine: Combination | None = None
        consistency = Consistency.from_json(fitted.get("consistency", {}))
        if model.refinement is None and psf is not None and model.start.needs_psf:
            combine = merge_of(model, consistency, psf)

        def block(crop: PreparedView, estimate: FloatArray | None, inner: Box) -> FloatArray:
            background, image = crop.calibration.background, crop.image.data
            if estimate is None:
                estimate = image - np.float32(background)
            used = scaling
            if model.normalisation == "photons":
                used = scaling.of_photons(crop.calibration)
            chosen = combine
            if refinement is not None:
                chosen = Refiner(network=refinement, scaling=used, factor=consistency.result)
            applied = Application(
                model=model, network=network, scaling=used, background=background,
                combine=chosen,
            )  # fmt: skip
            return applied.window(image, estimate, inner, crop.mask)

        return block

    def facts(self, fitted: Json) -> Json:
        """Return the parameters for the record."""
        facts: Json = {"normalisation": {name: fitted[name] for name in ("offset", "scale")}}
        if "consistency" in fitted:
            facts["consistency"] = fitted["consistency"]
        return facts


def _joined_brightness(parts: Sequence[FloatArray]) -> float:
    # A small image is one sample, which need not be copied.
    return brightness(parts[0] if len(parts) == 1 else np.concatenate([p.ravel() for p in parts]))
