"""Training set, settings and initial model of a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import Volume, VoxelUm, on_one_grid
from napari_rln.deconvolution.settings import check_image
from napari_rln.networks.architectures.base import Views
from napari_rln.networks.architectures.registry import ArchitectureName, class_of, name_of
from napari_rln.networks.model import UNIVERSAL, Model, load_model
from napari_rln.networks.suitability import widths_in_voxels
from napari_rln.psf.prepare import check_psf
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import ImagingSettings, imaging_like
from napari_rln.simulate.optics import FAMILY_WIDTHS
from napari_rln.simulate.structures import HELD_OUT, TRAINING, Structure, StructureSettings
from napari_rln.train.example_folder import ExampleFolder
from napari_rln.train.examples import (
    ExampleSource,
    PairFolder,
    Symmetry,
    SyntheticPairs,
    pairs_in,
    symmetry_of,
)
from napari_rln.train.recipes import settings_of
from napari_rln.train.training_settings import Preset, TrainSettings

_HELD_OUT = 1_000_000  # added to the seed: validation differs from training
_FIELD_LIGHT = ImagingSettings(photons=(10.0, 2000.0), background=(0.005, 1.0))
_UNSEEN: tuple[Structure, ...] = HELD_OUT[:2]  # validated on; the others are for final tests alone


class TrainingSet(NamedTuple):
    """Sources of training and validation pairs, PSF and initial model of a training.

    The PSF is none for a family, the initial model for new weights; ``inputs`` are names and hashes
    for the record.
    """

    source: ExampleSource
    held_out: ExampleSource
    psf: Volume | None
    psf_widths: dict[str, tuple[float, float]]
    initial_model: Model | None
    inputs: dict[str, str]
    folder: ExampleFolder | None = None


def choose_settings(
    preset: Preset | None = None,
    variant: Literal["started", "paper"] | None = None,
    initial_model: str | None = None,
    views: Views | None = None,
    architecture: ArchitectureName | None = None,
) -> tuple[TrainSettings, Model | None]:
    """Return the settings of a preset and the initial model.

    Parameters
    ----------
    preset
        Name of the preset. None: quick with an initial model, otherwise full.
    variant
        Variant of the network. None: that of the initial model, or else of the preset.
    initial_model
        Name or file of the initial model, or ``"none"``. None: the universal model, except for the
        variant or preset paper, the presets full and universal, and two views. The settings become
        those of the model; with the preset universal its variant and normalisation alone.
    views
        Number and combination of views. None: that of the initial model, or else single.
    architecture
        Architecture of the network. None: that of the initial model, or else rln.

    Raises
    ------
    RlnError
        If the model is of another variant, architecture or of other views.
    """
    paper = "paper" in (preset, variant)
    rival = architecture not in (None, "rln")
    if initial_model is None:
        fresh = paper or rival or preset in ("full", "universal") or views not in (None, "single")
        initial_model = "none" if fresh else UNIVERSAL
    model = None if initial_model == "none" else load_model(initial_model)
    chosen = architecture or ("rln" if model is None else name_of(model.network))
    settings = settings_of(chosen, preset or ("full" if model is None else "quick"))
    if variant is not None:
        settings = replace(settings, variant=variant)
    if model is None:
        return replace(settings, views=views or "single"), None
    own_views = model.network.views
    _check_initial_model(model, variant or model.variant, views or own_views, chosen)
    applied: dict[str, Any] = {}
    if preset != "universal":  # which needs no more of a model than its weights
        applied = {
            "start": model.start.method if model.start.needs_psf else settings.start,
            "start_iterations": model.start.iterations,
            "start_beyond": model.start.beyond,
            "mirror": any(model.mirrors),
        }
    settings = replace(
        settings,
        variant=model.variant,
        views=own_views,
        normalisation=model.normalisation,
        refine=0.0 if model.refinement is None else 1.0,
        **applied,
    )
    return settings, model


def training_set_of(
    settings: TrainSettings,
    *,
    psf: Volume | None = None,
    psf_b: Volume | None = None,
    any_psf: bool = False,
    pairs: Path | None = None,
    pairs_voxel_um: VoxelUm | None = None,
    like: Volume | None = None,
    structures: StructureSettings | None = None,
    imaging: ImagingSettings | None = None,
    conditions: FieldConditions | None = None,
    folder: Path | None = None,
    initial_model: Model | None = None,
) -> TrainingSet:
    """Return training set, validation set and initial model of a training.

    Parameters
    ----------
    settings
        Settings of the training.
    psf
        PSF of the model, ready for use.
    psf_b
        PSF of a second view, on the same voxels and in the first view's orientation; see
        :func:`napari_rln.deconvolution.views.psfs_of_views`.
    any_psf
        Train for the family of PSFs instead of one.
    pairs
        Folder of pairs to train on instead of synthetic ones.
    pairs_voxel_um
        Voxel size (z, y, x) in micrometres of the pairs, if missing in their files.
    like
        Image whose light, background and noise are imitated, instead of ``imaging``.
    structures, imaging
        Settings of synthetic pairs; the defaults when none.
    conditions
        Detectors and defects of synthetic images; those of the field for any PSF, when none.
    folder
        Folder that keeps the synthetic examples, for further trainings; for several initial
        estimates.
    initial_model
        Initial model; none for new weights.

    Raises
    ------
    RlnError
        If the arguments are inconsistent: neither or both of ``psf`` and ``any_psf``, pairs for the
        started variant without a PSF, differing voxel sizes.
    """
    structures = structures or StructureSettings()
    if like is not None and imaging not in (None, ImagingSettings()):
        raise RlnError(
            "light and noise are those of the image to imitate (`like`); omit their settings."
        )
    imaging = imaging_like(check_image(like)) if like else imaging or ImagingSettings()
    for_field = any_psf and settings.start_settings.method == "ladder"
    if for_field and imaging == ImagingSettings():
        imaging = _FIELD_LIGHT
    network = class_of(settings.architecture)
    if network.needs_psf and psf is None:
        raise RlnError(
            f"the blur by the PSF is a part of {network.title}, which is trained for one PSF; give "
            "it (`psf`)."
        )
    inputs = {"initial_model": initial_model.hash} if initial_model else {}
    if psf is not None:
        check_psf(psf)
        inputs["psf"] = psf.hash
    if initial_model is not None:
        _check_initial_model(initial_model, settings.variant, settings.views, settings.architecture)
    _check_views(settings, psf, psf_b, any_psf or pairs is not None)
    if psf_b is not None:
        inputs["psf_b"] = psf_b.hash
    if any_psf and pairs is not None:
        raise RlnError("pairs from a folder (`pairs`) are of one PSF; omit `any_psf`.")
    if any_psf == (psf is not None) and pairs is None:
        raise RlnError("give either the PSF of the model (`psf`) or `any_psf`.")
    if pairs is not None:
        train_pairs, validation_pairs = _folders(pairs, psf, pairs_voxel_um, settings)
        inputs["pairs"] = pairs.name
        return TrainingSet(train_pairs, validation_pairs, psf, {}, initial_model, inputs)
    inputs |= {"structures": str(as_dict(structures)), "imaging": str(as_dict(imaging))}
    if for_field and conditions is None:
        conditions = FieldConditions()
    if conditions is not None:
        inputs["conditions"] = str(as_dict(conditions))
    train = SyntheticPairs(
        psf=psf,
        psf_b=psf_b,
        structures=structures,
        imaging=imaging,
        shape=settings.shape,
        seed=settings.seed,
        conditions=conditions,
    )
    widths = FAMILY_WIDTHS
    if psf is not None:
        widths = {axis: (width, width) for axis, width in widths_in_voxels(psf).items()}
    kinds = structures.structures
    if any_psf and kinds == TRAINING:  # two kinds that training lacks
        kinds = (*(kind for kind in kinds if kind != "haze"), *_UNSEEN, "haze")
    validation = replace(
        train, seed=settings.seed + _HELD_OUT, one_kind=True,
        structures=replace(structures, structures=kinds),
    )  # fmt: skip
    kept = None
    if folder is not None:
        if settings.start_settings.method != "ladder":
            raise RlnError(
                "a folder of examples (`example_folder`) is for networks that start from a ladder "
                "of estimates (`start=ladder`), as the universal preset's."
            )
        kept = ExampleFolder(folder, train, settings.start_settings, settings.normalisation)
        inputs["examples"] = kept.hash
    return TrainingSet(train, validation, psf, widths, initial_model, inputs, kept)


def _check_initial_model(model: Model, variant: str, views: str, architecture: str) -> None:
    """Raise unless a model is of a variant, of a number of views, and of an architecture."""
    pairs = (
        ("variant", model.variant, variant),
        ("views", model.network.views, views),
        ("architecture", name_of(model.network), architecture),
    )
    for kind, own, needed in pairs:
        if own != needed:
            raise RlnError(
                f"the initial model {model.name} is of {kind} {own}, the training of {needed}; "
                "choose another one, or none (`initial_model=none`)."
            )


def _check_views(
    settings: TrainSettings, psf: Volume | None, psf_b: Volume | None, other: bool
) -> None:
    """Raise unless each view has a PSF, on the same voxels."""
    if settings.views == "single":
        if psf_b is not None:
            raise RlnError(
                "a second PSF needs a training for two views (`views=averaged` or "
                "`views=concatenated`); choose one, or omit the PSF."
            )
        return
    if other or psf is None or psf_b is None:
        raise RlnError(
            f"a training for {settings.views} views needs the PSFs of both (`psf`, `psf_b`) and "
            "synthetic pairs; omit `any_psf` and `pairs`."
        )
    check_psf(psf_b)
    if not on_one_grid(psf, psf_b):
        raise RlnError(
            f"the PSFs of the two views have voxels of {psf.voxel_um} and {psf_b.voxel_um} um; "
            "resample them to one grid first (psfs_of_views)."
        )


def _folders(
    folder: Path, psf: Volume | None, voxel_um: VoxelUm | None, settings: TrainSettings
) -> tuple[PairFolder, PairFolder]:
    """Return the pairs for training and for validation: the last ones, at most a fifth."""
    if settings.variant == "started" and psf is None:
        raise RlnError("pairs for the started variant need the PSF of their images (`psf`).")
    files = pairs_in(folder)
    if settings.validate and len(files) < 5:
        raise RlnError(
            f"{folder} has {len(files)} pairs; at least 5 are needed, one of them for validation."
        )
    symmetry = symmetry_of(psf) if psf else Symmetry(flips=(False, True, True))
    whole = PairFolder(files=files, psf=psf, voxel_um=voxel_um, symmetry=symmetry)
    whole.check(settings.patch)
    split = len(files) - min(settings.validate, len(files) // 5)
    return replace(whole, files=files[:split]), replace(whole, files=files[split:] or files)
