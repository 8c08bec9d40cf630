"""A network as a deconvolution method: whole images, and blocks."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np

from napari_rln.core.device import bytes_allowed, check_memory, computing, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import relay
from napari_rln.core.grid import on_grid
from napari_rln.core.limits import as_dict, check_limits, from_dict
from napari_rln.core.machine import LIBRARIES_BYTES
from napari_rln.core.report import Report
from napari_rln.core.tiles import Tile
from napari_rln.core.volume import Box, FloatArray, OnGrid, Shape, Volume, VoxelUm, same_grid
from napari_rln.deconvolution.calibration import Gain, Level, Negatives, Offset, RepairImage
from napari_rln.deconvolution.classical import ClassicalTiles, residual_bytes, search_bytes
from napari_rln.deconvolution.ladder import COUNTS
from napari_rln.deconvolution.method import Description, Json, Method, Observation, WholeResult
from napari_rln.deconvolution.residual import Residual, residual_of
from napari_rln.deconvolution.settings import check_psf_fits, memory_bytes
from napari_rln.io.paths import relative_to_folder
from napari_rln.networks.application import (
    Application,
    BlockInput,
    Combination,
    consistency_of,
    explain_light,
    last_of,
    merge_of,
    scaling_of,
)
from napari_rln.networks.blocks import LEAST_SIDE, NetworkBlocks, block_tiles
from napari_rln.networks.data_consistency import Consistency
from napari_rln.networks.inference import (
    Precision,
    compile_in_background,
    is_compiling,
)
from napari_rln.networks.initial_estimate import initial_estimate
from napari_rln.networks.model import UNIVERSAL, Model, load_model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.refinement import InferenceRefinement, Refiner
from napari_rln.networks.rln import RLN, combine_views
from napari_rln.networks.suitability import grid_error, psf_warnings, warn_of_seams

ADVICE = "set a lower memory limit (`memory_gb`), or use another device."

_VOLUME_BYTES = 28  # measured: bytes per voxel of the image, of all arrays of its size
_ESTIMATE_BYTES = 8  # per voxel of a further estimate
_MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Settings of the application of a network.

    Parameters
    ----------
    background
        Background level in image units, camera offset included; ``auto`` measures the darkest
        regions of the image. Give it where no region is empty.
    offset
        Camera offset, the value without light, in image units; ``auto`` estimates it from the
        noise. Give the mean of a dark image if you have one.
    gain
        Camera gain, in image units per photon; ``auto`` estimates it from the noise. Give that of
        the camera if you know it.
    repair_image
        Replace isolated hot and cold pixels by the median of their neighbours. Switch it off where
        single bright voxels are structure.
    negatives
        Negative values, as after background subtraction: ``keep`` them (an automatic camera offset
        lies below them), ``clip`` them to 0, or stop with an ``error``. Choose ``keep`` unless they
        mean nothing.
    grid
        Images whose voxel size differs from the model's: ``refuse`` them, or ``resample`` them and,
        afterwards, the result. Choose ``resample`` if there is no model for your voxel size.
    precision
        Number type of the network's computation. Choose ``float16`` on a GPU for speed, ``float64``
        only to verify a result.
    device
        Compute device: auto, cpu, cuda, cuda:1 or mps. Choose cpu if the memory of the GPU does not
        suffice.
    """

    background: Level = "auto"
    offset: Offset = "auto"
    gain: Gain = "auto"
    repair_image: RepairImage = True
    negatives: Negatives = "keep"
    grid: Annotated[
        Literal["refuse", "resample"],
        {"label": "Other voxel sizes", "words": {"refuse": "error message"}},
    ] = "refuse"
    precision: Precision = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self)

    def of(self, model: str | Path | Model) -> "Network":
        """Return the method of a model with these settings."""
        names = (field.name for field in fields(NetworkOptions))
        return Network(model=model, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Network(NetworkOptions, Method):
    """A network as a method: a Richardson-Lucy Network, or one of another architecture.

    Parameters
    ----------
    model
        Name of a shipped model, a model file, or a loaded model; the others are those of
        :class:`NetworkOptions`.
    """

    kind: ClassVar[str] = "rln"

    model: str | Path | Model = UNIVERSAL

    @cached_property
    def loaded(self) -> Model:
        """The model, loaded on first access.

        Raises
        ------
        RlnError
            If there is no model of that name, or the file is no model.
        """
        return self.model if isinstance(self.model, Model) else load_model(self.model)

    @property
    def title(self) -> str:
        """Name of results in tables and layers."""
        return f"{self.loaded.network.title} {self.loaded.name}"

    @property
    def needs_psf(self) -> bool:
        """Whether the model starts from a classical deconvolution, or its network needs the PSF."""
        return self.loaded.needs_psf

    @property
    def files(self) -> tuple[Path, ...]:
        """File of the model; none for a loaded or a shipped one."""
        if isinstance(self.model, Model) or not Path(self.model).is_file():
            return ()
        return (Path(self.model),)

    @property
    def tiles(self) -> ClassicalTiles | None:
        """Classical deconvolution that the model starts from; none if that is the image."""
        start = self.loaded.start
        if not start.needs_psf:
            return None
        return ClassicalTiles(start.rld(), start.beyond, self.loaded.ladder)

    @property
    def marks(self) -> tuple[int, ...]:
        """Numbers of iterations whose estimates the model needs, beside the last."""
        return () if self.loaded.stop is None else COUNTS

    @property
    def blocks(self) -> NetworkBlocks:
        """The stage of blocks: the network."""
        return NetworkBlocks(self.loaded, self.precision)

    def check(self, image: OnGrid, psf: Volume | None, *, views: int = 1) -> None:
        """Raise unless image and PSF match and the model is applicable to them."""
        model = self.loaded
        if views == 1 and model.network.views != "single":
            raise RlnError(
                f"model {model.name} is for two views of the object, not one image; give both "
                "(`napari-rln dual`)."
            )
        if views > 1 and model.network.views == "single" and not model.start.needs_psf:
            raise RlnError(
                f"model {model.name} is for a single view of the object; use one that starts from "
                "a classical deconvolution, such as universal, or one trained on two views."
            )
        if psf is None and model.needs_psf:
            why, other = "starts from a classical deconvolution and", "of the paper's variant"
            if not model.start.needs_psf:
                why, other = f"is of {model.network.title}, which", "that does without"
            raise RlnError(
                f"model {model.name} {why} needs the PSF; give one (`psf`), or use a model {other}."
            )
        if psf is not None and views == 1:
            check_psf_fits(image, psf)
        if views > 1 and not self._is_on_grid(image):
            assert model.psf is not None
            raise RlnError(
                f"the views have voxels of {image.voxel_um} um but model {model.name} was trained "
                f"for {model.psf.voxel_um} um (z, y, x); choose other voxels of the result "
                "(`voxels`), or the universal model."
            )
        if self.grid == "refuse" and not self._is_on_grid(image):
            raise grid_error(model, image)

    def check_tiled(self) -> None:
        """Raise if images may be resampled; warn of seams."""
        if self.grid != "refuse":
            raise RlnError(
                "an image that is deconvolved in parts is not resampled (`grid=resample`); "
                "resample it first, or use a model for its voxel size."
            )
        if not self.loaded.network.exact_tiles:
            warn_of_seams(self.loaded)

    def warnings(self, *psfs: Volume | None) -> tuple[str, ...]:
        """Return warnings about using the model with the PSFs of the views."""
        model = self.loaded
        sentences = psf_warnings(model, psfs[0])
        if len(psfs) > 1 and model.psf_b is not None:
            sentences += psf_warnings(replace(model, psf=model.psf_b, psf_widths={}), psfs[1])
        return sentences

    def grid_of(self, image: OnGrid) -> VoxelUm:
        """Return the voxel size (z, y, x) of the computation, micrometres."""
        trained_for = self.loaded.psf
        if self._is_on_grid(image) or trained_for is None:
            return image.voxel_um
        return trained_for.voxel_um

    def needed_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the least memory for a whole image, bytes, beside that already in use.

        Memory of single tiles is not included.
        """
        kept = self._kept_bytes(shape, psf_shape)
        if resolve_device(self.device).type == "cuda":
            return kept
        return kept + residual_bytes(shape, psf_shape)

    def whole(self, observation: Observation) -> Generator[Report, None, WholeResult | None]:
        """Deconvolve a whole image; yield reports with finished tiles, return the result.

        None if the initial estimate does not fit into memory whole.
        """
        model, device, shape = self.loaded, observation.device, observation.image.shape
        single, own = len(observation.views) == 1, observation.on_own_voxels
        psf_shape = None if observation.psf is None else observation.psf.shape
        is_rln = isinstance(model.network, RLN)
        if is_rln and device.type == "cpu" and self.precision == "float32":
            compile_in_background()  # the first time it takes as long as the initial estimate
        most = bytes_allowed(observation.memory_gb, device)
        if observation.memory_gb != "auto":
            check_memory(most, device, ADVICE)
            if device.type != "cuda" and single:  # a GPU holds only what is being computed
                most -= self._kept_bytes(shape, psf_shape)
                _check_allowed(shape, psf_shape, observation.memory_gb, most)
        if model.start.needs_psf and single:
            assert psf_shape is not None
            needed = memory_bytes(shape, psf_shape, model.start.rld())
            if needed > most and max(shape) > LEAST_SIDE:
                return None
        facts: Json = {}
        with computing(most, device, ADVICE):
            start = yield from relay(
                initial_estimate(observation, model.start, model.ladder, outside=own and single),
                lambda report: replace(
                    report,
                    phase="stop" if report.phase == "stop" else "start",
                    seconds=time.perf_counter() - observation.started,
                    snapshot=report.snapshot if own else None,
                ),
            )
            facts["start_iterations"] = start.iterations
            if start.stop is not None:
                facts["stop"] = start.stop
            observation.memory.sample()
            scalings = self._scalings(observation, start.data)
            for number, scaling in enumerate(scalings):
                facts[f"normalisation{'_b' * number}"] = asdict(scaling)
            if is_rln and is_compiling():
                lasted = time.perf_counter() - observation.started
                yield Report(phase="compile", done=0, total=0, seconds=lasted)
            network = model.for_inference(device, self.precision, observation.psf)

            def tiles_of(shape: Shape) -> tuple[Tile, ...]:
                return block_tiles(shape, model, network, observation.tile, most)

            combine: Combination | None = None
            if model.refinement is not None:
                refinement = InferenceRefinement(model.refinement, device, self.precision)
                combine = Refiner(network=refinement, scaling=scalings[0])
            elif model.start.needs_psf and single and model.ladder is None:
                assert observation.psf is not None
                consistency = consistency_of(start.trial, model, network, tiles_of)
                facts["consistency"] = asdict(consistency)
                combine = merge_of(model, consistency, observation.psf)
            elif model.start.needs_psf:
                combine = merge_of(model, Consistency())
            tiles = tiles_of(shape)
            core = [part.stop - part.start for part in tiles[0].core]
            facts |= {"tiles": len(tiles), "tile": core, "network": network.path}
            if len(tiles) > 1 and not model.network.exact_tiles:
                warn_of_seams(model)
            applied = Application(
                model=model,
                network=network,
                scaling=scalings[0],
                background=observation.calibration.background,
                combine=combine,
            )
            mask = observation.views[0].mask if single else None
            read = _reader(observation, applied, scalings, start.data)
            data = yield from applied.tiles(read, tiles, start.data, observation.started, mask)
            observation.memory.sample()
            if model.ladder is not None and single:
                facts["consistency"] = explain_light(
                    model, observation.views[0], data, last_of(start.data), scalings[0].scale,
                    start.outside, observation.device,
                )  # fmt: skip
        if not single:
            residual = _explained(observation, data) if combine is not None else None
            if residual is not None:
                data *= np.float32(residual.scale)
                facts["consistency"] = asdict(Consistency(result=residual.scale))
            return WholeResult(data, facts)
        outside = start.outside
        if (
            model.start.method != "wiener-butterworth"
            and start.trial
            and start.trial.covers(observation.image)
        ):
            outside = start.trial.outside
        if outside is not None and own and observation.psf is not None:
            observation.shared.store_outside(
                observation.image, observation.psf, observation.calibration, outside
            )
        return WholeResult(data, facts, outside if own else None)

    def describe(self) -> Description:
        """Return settings, identity, inputs and facts."""
        model = self.loaded
        own = {name: value for name, value in as_dict(self).items() if name != "model"}
        return Description(
            settings=own | {"model": model.name, "start": as_dict(model.start)},
            identity=own | {"model": model.identity},
            inputs={"model": model.hash},
            facts={"model": model.card()["record"]},
        )

    def as_json(self, folder: Path | None = None) -> Json:
        """Return the settings in JSON types, with the model's name, or its file from a folder."""
        if isinstance(self.model, Model):
            raise RlnError(
                f"model {self.model.name} has no file; save it (`Model.save`) and use that file."
            )
        made = as_dict(self)
        if folder is not None and self.files:
            made["model"] = relative_to_folder(self.model, folder)
        return made

    @classmethod
    def from_json(cls, fields: Json, folder: Path) -> Self:
        """Return a method from the fields of :meth:`as_json`; files are relative to a folder."""
        method = from_dict(cls, fields)
        file = folder / str(method.model)
        return replace(method, model=file) if file.is_file() else method

    def save_files(self, folder: Path) -> Self:
        """Write the model into a folder; return the method that uses that file."""
        self.loaded.save(folder / _MODEL_FILE)
        return replace(self, model=Path(_MODEL_FILE))

    def _is_on_grid(self, image: OnGrid) -> bool:
        """Return whether an image has the voxel size that the model was trained for.

        True of any image for a model of a family of PSFs, whose widths are in voxels.
        """
        trained_for = self.loaded.psf
        return trained_for is None or same_grid(trained_for.voxel_um, image.voxel_um, 0.03)

    def _kept_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the memory of an application beside the image and its tiles, in bytes."""
        start = self.loaded.start
        several = len(COUNTS) if start.method == "ladder" else 0
        each = _VOLUME_BYTES + _ESTIMATE_BYTES * several
        kept = LIBRARIES_BYTES + each * math.prod(shape)
        if psf_shape is not None and start.needs_psf:
            kept += search_bytes(shape, psf_shape, start.rld())
        return kept

    def _scalings(self, observation: Observation, estimate: FloatArray) -> list[Normalisation]:
        """Return the normalisations, one for each view, of a second one where it is measured."""
        first, *others = observation.views
        shown = [(first.image.data, first)]
        for view in others:
            data = view.image.data
            shown.append((data if view.mask is None else data[view.mask], view))
        return [scaling_of(self.loaded, data, estimate, view.calibration) for data, view in shown]


def _reader(
    observation: Observation,
    applied: Application,
    scalings: Sequence[Normalisation],
    estimate: FloatArray,
) -> Callable[[Box], BlockInput]:
    """Return a function that reads the network's input of a box."""
    first, model = observation.views[0], applied.model

    def of_one(box: Box) -> BlockInput:
        mask = None if first.mask is None else first.mask[box]
        return applied.input_of(first.image.data[box], estimate[(..., *box)], mask)

    def of_two(box: Box) -> BlockInput:
        second = observation.views[1]
        a = scalings[0].apply(first.image.data[box])
        b = scalings[1].apply(second.image.data[box])
        if second.mask is not None:
            b = np.where(second.mask[box], b, a)
        x = combine_views(model.network.views, a, b)
        background = np.float32(applied.background)
        light = scalings[0].undo(0.5 * (a + b)) - background
        if not model.start.needs_psf:
            return BlockInput(x, None, light)
        shifted = last_of(estimate)[box] + background
        return BlockInput(x, [scalings[0].apply(shifted)] * len(x), light)

    return of_one if len(observation.views) == 1 else of_two


def _check_allowed(shape: Shape, psf_shape: Shape | None, memory_gb: float, most: int) -> None:
    """Raise unless a whole volume fits into the memory limit."""
    needed = residual_bytes(shape, psf_shape)
    if needed > most:
        more = memory_gb + (needed - most) / 1e9
        raise RlnError(
            f"the whole image needs {more:.2f} GB, program included, but `memory_gb` is "
            f"{memory_gb:g}; raise it, or deconvolve the image in parts, from disk to "
            "disk."
        )


def _explained(observation: Observation, data: FloatArray) -> Residual | None:
    """Return the residual of a result and the first view on its own voxels."""
    view, resampled = observation.original, data
    if not observation.on_own_voxels:
        shape, voxel_um = view.image.shape, view.image.voxel_um
        resampled = on_grid(data, observation.image.voxel_um, shape, voxel_um)
    assert view.psf is not None
    return residual_of(view.image, resampled, view.psf, view.calibration, mask=view.mask)
