"""The command ``napari-rln train``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageOptions, Out, Overwrite, PsfOptions
from napari_rln.cli.terminal import Terminal
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.deconvolution.views import DualSettings, Rotation, psfs_of_views
from napari_rln.io.image import files_read
from napari_rln.io.paths import check_outputs, title
from napari_rln.networks.architectures.base import Views
from napari_rln.networks.architectures.registry import ArchitectureName
from napari_rln.networks.model import Model, check_model_path
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_set import choose_settings, training_set_of
from napari_rln.train.training_settings import Preset, TrainReport


def train(
    *,
    out: Out,
    psf: Path | None = None,
    any_psf: Annotated[bool, Parameter(negative="")] = False,
    like: Path | None = None,
    pairs: Path | None = None,
    initial_model: str | None = None,
    architecture: ArchitectureName | None = None,
    variant: Literal["started", "paper"] | None = None,
    views: Views | None = None,
    psf_b: Path | None = None,
    psf_b_voxel_um: VoxelUm | None = None,
    rotation: Rotation = "none",
    voxels: Literal["isotropic", "first"] = "isotropic",
    preset: Preset | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    start_beyond: float | None = None,
    patch: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "auto",
    example_folder: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    psf_options: PsfOptions = PsfOptions(),
    structures: Annotated[StructureSettings, Flat] = StructureSettings(),
    imaging: Annotated[ImagingSettings, Flat] = ImagingSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Train a network for a PSF, on synthetic structures blurred with it.

    Ctrl-C ends the training and keeps the best model so far.

    Parameters
    ----------
    out
        Model file, .safetensors.
    psf
        Point spread function of the model.
    any_psf
        Train for any PSF instead, as the universal model was.
    like
        Real image whose voxels, light, background and noise are imitated.
    pairs
        Folder of training pairs (input/, ground_truth/), instead of synthetic ones.
    initial_model
        Initial model: a name, a file, or none; universal unless the variant is paper.
    architecture
        Architecture of the network: rln; or, to compare it with, care, rcan (3D-RCAN), ddn
        (DenseDeconNet), ista or ista-large (ISTA-Net+), admm (ADMM-Net), or kld (kernel learning
        deconvolution).
    variant
        Initial estimate of the network: started is a classical deconvolution, paper the image.
    views
        Input for two views of one object: averaged is their sum, concatenated both.
    psf_b
        Point spread function of the second view, in its camera's orientation; --psf by default.
    psf_b_voxel_um
        Voxel size z y x of the second PSF in micrometres; --psf-voxel-um by default.
    rotation
        Rotation of the second view and its PSF by 90 degrees, as for dual.
    voxels
        Voxels of the result of two views, as for dual.
    preset
        quick adapts a model, full trains one, universal the shipped one for any PSF, paper follows
        the architecture's authors.
    minutes
        Duration of the training.
    steps
        Duration of the training, in steps.
    learning_rate
        Peak learning rate, after the first steps.
    start_beyond
        Factor on the automatic number of iterations of the initial estimate.
    patch
        Side of the training patches, voxels.
    batch
        Patches per step.
    seed
        Seed of all random numbers.
    device
        auto, cpu, cuda, cuda:1, mps.
    example_folder
        Folder that keeps the synthetic examples for further trainings; several trainings may fill
        it at once.
    resume
        Resume an interrupted training from the checkpoint beside the model file.
    overwrite
        Replace an existing model file, and a checkpoint of another training.
    """
    check_model_path(out)
    checkpoint = out.with_suffix(".checkpoint")
    # A training that is resumed replaces its own checkpoint and model.
    check_outputs(
        [out, checkpoint], inputs=files_read([psf, psf_b, like]), overwrite=overwrite or resume
    )
    if minutes is not None and steps is not None:
        raise RlnError("`minutes` and `steps` both set the duration; give one of them.")
    image = image_options.read(like) if like else None
    blur = None
    if psf is not None:
        blur, _ = psf_options.fitted(psf, image, terminal, channel=image_options.channel)
    settings, model_before = choose_settings(preset, variant, initial_model, views, architecture)
    blur_b = None
    if settings.views != "single" and blur is None:
        raise RlnError(f"a training for {settings.views} views needs the PSF of the first (`psf`).")
    if settings.views != "single" and psf is not None and blur is not None:
        source_b = PsfOptions(psf_voxel_um=psf_b_voxel_um or psf_options.psf_voxel_um)
        blur_b, _ = source_b.fitted(psf_b or psf, None, terminal)
        blur, blur_b = psfs_of_views(blur, blur_b, DualSettings(rotation=rotation, voxels=voxels))
    elif psf_b is not None or rotation != "none" or voxels != "isotropic":
        raise RlnError("`psf_b`, `rotation` and `voxels` are for two views; choose `views`.")
    chosen: dict[str, Any] = {
        "learning_rate": learning_rate, "start_beyond": start_beyond, "patch": patch,
        "batch": batch, "minutes": minutes, "steps": steps,
    }  # fmt: skip
    changes: dict[str, Any] = {k: v for k, v in chosen.items() if v is not None}
    if minutes is not None:
        changes["steps"] = None  # replaces those of the preset
    settings = replace(settings, seed=seed, device=device, **changes)
    setting = training_set_of(
        settings,
        psf=blur,
        psf_b=blur_b,
        any_psf=any_psf,
        pairs=pairs,
        pairs_voxel_um=image_options.voxel_um,
        like=image,
        structures=structures,
        imaging=imaging,
        folder=example_folder,
        initial_model=model_before,
    )
    name = title(out)
    model = terminal.follow(
        train_model_iter(setting, settings, name=name, checkpoint=checkpoint, resume=resume), _kept
    )
    model.save(out)
    facts = model.record.facts
    terminal.say(f"{out}: best model at step {facts['best_step']} of {facts['steps']}")
    if model.validation:
        scores = model.validation.items()
        rows = ((kind, f"{q['psnr_db']:.2f}", f"{q['ssim']:.3f}") for kind, q in scores)
        terminal.table("On held-out volumes", ("", "PSNR dB", "SSIM"), rows)
    terminal.report({"out": str(out), "model": model.card()})


def _kept(report: TrainReport) -> Model:
    """Return the best model so far; interrupt if there is none yet."""
    try:
        return report.model()
    except RlnError:
        raise KeyboardInterrupt("the preparation is kept; repeat the command to continue") from None
