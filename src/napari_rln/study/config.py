"""Configuration of a study: PSFs, images, methods, conditions; read from TOML, written as JSON.

A study compares methods on simulated images. Of each PSF, number of photons, class of structures
and seed there is one image, and of each condition another that differs in one respect. Networks of
the study are trained for each PSF, number of photons, class of structures and seed.
"""

import difflib
import inspect
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits, from_dict
from napari_rln.core.volume import Shape, VoxelUm
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.settings import RichardsonLucySettings
from napari_rln.engine.methods import METHODS, method_from_json
from napari_rln.networks.model import Model, load_model, shipped_models
from napari_rln.networks.network import Network
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.aberrations import Aberrations
from napari_rln.simulate.conditions import Detector, FieldConditions
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.simulate.structures import Structure, StructureSettings
from napari_rln.train.training_set import choose_settings
from napari_rln.train.training_settings import TrainSettings

Stop = int | Literal["auto", "best"]
"""Number of iterations: fixed, automatic, or that of the best result by the ground truth."""

MOST_SEED = 999_999
"""Highest seed of a study."""

_SHORTEST = 12  # voxels: the window of the SSIM has 11
_ACCELERATED = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150)
_PLAIN = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1000)
_UNMATCHED = tuple(range(1, 13))
_STRUCTURES: tuple[Structure, ...] = get_args(Structure)
_BY_STUDY = ("seed", "device", "views")  # settings of a training that the study sets
_CHOICES = tuple(n for n in inspect.signature(choose_settings).parameters if n not in _BY_STUDY)
_TRAIN_KEYS = tuple(
    dict.fromkeys([*_CHOICES, *(f.name for f in fields(TrainSettings) if f.name not in _BY_STUDY)])
)


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """Background and camera of the images.

    Parameters
    ----------
    background
        Flat background, as a fraction of the photons.
    read_noise
        Standard deviation in photons, of a plain or sCMOS camera.
    gain, offset
        Image units per photon, and image value without light.
    detector
        plain: Poisson noise and read noise; else as in :mod:`napari_rln.simulate.conditions`, with
        whole numbers of 16 bits: scmos has pixels of unequal gains and offsets, emccd and pmt
        multiply photons, which adds noise, ideal counts them.
    """

    background: Annotated[float, {"min": 1e-6, "max": 100.0}] = 0.1
    read_noise: Annotated[float, {"min": 0.0, "max": 1000.0}] = 1.0
    gain: Annotated[float, {"min": 1e-6, "max": 1e6}] = 1.0
    offset: Annotated[float, {"min": 0.0, "max": 16_000.0}] = 0.0
    detector: Literal["plain", "scmos", "emccd", "pmt", "ideal"] = "plain"

    def __post_init__(self) -> None:
        check_limits(self)

    def imaging(self, photons: float) -> ImagingSettings:
        """Return light and camera of an image."""
        return ImagingSettings(
            photons=(photons, photons),
            background=(self.background, self.background),
            read_noise=(self.read_noise, self.read_noise),
            gain=self.gain,
            offset=self.offset,
        )

    def conditions(self) -> FieldConditions | None:
        """Return the conditions of the detector; none for a plain one."""
        if self.detector == "plain":
            return None
        scmos, emccd, pmt, ideal = (float(kind == self.detector) for kind in get_args(Detector))
        return FieldConditions(
            uneven=0.0, bleached=0.0, empty=0.0, hot=0.0, hot_pixels=0.0, saturated=0.0,
            interpolated=0.0, no_offset=0.0, high_offset=0.0, pattern=1.0, multiplied=1.0,
            detectors=(scmos, emccd, pmt, ideal), bits=(0.0, 0.0, 1.0),
            read_noise=(self.read_noise, self.read_noise), gain=(self.gain, self.gain),
            offset=(self.offset, self.offset),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StructureClass:
    """A class of structures: one kind, or several that occur together.

    Attributes
    ----------
    name
        Name in the study.
    kinds
        Kinds of :data:`napari_rln.simulate.structures.Structure`.
    """

    name: str
    kinds: tuple[Structure, ...]

    @property
    def settings(self) -> StructureSettings:
        """Settings of the objects, of constant density."""
        return StructureSettings(structures=self.kinds, density_jitter=(1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class PsfSettings:
    """A PSF of the study: a file, or optics.

    Attributes
    ----------
    name
        Name in the study.
    file
        PSF file, whose defects are repaired; else the PSF is computed from the optics.
    voxel_um
        Voxel size (z, y, x) in micrometres; required without a file.
    optics
        The microscope.
    aberrations
        Aberrations, in scalar theory.
    """

    name: str
    file: Path | None = None
    voxel_um: VoxelUm | None = None
    optics: MicroscopeSettings = field(default_factory=MicroscopeSettings)
    aberrations: Aberrations | None = None

    def __post_init__(self) -> None:
        if self.file is None and self.voxel_um is None:
            raise RlnError("give voxel_um (z, y, x) in micrometres, or the file of a PSF.")
        if self.file is not None and (
            self.aberrations is not None or self.optics != MicroscopeSettings()
        ):
            raise RlnError("give either a file or the optics, not both.")
        if self.file is not None and not self.file.exists():
            raise RlnError(f"there is no file {self.file}.")
        if self.aberrations is not None:
            self.check_scalar(allow_vectorial=True)

    def check_scalar(self, *, allow_vectorial: bool = False) -> None:
        """Raise unless aberrations can be added."""
        optics = self.optics
        mismatch = optics.sample_index not in (None, optics.immersion_index) and optics.depth_um > 0
        if self.file is not None or optics.modality == "gaussian" or mismatch:
            raise RlnError(
                "aberrations need optics that are not gaussian, of a sample at the immersion's "
                "index; leave out sample_index and depth_um."
            )
        if optics.model != "scalar" and not allow_vectorial:
            raise RlnError(
                'aberrations are computed in scalar theory; set model = "scalar" for the PSF '
                "that is assumed, so that nothing else differs."
            )

    def as_json(self) -> dict[str, Any]:
        """Return the table of this PSF, JSON types."""
        table: dict[str, Any] = {"name": self.name}
        if self.voxel_um is not None:
            table["voxel_um"] = list(self.voxel_um)
        if self.file is not None:
            return table | {"file": str(self.file)}
        table |= {k: v for k, v in as_dict(self.optics).items() if v is not None}
        if self.aberrations is not None:
            table["aberrations"] = self.aberrations._asdict()
        return table


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A respect in which an image differs from what the methods assume or were trained on.

    A changed PSF is the true one of the image; methods assume, and are trained with, the PSF
    without the change.

    Attributes
    ----------
    name
        Name in the study, such as ``"z step +10 %"``.
    psfs
        Names of the PSFs that it applies to; empty for all.
    factors
        Factors on settings of the microscope, and on ``z_step``, the distance of the planes.
    optics
        Other values of settings of the microscope.
    aberrations
        Further aberrations; the PSF must be of the scalar model.
    photons
        Photons of the image.
    camera
        Other values of the settings of the camera.
    """

    name: str
    psfs: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    optics: Mapping[str, Any] = field(default_factory=dict)
    aberrations: Aberrations | None = None
    photons: float | None = None
    camera: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise RlnError("the name is empty; say what differs.")
        if not (self.changes_psf or self.photons is not None or self.camera):
            raise RlnError("it changes nothing; give factors, optics, aberrations, photons, camera.")
        known = ("z_step", *(f.name for f in fields(MicroscopeSettings)))
        _check_keys(self.factors, known, "factors.")
        for name, factor in self.factors.items():
            if not _is_number(factor) or not 0.1 <= factor <= 10:
                raise RlnError(f"factors.{name} is {factor!r}; give a number from 0.1 to 10.")

    @property
    def changes_psf(self) -> bool:
        """Whether the image's PSF is another than the assumed one."""
        return bool(self.factors or self.optics or self.aberrations)

    def microscope(self, assumed: MicroscopeSettings) -> MicroscopeSettings:
        """Return the true microscope.

        Raises
        ------
        RlnError
            If a value to multiply is absent, or the result is out of range.
        """
        changes = dict(self.optics)
        for name, factor in self.factors.items():
            if name == "z_step":
                continue
            value = getattr(assumed, name)
            if not _is_number(value):
                raise RlnError(f"factors.{name} has no number to multiply; set it under optics.")
            changes[name] = value * factor
        return from_dict(MicroscopeSettings, as_dict(assumed) | changes)

    def as_json(self) -> dict[str, Any]:
        """Return the table of this condition, JSON types."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        table = {k: v for k, v in given.items() if v is not None and v not in ((), {})}
        if self.aberrations is not None:
            table["aberrations"] = self.aberrations._asdict()
        if self.psfs:
            table["psfs"] = list(self.psfs)
        return table


@dataclass(frozen=True, kw_only=True)
class StudyMethod:
    """A method of the study.

    Attributes
    ----------
    name
        Name in the study.
    kind
        ``"model"`` applies a trained model, ``"train"`` trains one; else a classical method by its
        name in commands.
    stop
        Iterations of a classical method; none where it has none.
    counts
        Numbers of iterations among which the best is.
    model
        Name or file of a model.
    settings
        Settings of the classical method or of the training.
    """

    name: str
    kind: str
    stop: Stop | None = None
    counts: tuple[int, ...] = ()
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        """Whether the study trains it."""
        return self.kind == "train"

    @property
    def is_classical(self) -> bool:
        """Whether it is a classical method."""
        return self.kind not in ("train", "model")

    def classical(self, device: str) -> Method:
        """Return the classical method; the number of iterations of a fixed or automatic stop."""
        described = {"kind": self.kind, "device": device, **self.settings}
        if self.stop is not None:
            described["iterations"] = "auto" if self.stop == "best" else self.stop
        return method_from_json(described, Path())

    def training(
        self,
        budget: Mapping[str, Any],
        *,
        volumes: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> tuple[TrainSettings, Model | None]:
        """Return settings and initial model of a training.

        The budget gives what the method leaves open. A number of volumes is that of examples, all
        of which are met within the first half of the steps. Weights are new unless the method
        names a preset or an initial model.
        """
        if {"steps", "minutes"} & {*self.settings}:
            budget = {k: v for k, v in budget.items() if k not in ("steps", "minutes")}
        given = {**budget, **self.settings}
        choices = {name: given.pop(name) for name in _CHOICES if name in given}
        for name, value in choices.items():
            words = _words(get_type_hints(choose_settings)[name])
            if words and value not in words:
                raise _unknown(name, value, words)
        if not {"preset", "initial_model"} & {*choices}:
            choices["initial_model"] = "none"
        settings, initial = choose_settings(**choices)
        if "minutes" in given and "steps" not in given:
            given["steps"] = None  # replaces those of the preset
        settings = from_dict(TrainSettings, as_dict(settings) | given)
        settings = replace(settings, seed=seed, device=device)
        if volumes is not None:
            often = 1 if settings.steps is None else max(1, settings.steps // (2 * volumes))
            often = min(settings.steps_per_example, often)
            settings = replace(settings, examples=volumes, steps_per_example=often)
        return settings, initial

    def as_json(self) -> dict[str, Any]:
        """Return the table of this method, JSON types."""
        table: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.stop is not None:
            table["stop"] = self.stop
        if self.stop == "best":
            table["counts"] = list(self.counts)
        if self.model:
            table["model"] = self.model
        return table | dict(self.settings)


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of a study.

    Attributes
    ----------
    name
        Title of the study.
    shape
        Size (z, y, x) of the test images.
    photons
        Photons of the brightest structures of the test images.
    seeds
        Seeds; of each there is one test image and one training.
    psfs, methods, conditions
        PSFs, methods, and respects in which test images differ.
    test_structures, train_structures
        Classes of structures of the test images, and of the trainings.
    train_photons
        Photons of the trainings; empty: each number of photons has its own training, and a
        network is tested on that of its training.
    training_volumes
        Numbers of training volumes to compare; empty: that of the settings of the training.
    budget
        Settings of all trainings, such as ``steps`` or ``minutes``.
    camera
        Background and camera of all images.
    device
        Compute device of all methods.
    """

    name: str
    shape: Shape = (64, 64, 64)
    photons: tuple[float, ...]
    seeds: tuple[int, ...]
    psfs: tuple[PsfSettings, ...]
    methods: tuple[StudyMethod, ...]
    test_structures: tuple[StructureClass, ...]
    train_structures: tuple[StructureClass, ...] = ()
    train_photons: tuple[float, ...] = ()
    training_volumes: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()
    budget: Mapping[str, Any] = field(default_factory=dict)
    camera: CameraSettings = field(default_factory=CameraSettings)
    device: str = "auto"

    def __post_init__(self) -> None:
        _check_values(self)
        for what, named in (
            ("psf", self.psfs),
            ("method", self.methods),
            ("condition", self.conditions),
            ("test_structures", self.test_structures),
            ("train_structures", self.train_structures),
        ):
            names = [each.name for each in named]
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise RlnError(f"{what}: the name {min(twice)} occurs twice; rename one.")
        with _within("[budget]"):
            _check_keys(self.budget, _TRAIN_KEYS)
            if {"steps", "minutes"} <= {*self.budget}:
                raise RlnError("steps and minutes both set the duration; give one of them.")
        for method in self.methods:
            with _within(f"[[method]] {method.name}"):
                _check_method(method, self)
        for condition in self.conditions:
            with _within(f"[[condition]] {condition.name}"):
                _check_condition(condition, self)

    @property
    def trained(self) -> tuple[StudyMethod, ...]:
        """Methods that the study trains."""
        return tuple(method for method in self.methods if method.is_trained)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the settings in a TOML file, or in the ``study.json`` of a study.

        Raises
        ------
        RlnError
            If the file is missing, cannot be read, or has a wrong key or value.
        """
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".json":
                return cls.from_json(json.loads(text)["config"], path.parent)
            return cls.from_json(tomllib.loads(text), path.parent)
        except (OSError, UnicodeError, tomllib.TOMLDecodeError, LookupError, TypeError) as error:
            raise RlnError(f"{path} cannot be read as a study: {error}.") from error
        except json.JSONDecodeError as error:
            raise RlnError(f"{path} cannot be read as a study: {error}.") from error

    @classmethod
    def from_json(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """Return the settings from the tables of a file; names of files are seen from a folder.

        Raises
        ------
        RlnError
            If a key is unknown or missing, or a value is invalid; the message names its table.
        """
        lists = ("psf", "method", "condition")
        plain = ("name", "shape", "photons", "seeds", "train_photons", "training_volumes", "device")
        more = ("train_structures", "test_structures", "classes", "budget", "camera")
        _check_keys(config, (*plain, *more, *lists))
        for key in ("name", "photons", "seeds", "test_structures", "psf", "method"):
            if key not in config:
                raise RlnError(f"the study has no {key}; add it.")
        for key in ("classes", "budget", "camera"):
            if not isinstance(config.get(key, {}), Mapping):
                raise RlnError(f"{key} is {config[key]!r}; make it a table, [{key}].")
        tables = {kind: _tables(kind, config.get(kind, [])) for kind in lists}
        classes = config.get("classes", {})
        given: dict[str, Any] = {k: _frozen(config[k]) for k in plain if k in config}
        with _within("[camera]"):
            camera = _camera(CameraSettings(), config.get("camera", {}))
        return cls(
            **given,
            **{
                key: _classes(key, config[key], classes)
                for key in ("train_structures", "test_structures")
                if key in config
            },
            psfs=tuple(_psf(table, folder) for table in tables["psf"]),
            methods=tuple(_method(table, folder) for table in tables["method"]),
            conditions=tuple(_condition(table) for table in tables["condition"]),
            budget=dict(config.get("budget", {})),
            camera=camera,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the tables from which :meth:`from_json` makes equal settings, JSON types."""
        every = (*self.train_structures, *self.test_structures)
        return {
            "name": self.name,
            "shape": list(self.shape),
            "photons": list(self.photons),
            "seeds": list(self.seeds),
            "train_photons": list(self.train_photons),
            "training_volumes": list(self.training_volumes),
            "train_structures": [each.name for each in self.train_structures],
            "test_structures": [each.name for each in self.test_structures],
            "classes": {c.name: list(c.kinds) for c in every if c.kinds != (c.name,)},
            "device": self.device,
            "budget": dict(self.budget),
            "camera": as_dict(self.camera),
            "psf": [psf.as_json() for psf in self.psfs],
            "method": [method.as_json() for method in self.methods],
            "condition": [condition.as_json() for condition in self.conditions],
        }

    def camera_of(self, condition: Condition | None) -> CameraSettings:
        """Return the camera under a condition."""
        return self.camera if condition is None else _camera(self.camera, condition.camera)


def _check_values(settings: StudySettings) -> None:
    """Raise for a list or number at the top of the configuration that is invalid."""
    if not isinstance(settings.name, str) or not settings.name:
        raise RlnError(f"name is {settings.name!r}; give the title of the study.")
    if not isinstance(settings.device, str):
        raise RlnError(f"device is {settings.device!r}; give auto, cpu, cuda, cuda:1 or mps.")
    shape = settings.shape
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(
        _is_whole(n) and _SHORTEST <= n <= 2048 for n in shape
    ):  # fmt: skip
        raise RlnError(
            f"shape is {shape}; give three numbers of voxels (z, y, x) from {_SHORTEST} to 2048."
        )
    for key, least, most, needed in (
        ("photons", 1e-3, 1e7, True),
        ("train_photons", 1e-3, 1e7, False),
        ("seeds", 0, MOST_SEED, True),
        ("training_volumes", 1, 100_000, False),
    ):
        values = getattr(settings, key)
        whole = key in ("seeds", "training_volumes")
        kind = "whole numbers" if whole else "numbers"
        if (
            not isinstance(values, tuple)
            or (needed and not values)
            or len(set(values)) < len(values)
            or not all(_is_number(v) and least <= v <= most for v in values)
            or (whole and not all(map(_is_whole, values)))
        ):
            raise RlnError(
                f"{key} is {_shown(values)}; give a list of different {kind} from {least:g} to "
                f"{most:g}."
            )
    for key, table in (("psfs", "[[psf]]"), ("methods", "[[method]]")):
        if not getattr(settings, key):
            raise RlnError(f"the study has no {table}; add one.")
    if not settings.test_structures:
        raise RlnError("test_structures is empty; name a class of structures.")
    if settings.trained and not settings.train_structures:
        raise RlnError(
            f"{settings.trained[0].name} is trained, but train_structures is empty; name the "
            "structures to train on."
        )


def _check_method(method: StudyMethod, settings: StudySettings) -> None:
    """Raise unless a method can be made."""
    if method.is_trained:
        for volumes in settings.training_volumes or (None,):
            method.training(settings.budget, volumes=volumes, device=settings.device)
    elif method.kind == "model":
        load_model(method.model)
    else:
        method.classical(settings.device)


def _check_condition(condition: Condition, settings: StudySettings) -> None:
    """Raise unless a condition applies to its PSFs."""
    names = [psf.name for psf in settings.psfs]
    for name in condition.psfs:
        if name not in names:
            raise _unknown("PSF", name, names)
    settings.camera_of(condition)
    if not condition.changes_psf:
        return
    for psf in settings.psfs:
        if condition.psfs and psf.name not in condition.psfs:
            continue
        with _within(f"with the PSF {psf.name}"):
            if psf.file is not None:
                raise RlnError(
                    "the optics of a PSF from a file are unknown; list under psfs those that "
                    "have optics."
                )
            condition.microscope(psf.optics)
            if condition.aberrations is not None and psf.aberrations is None:
                psf.check_scalar()


# --- from tables


def _tables(kind: str, given: Any) -> Sequence[Mapping[str, Any]]:
    """Return the tables of a kind, each of which has a name."""
    if not isinstance(given, list) or not all(isinstance(table, Mapping) for table in given):
        raise RlnError(f"{kind} must be tables, each under [[{kind}]].")
    for number, table in enumerate(given, 1):
        if not isinstance(table.get("name"), str) or not table["name"]:
            raise RlnError(f"[[{kind}]] number {number} has no name; give one.")
    return given


def _classes(key: str, given: Any, named: Mapping[str, Any]) -> tuple[StructureClass, ...]:
    """Return classes of structures from names of kinds or classes, and from lists of kinds."""
    if not isinstance(given, list):
        raise RlnError(f"{key} is {given!r}; give a list of structures.")
    found = []
    for item in given:
        kinds = named.get(item, [item]) if isinstance(item, str) else item
        if not isinstance(kinds, list) or not kinds:
            raise RlnError(f"{key} has {item!r}; give names of structures, or lists of them.")
        for kind in kinds:
            if kind not in _STRUCTURES:
                with _within(key):
                    raise _unknown("structure", kind, [*named, *_STRUCTURES])
        name = item if isinstance(item, str) else " + ".join(kinds)
        with _within(f"{key}, {name}"):
            made = StructureClass(name=name, kinds=tuple(kinds))
            _ = made.settings  # checks the kinds
        found.append(made)
    return tuple(found)


def _psf(table: Mapping[str, Any], folder: Path) -> PsfSettings:
    optics = [f.name for f in fields(MicroscopeSettings)]
    with _within(f"[[psf]] {table['name']}"):
        _check_keys(table, ("name", "file", "voxel_um", "aberrations", *optics))
        voxel_um = _frozen(table.get("voxel_um"))
        if voxel_um is not None and not (
            isinstance(voxel_um, tuple) and len(voxel_um) == 3 and all(map(_is_number, voxel_um))
        ):
            raise RlnError(f"voxel_um is {voxel_um}; give three lengths (z, y, x) in micrometres.")
        file = table.get("file")
        if file is not None and not isinstance(file, str):
            raise RlnError(f"file is {file!r}; give the name of a file.")
        return PsfSettings(
            name=table["name"],
            file=None if file is None else (folder / file).absolute(),
            voxel_um=voxel_um and tuple(map(float, voxel_um)),
            optics=from_dict(MicroscopeSettings, {k: table[k] for k in optics if k in table}),
            aberrations=_aberrations(table),
        )


def _condition(table: Mapping[str, Any]) -> Condition:
    with _within(f"[[condition]] {table['name']}"):
        _check_keys(table, [f.name for f in fields(Condition)])
        for key in ("factors", "optics", "camera"):
            if not isinstance(table.get(key, {}), Mapping):
                raise RlnError(f"{key} is {table[key]!r}; give a table of names and values.")
        _check_keys(table.get("optics", {}), [f.name for f in fields(MicroscopeSettings)], "optics.")
        photons, psfs = table.get("photons"), table.get("psfs", [])
        if photons is not None and not (_is_number(photons) and 1e-3 <= photons <= 1e7):
            raise RlnError(f"photons is {photons!r}; give a number from 0.001 to 1e7.")
        if not isinstance(psfs, list) or not all(isinstance(name, str) for name in psfs):
            raise RlnError(f"psfs is {psfs!r}; give a list of names of PSFs.")
        return Condition(
            name=table["name"],
            psfs=tuple(psfs),
            factors=dict(table.get("factors", {})),
            optics=dict(table.get("optics", {})),
            aberrations=_aberrations(table),
            photons=photons,
            camera=dict(table.get("camera", {})),
        )


def _aberrations(table: Mapping[str, Any]) -> Aberrations | None:
    given = table.get("aberrations")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise RlnError(f"aberrations is {given!r}; give a table such as {{ spherical = 0.1 }}.")
    _check_keys(given, Aberrations._fields, "aberrations.")
    for name, value in given.items():
        if not _is_number(value) or not abs(value) <= 10:
            raise RlnError(f"aberrations.{name} is {value!r}; give a number of waves or radians.")
    return Aberrations(**given)


def _camera(before: CameraSettings, changes: Mapping[str, Any]) -> CameraSettings:
    _check_keys(changes, [f.name for f in fields(CameraSettings)], "camera.")
    return from_dict(CameraSettings, as_dict(before) | dict(changes))


def _method(table: Mapping[str, Any], folder: Path) -> StudyMethod:
    kinds = [kind for kind in METHODS if kind != Network.kind]
    name, kind = table["name"], table.get("kind")
    with _within(f"[[method]] {name}"):
        if kind not in (*kinds, "model", "train"):
            raise RlnError(f"kind is {kind!r}; give {', '.join(kinds)}, model or train.")
        rest = {k: v for k, v in table.items() if k not in ("name", "kind")}
        if kind == "train":
            _check_keys(rest, _TRAIN_KEYS)
            if {"steps", "minutes"} <= {*rest}:
                raise RlnError("steps and minutes both set the duration; give one of them.")
            return StudyMethod(name=name, kind=kind, settings=rest)
        if kind == "model":
            _check_keys(rest, ("model",))
            model = rest.get("model")
            if not isinstance(model, str):
                raise RlnError("give the name or the file of its model, under model.")
            shipped = model in shipped_models()
            where = model if shipped else str((folder / model).absolute())
            return StudyMethod(name=name, kind=kind, model=where)
        return _classical(name, kind, rest)


def _classical(name: str, kind: str, rest: dict[str, Any]) -> StudyMethod:
    """Return a classical method from the keys of its table."""
    own = [f.name for f in fields(METHODS[kind])]  # type: ignore[arg-type]
    iterative = "iterations" in own
    if "iterations" in rest:
        raise RlnError("the number of iterations is that of stop: auto, best, or a number.")
    set_by_study = ("iterations", "device", "report_every")
    more = ("stop", "counts") if iterative else ()
    _check_keys(rest, (*more, *(n for n in own if n not in set_by_study)))
    if not iterative:
        return StudyMethod(name=name, kind=kind, settings=rest)
    stop = rest.pop("stop", "auto")
    if stop not in ("auto", "best") and not (_is_whole(stop) and 1 <= stop <= 100_000):
        raise RlnError(f"stop is {stop!r}; give auto, best, or a number of iterations.")
    counts = rest.pop("counts", None)
    if counts is not None and stop != "best":
        raise RlnError('counts are for stop = "best"; leave them out.')
    if counts is None:
        counts = _usual_counts(rest) if stop == "best" else ()
    if not isinstance(counts, list | tuple) or not all(_is_whole(n) and n >= 1 for n in counts):
        raise RlnError(f"counts is {counts!r}; give a list of numbers of iterations.")
    return StudyMethod(
        name=name, kind=kind, stop=stop, counts=tuple(sorted({*counts})), settings=rest
    )


def _usual_counts(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers of iterations among which the best is, by the speed of convergence."""
    shown = ("back_projector", "acceleration")
    known = {name: settings[name] for name in shown if name in settings}
    rld = from_dict(RichardsonLucySettings, known)
    if rld.back_projector != "matched":
        return _UNMATCHED
    return _ACCELERATED if rld.accelerated else _PLAIN


# --- small checks


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Name the table in the message of an error; its keys are no options of the command line."""
    try:
        yield
    except RlnError as error:
        raise RlnError(f"{where}: {str(error).replace('`', '')}") from error


def _check_keys(given: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> None:
    """Raise an RlnError for an unknown key."""
    names = list(known)
    for name in given:
        if name not in names:
            raise _unknown("key", f"{prefix}{name}", [f"{prefix}{each}" for each in names])


def _unknown(what: str, name: object, known: Sequence[str]) -> RlnError:
    """Return the error on an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(str(name), known, 1)
    advice = f"do you mean {near[0]}?" if near else f"give one of {', '.join(known)}."
    return RlnError(f"the {what} {name} is unknown; {advice}")


def _words(hint: Any) -> tuple[str, ...]:
    """Return the words that an annotation allows; empty where all are allowed."""
    if isinstance(hint, str):
        return (hint,)
    return tuple(word for member in get_args(hint) for word in _words(member))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else repr(value)
