"""``napari-rln simulate``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal
from napari_rln.errors import RlnError
from napari_rln.io import atomic, write_volume
from napari_rln.psf.doctor import HARMFUL, fit_psf
from napari_rln.record import jsonable
from napari_rln.simulate.imaging import ImagingSettings, imaging_like, simulate_pair
from napari_rln.simulate.structures import StructureSettings


def simulate(
    *,
    psf: Path,
    out: Out,
    count: int = 1,
    shape: tuple[int, int, int] = (64, 64, 64),
    seed: int = 0,
    like: Path | None = None,
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    structures: Annotated[StructureSettings, Flat] = StructureSettings(),
    imaging: Annotated[ImagingSettings, Flat] = ImagingSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Make images of synthetic structures, and the structures, for training or for tests.

    Parameters
    ----------
    psf
        Point spread function that blurs them; its voxels are the images'.
    out
        Folder for input/, ground_truth/ and records.json; made if it is not there.
    count
        How many pairs.
    shape
        Size z y x of the images.
    seed
        Of the first pair; the others follow from it.
    like
        A real image whose light, background and noise are imitated, instead of the settings below.
    """
    if count < 1:
        raise RlnError(f"count is {count}; make at least one pair.")
    blur, findings = fit_psf(psf_source.read(psf))
    terminal.findings(findings, mended=HARMFUL)
    if like is not None:
        if imaging != ImagingSettings():
            raise RlnError("--like takes light and noise from the image; give it or the settings.")
        imaging = imaging_like(image_source.read(like))
    records = {}
    for number in range(count):
        name = f"pair{number:04d}.tif"
        pair = simulate_pair(
            blur, structures, imaging, shape=shape, seed=(seed, number), name=name[:-4]
        )
        for folder in ("input", "ground_truth"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        write_volume(pair.image, out / "input" / name)
        write_volume(pair.truth, out / "ground_truth" / name)
        assert pair.image.record is not None
        records[name] = jsonable(asdict(pair.image.record))
    with atomic(out / "records.json") as temporary:
        temporary.write_text(json.dumps(records, indent=1), encoding="utf-8")
    terminal.say(f"{count} pairs in {out}")
    terminal.report({"out": str(out), "count": count})
