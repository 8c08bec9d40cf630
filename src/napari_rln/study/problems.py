"""Public problems whose data a user downloads, and the numbers that others have published for them.

The data are those of the Biomedical Imaging Group, EPFL: "Deconvolution", reference data of
DeconvolutionLab2 (Sage et al., Methods 115, 28-41, 2017). They are not shipped, and nothing is
downloaded here.

What is known of them, and what is assumed:

- *Hollow bars*, synthetic, at two noise levels. Names of files and folders are those that public
  programs read. Among them are deconwolf's scripts, which compute the root-mean-square error (RMSE)
  after the best factor on the result, without an offset; the truth is not scaled. No list of
  numbers published by others is at hand.
- *Microtubules*, synthetic. Names of files are those that public programs read. The documentation
  of deconwolf says that the image was made by periodic convolution, so that ``border="periodic"``
  is right for it, other than for any image of a microscope. Whether the published RMSE are after a
  fit is **not established**: :func:`napari_rln.study.leaderboard.reproduced_measure` finds out from
  the image itself, whose published error must come out.
- *Bead*, a real hollow bead: there is no truth, and no RMSE. As in deconwolf's script, its outer
  width at half maximum along x, y and z through the centre, and its relative contrast, 1 minus the
  intensity of the centre over the highest, are measured; the voxels of 64.5 nm laterally and 160 nm
  axially are those stated there. No list of numbers published by others is at hand.

Voxels of the synthetic problems are nominal; no measure depends on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm

ProblemName = Literal["epfl-microtubules", "epfl-bars", "epfl-beads"]


RAW = "raw image"
"""Name of the image itself in tables."""


class Published(NamedTuple):
    """A published error: the program, the lowest and the highest number stated, and the source."""

    program: str
    low: float
    high: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A public problem.

    Attributes
    ----------
    title
        Title of the data at their publisher.
    images
        Names that the file or folder of an image may have, by the name of the image.
    psf, truth
        Names that those of the PSF and the ground truth may have; no truth of a real image.
    voxel_um
        Voxel size (z, y, x), micrometres.
    repair
        Whether defects of the PSF are repaired. An image made with a PSF needs it as it is.
    published
        Published errors.
    hint
        Sentence on what its methods should know; empty if nothing.
    """

    title: str
    images: Mapping[str, tuple[str, ...]]
    psf: tuple[str, ...]
    truth: tuple[str, ...] = ()
    voxel_um: VoxelUm
    repair: bool = False
    published: tuple[Published, ...] = ()
    hint: str = ""


_COLLECTED = (
    "public comparisons of the EPFL microtubules, as collected by this project; not verified"
)

PROBLEMS: dict[ProblemName, Problem] = {
    "epfl-microtubules": Problem(
        title="Microtubules",
        images={"microtubules": ("input.tif",)},
        psf=("psf.tif",),
        truth=("ground-truth.tif",),
        voxel_um=(0.1, 0.1, 0.1),
        published=tuple(
            Published(name, low, high, _COLLECTED)
            for name, low, high in (
                (RAW, 580.0, 580.0),
                ("DeconvolutionLab2", 480.0, 480.0),
                ("Huygens", 458.0, 463.0),
                ("Biggs", 453.0, 453.0),
                ("RL, 2000 iterations", 405.0, 405.0),
                ("RLGC", 395.0, 395.0),
                ("RL-TV", 390.0, 390.0),
                ("deconwolf", 374.0, 374.0),
                ("Soulez", 266.0, 266.0),
            )
        ),
        hint="The image is said to be made by periodic convolution: rld-periodic, and the other "
        "methods in -periodic, have its border.",
    ),
    "epfl-bars": Problem(
        title="Hollow bars",
        images={
            name: (f"{name}-stack.tif", f"{name}.tif", name)
            for name in ("Bars-G10-P15", "Bars-G10-P30")
        },
        psf=("PSF-Bars-stack.tif", "PSF-Bars.tif", "PSF-Bars"),
        truth=("Bars-stack.tif", "Bars.tif", "Bars"),
        voxel_um=(0.1, 0.1, 0.1),
    ),
    "epfl-beads": Problem(
        title="Fluorescent bead",
        images={"Bead": ("Bead.tif", "Bead-stack.tif", "Bead")},
        psf=("PSF-Bead.tif", "PSF-Bead-stack.tif", "PSF-Bead"),
        voxel_um=(0.16, 0.0645, 0.0645),
        repair=True,
    ),
}
"""The problems by their names."""


def find_files(problem: ProblemName, data: Path) -> dict[str, Path]:
    """Return the files or folders of a problem: of its images by name, ``psf`` and ``truth``.

    Of several images at least one must be there.

    Raises
    ------
    RlnError
        If the folder is absent, a file is missing, or there are several of a name.
    """
    posed = PROBLEMS[problem]
    if not data.is_dir():
        raise RlnError(f"there is no folder {data}; {_where(posed)}")
    every = sorted(path for path in data.rglob("*") if not path.name.startswith("."))
    found = {name: _find(names, every, data) for name, names in posed.images.items()}
    files = {name: path for name, path in found.items() if path is not None}
    if not files:
        listed = " or ".join(names[0] for names in posed.images.values())
        raise RlnError(f"{data} has no image {listed}; {_where(posed)}")
    for part, names in (("psf", posed.psf), ("truth", posed.truth)):
        path = _find(names, every, data) if names else None
        if path is not None:
            files[part] = path
        elif names:
            what = {"psf": "the PSF", "truth": "the ground truth"}[part]
            raise RlnError(f"{data} has no {' or '.join(names)}, {what}; {_where(posed)}")
    return files


def _find(names: Sequence[str], every: Sequence[Path], data: Path) -> Path | None:
    """Return the path with the first of the names that is there, in upper or lower case."""
    for name in names:
        folder = not name.endswith(".tif")
        endings = {name.lower()} if folder else {name.lower(), f"{name.lower()}f"}
        paths = [p for p in every if p.name.lower() in endings and p.is_dir() == folder]
        if folder:  # an archive may have been unpacked into a folder of its name
            paths = [p for p in paths if any(q.suffix.lower() == ".tif" for q in p.iterdir())]
        if len(paths) > 1:
            listed = ", ".join(str(path.relative_to(data)) for path in paths)
            raise RlnError(f"{data} has several {name}: {listed}; name the folder of one problem.")
        if paths:
            return paths[0]
    return None


def _where(problem: Problem) -> str:
    """Return where the data are from, as the end of a sentence."""
    return (
        f"download the data {problem.title!r} from the pages on deconvolution of the Biomedical "
        "Imaging Group, EPFL, and unpack them there."
    )
