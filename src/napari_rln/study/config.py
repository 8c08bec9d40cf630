"""Configuration of a study: PSFs, images, methods, conditions.

A study compares methods on simulated images. Of each PSF, number of photons, class of structures
and seed there is one image, and of each condition another that differs in one respect. Networks of
the study are trained for each PSF, number of photons, class of structures and seed.
"""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits, from_dict
from napari_rln.core.volume import Shape, VoxelUm
from napari_rln.deconvolution.method import Method
from napari_rln.engine.methods import method_from_json
from napari_rln.networks.architectures.registry import class_of
from napari_rln.networks.model import Model, load_model
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
_BY_STUDY = ("seed", "device", "views")  # settings of a training that the study sets
_CHOICES = tuple(n for n in inspect.signature(choose_settings).parameters if n not in _BY_STUDY)
TRAIN_KEYS = tuple(
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


PSF_CHANGES = ("factors", "file", "optics", "aberrations")
"""Settings of a condition that change the PSF."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A respect in which an image differs from what the methods assume or were trained on.

    A changed PSF is the true one of the image; methods assume, and are trained with, the PSF
    without the change.

    Attributes
    ----------
    name
        Name in the study, such as ``"z step +10 %"``.
    psfs, photons
        Names of the PSFs, and photons, that it applies to; empty for all.
    factors
        Factors on settings of the microscope, and on ``z_step``, the distance of the planes, which
        alone applies to a PSF from a file too.
    file
        File with the true PSF of the images, whose defects are repaired; resampled to the voxels of
        the assumed one.
    voxel_um
        Voxel size (z, y, x) of that file in micrometres, if it does not state it.
    optics
        Other values of settings of the microscope.
    aberrations
        Aberrations instead of those of the PSF, which must be of the scalar model.
    camera
        Other values of the settings of the camera.
    """

    name: str
    psfs: tuple[str, ...] = ()
    photons: tuple[float, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    file: Path | None = None
    voxel_um: VoxelUm | None = None
    optics: Mapping[str, Any] = field(default_factory=dict)
    aberrations: Aberrations | None = None
    camera: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise RlnError("the name is empty; say what differs.")
        if not (self.changes_psf or self.camera):
            raise RlnError(
                "it changes nothing; give factors, file, optics, aberrations or camera. For other "
                "light, add its photons to those of the study."
            )
        if self.file is not None and (self.factors or self.optics or self.aberrations):
            raise RlnError("give either the file of the true PSF or changes of its optics.")
        if self.file is not None and not self.file.exists():
            raise RlnError(f"there is no file {self.file}.")
        if self.voxel_um is not None and self.file is None:
            raise RlnError("voxel_um is that of a file, and there is none.")
        known = ("z_step", *(f.name for f in fields(MicroscopeSettings)))
        check_keys(self.factors, known, "factors.")
        for name, factor in self.factors.items():
            if not is_number(factor) or not 0.1 <= factor <= 10:
                raise RlnError(f"factors.{name} is {factor!r}; give a number from 0.1 to 10.")

    @property
    def changes_psf(self) -> bool:
        """Whether the image's PSF is another than the assumed one."""
        return any(getattr(self, name) for name in PSF_CHANGES)

    def applies_to(self, psf: str, photons: float) -> bool:
        """Tell whether images through a PSF, at some photons, are made under it."""
        return (not self.psfs or psf in self.psfs) and (not self.photons or photons in self.photons)

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
            if not is_number(value):
                raise RlnError(f"factors.{name} has no number to multiply; set it under optics.")
            changes[name] = value * factor
        return from_dict(MicroscopeSettings, as_dict(assumed) | changes)

    def as_json(self) -> dict[str, Any]:
        """Return the table of this condition, JSON types."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        table = {k: v for k, v in given.items() if v is not None and v not in ((), {})}
        if self.aberrations is not None:
            table["aberrations"] = self.aberrations._asdict()
        if self.file is not None:
            table["file"] = str(self.file)
        lists = ("psfs", "photons", "voxel_um")
        table |= {key: list(table[key]) for key in lists if key in table}
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
                raise unknown(name, value, words)
        if not {"preset", "initial_model"} & {*choices}:
            choices["initial_model"] = "none"
        settings, initial = choose_settings(**choices)
        if "minutes" in given and "steps" not in given:
            given["steps"] = None  # replaces those of the preset
        if "shape" in given and "patch" not in given:  # whole volumes, for some architectures
            step = max(2, class_of(settings.architecture).step)
            given["patch"] = min(settings.patch, step * (min(given["shape"]) // step))
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
        Seeds; of each there is one test image.
    psfs, methods, conditions
        PSFs, methods, and respects in which test images differ.
    test_structures, train_structures
        Classes of structures of the test images, and of the trainings.
    train_photons
        Photons of the trainings; empty: each number of photons has its own training, and a
        network is tested on that of its training.
    train_seeds
        Seeds of the trainings, taken by turns for the test images; empty: those of the test images.
    training_volumes
        Numbers of training volumes to compare; empty: that of the settings of the training.
    budget
        Settings of all trainings, such as ``steps`` or ``minutes``.
    camera
        Background and camera of all images.
    device
        Compute device of all methods.
    baseline
        Name of the method that the report compares the others with; empty: the best classical one.
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
    train_seeds: tuple[int, ...] = ()
    training_volumes: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()
    budget: Mapping[str, Any] = field(default_factory=dict)
    camera: CameraSettings = field(default_factory=CameraSettings)
    device: str = "auto"
    baseline: str = ""

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
        if self.baseline and self.baseline not in (names := [m.name for m in self.methods]):
            with within("baseline"):
                raise unknown("method", self.baseline, names)
        with within("[budget]"):
            check_keys(self.budget, TRAIN_KEYS)
            if {"steps", "minutes"} <= {*self.budget}:
                raise RlnError("steps and minutes both set the duration; give one of them.")
        for method in self.methods:
            with within(f"[[method]] {method.name}"):
                _check_method(method, self)
        for condition in self.conditions:
            with within(f"[[condition]] {condition.name}"):
                _check_condition(condition, self)

    @property
    def trained(self) -> tuple[StudyMethod, ...]:
        """Methods that the study trains."""
        return tuple(method for method in self.methods if method.is_trained)

    def as_json(self) -> dict[str, Any]:
        """Return the tables from which config_file.study_of makes equal settings, JSON types."""
        every = (*self.train_structures, *self.test_structures)
        return {
            "name": self.name,
            "shape": list(self.shape),
            "photons": list(self.photons),
            "seeds": list(self.seeds),
            "train_photons": list(self.train_photons),
            "train_seeds": list(self.train_seeds),
            "training_volumes": list(self.training_volumes),
            "train_structures": [each.name for each in self.train_structures],
            "test_structures": [each.name for each in self.test_structures],
            "classes": {c.name: list(c.kinds) for c in every if c.kinds != (c.name,)},
            "device": self.device,
            **({"baseline": self.baseline} if self.baseline else {}),
            "budget": dict(self.budget),
            "camera": as_dict(self.camera),
            "psf": [psf.as_json() for psf in self.psfs],
            "method": [method.as_json() for method in self.methods],
            "condition": [condition.as_json() for condition in self.conditions],
        }

    def camera_of(self, condition: Condition | None) -> CameraSettings:
        """Return the camera under a condition."""
        if condition is None:
            return self.camera
        check_keys(condition.camera, [f.name for f in fields(CameraSettings)], "camera.")
        return from_dict(CameraSettings, as_dict(self.camera) | dict(condition.camera))


def _check_values(settings: StudySettings) -> None:
    """Raise for a list or number at the top of the configuration that is invalid."""
    if not isinstance(settings.name, str) or not settings.name:
        raise RlnError(f"name is {settings.name!r}; give the title of the study.")
    if not isinstance(settings.device, str):
        raise RlnError(f"device is {settings.device!r}; give auto, cpu, cuda, cuda:1 or mps.")
    shape = settings.shape
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(
        is_whole(n) and _SHORTEST <= n <= 2048 for n in shape
    ):  # fmt: skip
        raise RlnError(
            f"shape is {shape}; give three numbers of voxels (z, y, x) from {_SHORTEST} to 2048."
        )
    for key, least, most, needed in (
        ("photons", 1e-3, 1e7, True),
        ("train_photons", 1e-3, 1e7, False),
        ("train_seeds", 0, MOST_SEED, False),
        ("seeds", 0, MOST_SEED, True),
        ("training_volumes", 1, 100_000, False),
    ):
        values = getattr(settings, key)
        whole = key in ("seeds", "train_seeds", "training_volumes")
        kind = "whole numbers" if whole else "numbers"
        if (
            not isinstance(values, tuple)
            or (needed and not values)
            or len(set(values)) < len(values)
            or not all(is_number(v) and least <= v <= most for v in values)
            or (whole and not all(map(is_whole, values)))
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
            raise unknown("PSF", name, names)
    if not set(condition.photons) <= set(settings.photons):
        raise RlnError(
            f"photons is {_shown(condition.photons)}, but those of the study are "
            f"{_shown(settings.photons)}; a condition is compared with the same image without it. "
            "Choose among these, or add more to those of the study."
        )
    settings.camera_of(condition)
    if not condition.changes_psf or condition.file is not None:
        return
    for psf in settings.psfs:
        if condition.psfs and psf.name not in condition.psfs:
            continue
        with within(f"with the PSF {psf.name}"):
            if psf.file is not None:
                only_step = set(condition.factors) == {"z_step"}
                if only_step and not condition.optics and condition.aberrations is None:
                    continue
                raise RlnError(
                    "the optics of a PSF from a file are unknown, so that only the z_step can be "
                    "changed; give the file of another PSF, or list under psfs those that have "
                    "optics."
                )
            condition.microscope(psf.optics)
            if condition.aberrations is not None and psf.aberrations is None:
                psf.check_scalar()


@contextmanager
def within(where: str) -> Iterator[None]:
    """Name the table in the message of an error; its keys are no options of the command line."""
    try:
        yield
    except RlnError as error:
        raise RlnError(f"{where}: {str(error).replace('`', '')}") from error


def check_keys(given: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> None:
    """Raise an RlnError for an unknown key."""
    names = list(known)
    for name in given:
        if name not in names:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{each}" for each in names])


def unknown(what: str, name: object, known: Sequence[str]) -> RlnError:
    """Return the error on an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(str(name), known, 1)
    advice = f"do you mean {near[0]}?" if near else f"give one of {', '.join(known)}."
    return RlnError(f"the {what} {name} is unknown; {advice}")


def _words(hint: Any) -> tuple[str, ...]:
    """Return the words that an annotation allows; empty where all are allowed."""
    if isinstance(hint, str):
        return (hint,)
    return tuple(word for member in get_args(hint) for word in _words(member))


def is_number(value: Any) -> bool:
    """Tell whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else repr(value)
