"""Plan of a study: its cells with the images and trainings that they share, and their keys.

The seeds of test images, trainings and validations differ in their first number, so that no image
is in two of them.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.report import plural
from napari_rln.core.volume import Shape, Volume
from napari_rln.io.volumes import read
from napari_rln.networks.model import Model, load_model
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.prepare import RESAMPLE_ONLY, prepare_psf
from napari_rln.psf.shape import centre_crop
from napari_rln.simulate.aberrations import aberrated_psf
from napari_rln.simulate.imaging import Pair, simulate_pair
from napari_rln.simulate.optics import LARGEST_PSF
from napari_rln.study.config import (
    CameraSettings,
    Condition,
    PsfSettings,
    StructureClass,
    StudyMethod,
    StudySettings,
    within,
)
from napari_rln.study.results import Cell
from napari_rln.train.training_set import TrainingSet, training_set_of
from napari_rln.train.training_settings import TrainSettings

# First numbers of the seeds: those of trainings are this plus the seed of the study, those of their
# validations a million higher, see train.training_set.
_TRAINING, _TEST = 10_000_000, 20_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyImage:
    """A simulated image, on which several methods are tested.

    Attributes
    ----------
    psf, assumed
        PSF of the image, and PSF that the methods use.
    structures
        Class of its structures.
    photons
        Photons of its brightest structures.
    camera
        Background and camera.
    shape
        Size (z, y, x).
    seed
        Seed of the study.
    """

    psf: Volume
    assumed: Volume
    structures: StructureClass
    photons: float
    camera: CameraSettings
    shape: Shape
    seed: int

    @property
    def seeds(self) -> tuple[int, int, int]:
        """Seed of the simulation, equal for all PSFs, photons and conditions."""
        return _TEST, self.seed, zlib.crc32(" ".join(self.structures.kinds).encode())

    def simulate(self) -> Pair:
        """Return the image and its ground truth."""
        return simulate_pair(
            self.psf,
            self.structures.settings,
            self.camera.imaging(self.photons),
            shape=self.shape,
            seed=self.seeds,
            conditions=self.camera.conditions(),
        )

    @cached_property
    def key(self) -> str:
        """Hash of all that the image depends on, and of the assumed PSF."""
        return key_of(
            {
                "psf": _identity(self.psf),
                "assumed": _identity(self.assumed),
                "structures": as_dict(self.structures.settings),
                "photons": self.photons,
                "camera": as_dict(self.camera),
                "shape": list(self.shape),
                "seeds": list(self.seeds),
            }
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A training, whose model is tested on several images.

    Attributes
    ----------
    name
        Name of the method.
    settings
        Settings of the training.
    initial_model
        Initial model; none for new weights.
    psf
        PSF of the training.
    structures, photons, camera
        Class of structures, photons, background and camera of the training images.
    """

    name: str
    settings: TrainSettings
    initial_model: Model | None
    psf: Volume
    structures: StructureClass
    photons: float
    camera: CameraSettings

    @property
    def seed(self) -> int:
        """Seed in the configuration of the study."""
        return self.settings.seed - _TRAINING

    @cached_property
    def key(self) -> str:
        """Hash of all that the model depends on."""
        initial = self.initial_model
        return key_of(
            {
                "training": as_dict(self.settings),
                "initial": None if initial is None else initial.identity,
                "psf": _identity(self.psf),
                "structures": as_dict(self.structures.settings),
                "photons": self.photons,
                "camera": as_dict(self.camera),
            }
        )

    def training_set(self) -> TrainingSet:
        """Return the sources of training and validation images."""
        return training_set_of(
            self.settings,
            psf=self.psf,
            structures=self.structures.settings,
            imaging=self.camera.imaging(self.photons),
            conditions=self.camera.conditions(),
            initial_model=self.initial_model,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedCell:
    """A cell with its image and method.

    Attributes
    ----------
    key
        Hash of all that the result depends on, and of the names in the cell.
    cell
        The cell.
    image
        The image.
    method
        The method.
    training
        Its training; none for a method that is not trained.
    wrong_psf
        Whether the assumed PSF is wrong.
    """

    key: str
    cell: Cell
    image: StudyImage
    method: StudyMethod
    training: Training | None = None
    wrong_psf: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyPlan:
    """Cells of a study, those of one image together, ordered by seed, PSF and photons."""

    settings: StudySettings
    cells: tuple[PlannedCell, ...]

    def only(self, key: str) -> "StudyPlan":
        """Return the plan of one cell.

        Raises
        ------
        RlnError
            If there is no cell of this key.
        """
        cells = tuple(planned for planned in self.cells if planned.key == key)
        if not cells:
            raise RlnError(
                f"the study has no cell {key}; its keys are the names of the files in its folder "
                "cells, of the same configuration and version."
            )
        return replace(self, cells=cells)


def trainings_of(cells: Iterable[PlannedCell]) -> dict[str, Training]:
    """Return the trainings of cells by their keys, in order."""
    return {c.training.key: c.training for c in cells if c.training is not None}


def by_image(cells: Iterable[PlannedCell]) -> list[list[PlannedCell]]:
    """Return cells in groups of one image, in order."""
    groups: dict[str, list[PlannedCell]] = {}
    for planned in cells:
        groups.setdefault(planned.image.key, []).append(planned)
    return list(groups.values())


def plan_study(settings: StudySettings) -> StudyPlan:
    """Return the plan of a study; computes its PSFs.

    Raises
    ------
    RlnError
        If a PSF cannot be made, or a condition changes nothing of one.
    """
    cells: dict[Cell, PlannedCell] = {}
    psfs = _Psfs()
    trainings = _Trainings(settings, psfs)
    models = {m.name: load_model(m.model).identity for m in settings.methods if m.kind == "model"}
    for seed, psf, photons, condition, structures in product(
        settings.seeds, settings.psfs, settings.photons, (None, *settings.conditions),
        settings.test_structures,
    ):  # fmt: skip
        if condition is not None and not condition.applies_to(psf.name, photons):
            continue
        image = StudyImage(
            psf=psfs.true(psf, condition), assumed=psfs.true(psf, None), structures=structures,
            photons=float(photons), camera=settings.camera_of(condition), shape=settings.shape,
            seed=seed,
        )  # fmt: skip
        plain = Cell(
            method="", psf=psf.name, photons=image.photons, tested_on=structures.name,
            condition="" if condition is None else condition.name, seed=seed,
        )  # fmt: skip
        for method in settings.methods:
            changed = condition is not None
            for training in trainings.of(method, psf, photons, structures, seed, changed=changed):
                cell = replace(plain, method=method.name, **_trained(training))
                identity = _method_identity(method, training, models, settings.device)
                described = {"image": image.key, "method": identity, "cell": as_dict(cell)}
                cells[cell] = PlannedCell(
                    key=key_of(described), cell=cell, image=image, method=method, training=training,
                    wrong_psf=condition is not None and condition.changes_psf,
                )  # fmt: skip
    return StudyPlan(settings=settings, cells=tuple(cells.values()))


def key_of(depends_on: Mapping[str, Any]) -> str:
    """Return a hash of JSON values and of the version of the package."""
    described = json.dumps({"version": __version__, **_canonical(depends_on)}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


class _Psfs:
    """PSFs of a study, each computed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Volume] = {}

    def true(self, psf: PsfSettings, condition: Condition | None) -> Volume:
        """Return the PSF of the images under a condition; without one, the assumed PSF."""
        if condition is None or not condition.changes_psf:
            return self._made((psf.name, None), lambda: _psf(psf))
        assumed = self.true(psf, None)
        changed = self._made(
            (psf.name, condition.name), lambda: _changed_psf(psf, condition, assumed)
        )
        if changed.hash == assumed.hash:
            raise RlnError(
                f"[[condition]] {condition.name} changes nothing of the PSF {psf.name}; change "
                "another setting, or list under psfs those that it changes."
            )
        return changed

    def _made(self, key: tuple[str, str | None], make: Callable[[], Volume]) -> Volume:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


class _Trainings:
    """Trainings of a study, each made once."""

    def __init__(self, settings: StudySettings, psfs: _Psfs) -> None:
        self._settings, self._psfs = settings, psfs
        self._known: dict[tuple[Any, ...], Training] = {}

    def of(
        self,
        method: StudyMethod,
        psf: PsfSettings,
        photons: float,
        tested_on: StructureClass,
        seed: int,
        *,
        changed: bool,
    ) -> Iterator[Training | None]:
        """Yield the trainings whose models are tested on an image; None for another method.

        Under a condition (``changed``), only models of the most volumes are tested, on the
        structures that they were trained on, and at the photons of a training if there is one, so
        that nothing else differs.
        """
        if not method.is_trained:
            yield None
            return
        settings = self._settings
        volumes: tuple[int | None, ...] = settings.training_volumes or (None,)
        classes = settings.train_structures
        if changed:
            volumes = (max(settings.training_volumes, default=None),)
            classes = tuple(c for c in classes if c.name == tested_on.name)
        levels = settings.train_photons or (photons,)
        if changed and photons in levels:
            levels = (photons,)
        for each, level, count in product(classes, levels, volumes):
            yield self._one(method, psf, each, float(level), count, self._seed(seed))

    def _seed(self, seed: int) -> int:
        """Return the seed of the training for a test image of a seed."""
        several = self._settings.train_seeds
        return several[self._settings.seeds.index(seed) % len(several)] if several else seed

    def _one(
        self,
        method: StudyMethod,
        psf: PsfSettings,
        structures: StructureClass,
        photons: float,
        volumes: int | None,
        seed: int,
    ) -> Training:
        key = (method.name, psf.name, structures.name, photons, volumes, seed)
        if key not in self._known:
            settings = self._settings
            trained, initial = method.training(
                settings.budget, volumes=volumes, seed=_TRAINING + seed, device=settings.device
            )
            self._known[key] = Training(
                name=method.name, settings=trained, initial_model=initial,
                psf=self._psfs.true(psf, None), structures=structures, photons=photons,
                camera=settings.camera,
            )  # fmt: skip
        return self._known[key]


def _trained(training: Training | None) -> dict[str, Any]:
    """Return the fields of a cell on the training."""
    if training is None:
        return {}
    return {
        "trained_on": training.structures.name,
        "trained_photons": training.photons,
        "training_volumes": training.settings.examples,
    }


def _method_identity(
    method: StudyMethod, training: Training | None, models: Mapping[str, str], device: str
) -> dict[str, Any]:
    """Return all that the result of a method depends on beside the image."""
    if training is not None:
        return {"training": training.key}
    if method.kind == "model":
        return {"model": models[method.name], "device": device}
    made = method.classical(device)
    return {
        "kind": made.kind, **made.describe().identity, "stop": method.stop,
        "counts": list(method.counts),
    }  # fmt: skip


def _psf(psf: PsfSettings) -> Volume:
    """Return a PSF, sum 1; one of automatic size of at most the size that trainings use."""
    if psf.file is not None:
        ready, _ = fit_psf(read(psf.file, voxel_um=psf.voxel_um))
        return replace(ready, name=psf.name)
    assert psf.voxel_um is not None
    if psf.aberrations is not None:
        size = psf.optics.size or LARGEST_PSF
        return aberrated_psf(psf.optics, psf.voxel_um, psf.aberrations, size=size, name=psf.name)
    whole = compute_psf(psf.optics, psf.voxel_um, name=psf.name)
    if psf.optics.size is not None:
        return whole
    data = centre_crop(whole.data, LARGEST_PSF)
    return whole.with_data(data / data.sum())


def _changed_psf(psf: PsfSettings, condition: Condition, assumed: Volume) -> Volume:
    """Return the true PSF under a condition, on the voxels of the assumed one."""
    step, y, x = assumed.voxel_um
    voxel_um = (step * condition.factors.get("z_step", 1.0), y, x)
    name = f"{psf.name}, {condition.name}"
    if condition.file is not None or psf.file is not None:
        with within(f"[[condition]] {condition.name}"):
            measured = assumed
            if condition.file is not None:
                measured, _ = fit_psf(read(condition.file, voxel_um=condition.voxel_um))
            if (measured.shape[0] == 1) != (assumed.shape[0] == 1):
                raise RlnError(
                    f"{condition.file} has {plural(measured.shape[0], 'plane')} and the PSF "
                    f"{psf.name} {assumed.shape[0]}; both must be volumes, or both single planes."
                )
            true = prepare_psf(measured, RESAMPLE_ONLY, image_voxel_um=voxel_um)
        return replace(true, name=name, voxel_um=assumed.voxel_um)
    optics = replace(condition.microscope(psf.optics), size=assumed.shape)
    aberrations = condition.aberrations or psf.aberrations
    if aberrations is None:
        true = compute_psf(optics, voxel_um, name=name)
    else:
        true = aberrated_psf(optics, voxel_um, aberrations, size=assumed.shape, name=name)
    return replace(true, voxel_um=assumed.voxel_um)


def _identity(psf: Volume) -> list[Any]:
    return [psf.hash, list(psf.voxel_um)]


def _canonical(value: Any) -> Any:
    """Return JSON values with equal numbers in one form, as 1 and 1.0."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
