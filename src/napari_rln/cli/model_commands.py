"""The commands ``napari-rln import-tf`` and ``napari-rln model``."""

from pathlib import Path

from napari_rln.cli.options import Out, Overwrite
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.record import Record
from napari_rln.io.paths import check_outputs, title
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model, check_model_path, load_model, shipped_models
from napari_rln.networks.tensorflow_checkpoint import read_checkpoint, rln_from_checkpoint


def import_tf(
    checkpoint: Path,
    *,
    out: Out,
    division_eps: float = 1e-4,
    overwrite: Overwrite = False,
    terminal: Terminal = Terminal(),
) -> None:
    """Turn a checkpoint of the paper's authors' TensorFlow code into a model file.

    TensorFlow is not needed.

    Parameters
    ----------
    checkpoint
        Folder of the checkpoint, its .index file, or its name without ending.
    out
        Model file, .safetensors.
    division_eps
        Constant in the network's divisions: 1e-4 in the released checkpoint and the dual-view
        scripts, 1e-3 in the single-view script.
    overwrite
        Replace an existing model file.
    """
    check_model_path(out)
    check_outputs([out], inputs=[checkpoint], overwrite=overwrite)
    network = rln_from_checkpoint(read_checkpoint(checkpoint), division_eps=division_eps)
    model = Model(
        name=title(out),
        network=network,
        start=StartSettings(method="image"),
        normalisation="percentiles",
        record=Record(method="import-tf", inputs={"checkpoint": checkpoint.name}),
    )
    model.save(out)
    terminal.say(f"{out}: the paper's network ({network.settings.views} view); it needs no PSF")
    terminal.report({"out": str(out), "model": model.card()})


def model(
    name: str | None = None,
    *,
    terminal: Terminal = Terminal(),
) -> None:
    """Describe a model, or all models that come with the package.

    Parameters
    ----------
    name
        Name of a shipped model, or a model file; all shipped models by default.
    """
    chosen = [load_model(each) for each in ([name] if name else shipped_models())]
    for each in chosen:
        terminal.table(each.name, ("", ""), _rows(each))
    terminal.report({"models": [each.card() for each in chosen]})


def _rows(model: Model) -> list[tuple[str, str]]:
    facts, start = model.record.facts, model.start
    factor = "" if start.beyond == 1 else f" x {start.beyond:g}"
    iterations = start.iterations if model.ladder is None else "predicted"
    mirrored = [axis for axis, on in zip("zyx", model.mirrors, strict=True) if on]
    rows = [
        ("architecture", f"{model.network.title}, {model.network.parameter_count:,} parameters"),
        ("variant", model.variant),
        ("starts from", ("the image and the PSF" if model.needs_psf else "the image")
         if start.method == "image" else
         f"{iterations}{factor} iterations, {start.rld().back_projector}"),
        ("normalisation", model.normalisation),
        ("mirrored along", " ".join(mirrored) or "no axis"),
        ("made", f"{model.record.method} {model.record.time}, version {model.record.version}"),
    ]  # fmt: skip
    if model.psf is not None:
        size = " ".join(f"{v:.4g}" for v in model.psf.voxel_um)
        rows.append(("for PSF", f"{model.psf.name} ({model.psf.hash}), voxels {size} um"))
    for axis, (low, high) in model.psf_widths.items():
        rows.append((f"{axis} FWHM", f"{low:.1f} to {high:.1f} voxels"))
    for fact in ("steps", "best_step", "seconds"):
        if fact in facts:
            rows.append((fact.replace("_", " "), number(facts[fact])))
    for kind, quality in model.validation.items():
        rows.append(
            (f"held out, {kind}", f"{quality['psnr_db']:.2f} dB, SSIM {quality['ssim']:.3f}")
        )
    return rows
