"""The command ``napari-rln compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from napari_rln.cli.options import Flat, ImageOptions, Out, Overwrite, PsfOptions
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.evaluate.comparison import CompareSettings, Comparison
from napari_rln.evaluate.comparison import compare as compare_volumes
from napari_rln.evaluate.figure import figure, save_figure
from napari_rln.evaluate.figure_content import FigureSettings
from napari_rln.io.image import files_read
from napari_rln.io.paths import check_outputs, make_folder

FigureFormat = Literal["png", "pdf", "svg"]


def compare(
    image: Path,
    *results: Path,
    out: Out,
    truth: Path | None = None,
    psf: Path | None = None,
    repair: bool = True,
    figure_format: tuple[FigureFormat, ...] = ("png",),
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    psf_options: PsfOptions = PsfOptions(),
    settings: Annotated[CompareSettings, Flat] = CompareSettings(),
    look: Annotated[FigureSettings, Flat] = FigureSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Compare an image with results made from it: a table and a lateral/axial figure.

    Parameters
    ----------
    image
        Raw image.
    results
        Deconvolved images on the same grid.
    out
        Folder for table.csv and figure.png; created if absent.
    truth
        Ground truth; adds PSNR, NRMSE, SSIM, correlation and resolution.
    psf
        Point spread function; adds the reconvolution residual.
    repair
        Repair defects of the PSF, as rld does.
    figure_format
        One or more of png, pdf, svg.
    overwrite
        Replace an existing table and figure.
    """
    if not results:
        raise RlnError("no result to compare; name at least one after the image.")
    make_folder(out)
    read = files_read([image, *results, truth, psf])
    check_outputs(written(out, figure_format), inputs=read, overwrite=overwrite)
    raw = image_options.read(image)
    others = [image_options.read_beside(path) for path in results]
    known = image_options.read_beside(truth) if truth else None
    blur = None
    if psf:
        blur, _ = psf_options.fitted(
            psf, raw, terminal, channel=image_options.channel, repair=repair
        )
    show(raw, others, out, known, blur, settings, look, figure_format, terminal)


def written(out: Path, formats: Sequence[FigureFormat]) -> list[Path]:
    """Return the files of a comparison, the table first."""
    return [out / "table.csv", *(out / f"figure.{kind}" for kind in formats)]


def show(
    image: Volume,
    results: list[Volume],
    out: Path,
    truth: Volume | None,
    psf: Volume | None,
    settings: CompareSettings,
    look: FigureSettings,
    formats: tuple[FigureFormat, ...],
    terminal: Terminal,
    shared: Shared | None = None,
) -> Comparison:
    """Write table and figure into a folder and print the table."""
    table = compare_volumes(image, results, truth=truth, psf=psf, settings=settings, shared=shared)
    drawing = figure([image, *results], truth=truth, settings=look)
    files = written(out, formats)
    table.to_csv(files[0])
    for file in files[1:]:
        save_figure(drawing, file)
    columns = [c for c in table.columns if not c.endswith(("_xy", "_xz", "_yz"))]
    terminal.table(
        "", columns, ([number(row.cells().get(c)) for c in columns] for row in table.rows)
    )
    terminal.say(f"Written: {', '.join(str(file) for file in files)}")
    terminal.report(table.to_dict() | {"files": [str(file) for file in files]})
    return table
