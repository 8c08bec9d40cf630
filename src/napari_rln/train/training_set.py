"""Choice of training set, settings and initial model."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import Volume, VoxelUm, on_one_grid
from napari_rln.deconvolution.settings import check_image
from napari_rln.networks.model import UNIVERSAL, Model, load_model
from napari_rln.networks.rln import Views
from napari_rln.networks.suitability import widths_in_voxels
from napari_rln.psf.prepare import check_psf
from napari_rln.simulate.imaging import ImagingSettings, imaging_like
from napari_rln.simulate.optics import FAMILY_WIDTHS, FamilySettings
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.examples import (
    AnyPsf,
    ExampleSource,
    OnePsf,
    PairFolder,
    Symmetry,
    pairs_in,
    symmetry_of,
)
from napari_rln.train.training_settings import PRESETS, Preset, TrainSettings

_HELD_OUT = 1_000_000  # added to the seed: validation differs from training


class TrainingSet(NamedTuple):
    """Training set, validation set and initial model of a training.

    Attributes
    ----------
    source
        Source of the training pairs.
    held_out
        Source of the validation pairs.
    psf
        PSF of the model; none for a family.
    psf_widths
        See :class:`napari_rln.networks.model.Model`.
    begin
        Initial model; none for new weights.
    inputs
        Names and hashes for the record.
    """

    source: ExampleSource
    held_out: ExampleSource
    psf: Volume | None
    psf_widths: dict[str, tuple[float, float]]
    begin: Model | None
    inputs: dict[str, str]


def choose_settings(
    preset: Preset | None = None,
    variant: Literal["started", "paper"] | None = None,
    begin: str | None = None,
    views: Views | None = None,
) -> tuple[TrainSettings, Model | None]:
    """Return the settings of a preset and the initial model.

    Parameters
    ----------
    preset
        Name of the preset. None: quick with an initial model, otherwise full.
    variant
        Variant of the network. None: that of the initial model, or else of the preset.
    begin
        Name or file of the initial model, or ``"none"``. None: the universal model, except for the
        variant or preset paper, the presets full and universal, and two views.
    views
        Number and combination of views. None: that of the initial model, or else single.

    Raises
    ------
    RlnError
        If the model is of another variant, or of other views.
    """
    paper = "paper" in (preset, variant)
    if begin is None:
        fresh = paper or preset in ("full", "universal") or views not in (None, "single")
        begin = "none" if fresh else UNIVERSAL
    model = None if begin == "none" else load_model(begin)
    settings = PRESETS[preset or ("full" if model is None else "quick")]
    if variant is not None:
        settings = replace(settings, variant=variant)
    if model is None:
        return replace(settings, views=views or "single"), None
    if views not in (None, model.network.settings.views):
        raise RlnError(
            f"model {model.name} is of {model.network.settings.views} views, not {views}; begin "
            "with another one or with none (`begin=none`)."
        )
    if variant is not None and model.variant != variant:
        raise RlnError(
            f"model {model.name} is of the {model.variant} variant, not {variant}; begin with "
            "another one or with none (`begin=none`)."
        )
    settings = replace(
        settings,
        variant=model.variant,
        views=model.network.settings.views,
        start=model.start.method if model.start.needs_psf else settings.start,
        start_iterations=model.start.iterations,
        start_beyond=model.start.beyond,
        normalisation=model.normalisation,
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
    begin: Model | None = None,
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
    begin
        Initial model.

    Raises
    ------
    RlnError
        If the arguments are inconsistent: neither or both of ``psf`` and ``any_psf``, pairs for the
        started variant without a PSF, differing voxel sizes.
    """
    structures = structures or StructureSettings()
    if like is not None and imaging not in (None, ImagingSettings()):
        raise RlnError("light and noise come from the image to imitate (`like`); give no others.")
    imaging = imaging_like(check_image(like)) if like else imaging or ImagingSettings()
    inputs = {"begin": begin.hash} if begin else {}
    if psf is not None:
        check_psf(psf)
        inputs["psf"] = psf.hash
    if begin is not None and begin.variant != settings.variant:
        raise RlnError(
            f"model {begin.name} is of the {begin.variant} variant, the training of the "
            f"{settings.variant} one; begin with another model, or with none."
        )
    if begin is not None and begin.network.settings.views != settings.views:
        raise RlnError(
            f"model {begin.name} takes {begin.network.settings.views} views, the training "
            f"{settings.views} ones; begin with another model, or with none (`begin=none`)."
        )
    _check_views(settings, psf, psf_b, any_psf or pairs is not None)
    if psf_b is not None:
        inputs["psf_b"] = psf_b.hash
    if any_psf and pairs is not None:
        raise RlnError("pairs have a PSF of their own: omit `any_psf`.")
    if any_psf == (psf is not None) and pairs is None:
        raise RlnError("give the PSF of the model (`psf`) or `any_psf`, not both.")
    if pairs is not None:
        train_pairs, held_pairs = _folders(pairs, psf, pairs_voxel_um, settings)
        return TrainingSet(train_pairs, held_pairs, psf, {}, begin, inputs | {"pairs": pairs.name})
    inputs |= {"structures": str(as_dict(structures)), "imaging": str(as_dict(imaging))}
    shape, seed = settings.shape, settings.seed
    train: OnePsf | AnyPsf
    if psf is None:
        train = AnyPsf(
            family=FamilySettings(), structures=structures, imaging=imaging, shape=shape, seed=seed
        )
        widths = FAMILY_WIDTHS
    else:
        train = OnePsf(
            psf=psf, structures=structures, imaging=imaging, shape=shape, seed=seed, psf_b=psf_b
        )
        widths = {axis: (width, width) for axis, width in widths_in_voxels(psf).items()}
    held = replace(train, seed=seed + _HELD_OUT, one_kind=True)
    return TrainingSet(train, held, psf, widths, begin, inputs)


def _check_views(
    settings: TrainSettings, psf: Volume | None, psf_b: Volume | None, other: bool
) -> None:
    """Raise unless each view has a PSF, on the same voxels."""
    if settings.views == "single":
        if psf_b is not None:
            raise RlnError(
                "a second PSF is for a second view; train for two views (`views=averaged`, or "
                "concatenated), or omit it."
            )
        return
    if other or psf is None or psf_b is None:
        raise RlnError(
            f"a training for {settings.views} views needs the PSFs of both (`psf`, `psf_b`), and "
            "synthetic structures."
        )
    check_psf(psf_b)
    if not on_one_grid(psf, psf_b):
        raise RlnError(
            f"the PSFs of the two views have voxels of {psf.voxel_um} and {psf_b.voxel_um} um; "
            "bring them onto one grid first (psfs_of_views)."
        )


def _folders(
    folder: Path, psf: Volume | None, voxel_um: VoxelUm | None, settings: TrainSettings
) -> tuple[PairFolder, PairFolder]:
    """Return the pairs for training and for validation: the last ones, at most a fifth."""
    if settings.variant == "started" and psf is None:
        raise RlnError("pairs for the started variant need the PSF of their images.")
    files = pairs_in(folder)
    if settings.validate and len(files) < 5:
        raise RlnError(
            f"{folder} holds {len(files)} pairs; at least 5 are needed, of which one is held out."
        )
    symmetry = symmetry_of(psf) if psf else Symmetry(flips=(False, True, True))
    whole = PairFolder(files=files, psf=psf, voxel_um=voxel_um, symmetry=symmetry)
    whole.check(settings.patch)
    split = len(files) - min(settings.validate, len(files) // 5)
    return replace(whole, files=files[:split]), replace(whole, files=files[split:] or files)
