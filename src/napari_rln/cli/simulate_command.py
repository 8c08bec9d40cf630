"""The command ``napari-rln simulate``."""

import json
import math
from pathlib import Path
from typing import Annotated

from napari_rln.cli.options import Flat, ImageOptions, Out, Overwrite, PsfOptions
from napari_rln.cli.terminal import Terminal
from napari_rln.core.errors import RlnError
from napari_rln.io.image import files_read
from napari_rln.io.paths import atomic, check_outputs, make_folder
from napari_rln.io.volumes import write
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import HARMFUL
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
    overwrite: Overwrite = False,
    psf_options: PsfOptions = PsfOptions(),
    image_options: ImageOptions = ImageOptions(),
    structures: Annotated[StructureSettings, Flat] = StructureSettings(),
    imaging: Annotated[ImagingSettings, Flat] = ImagingSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Simulate images of synthetic structures, with the ground truth.

    Parameters
    ----------
    psf
        Point spread function, which also sets the voxel size of the images.
    out
        Folder for input/, ground_truth/ and records.json; created if absent.
    count
        Number of pairs.
    shape
        Size z y x of the images.
    seed
        Seed of the first pair, from which the others follow.
    like
        Real image whose light, background and noise are imitated, instead of the settings below.
    overwrite
        Replace existing pairs of these names.
    """
    if count < 1:
        raise RlnError(f"`count` is {count}; it must be at least 1.")
    if min(shape) < 1:
        raise RlnError(f"`shape` is {shape}; give three numbers of voxels (z y x), at least 1.")
    if seed < 0:
        raise RlnError(f"`seed` is {seed} but must be at least 0.")
    blur, findings = fit_psf(psf_options.read(psf))
    terminal.findings(findings, repaired=HARMFUL)
    if like is not None:
        if imaging != ImagingSettings():
            raise RlnError("`like` sets light and noise; leave it out, or their own options.")
        imaging = imaging_like(image_options.read(like))
    folders = [out / "input", out / "ground_truth"]
    for folder in folders:
        make_folder(folder)
    names = [f"pair{number:04d}.tif" for number in range(count)]
    check_outputs(
        [*(folder / name for folder in folders for name in names), out / "records.json"],
        inputs=files_read([psf, like]),
        overwrite=overwrite,
        room=2 * 4 * count * math.prod(shape),
    )
    records = {}
    for number, name in enumerate(names):
        pair = simulate_pair(
            blur, structures, imaging, shape=shape, seed=(seed, number), name=name[:-4]
        )
        for folder, volume in zip(folders, (pair.image, pair.truth), strict=True):
            write(volume, folder / name)
        assert pair.image.record is not None
        records[name] = pair.image.record.as_dict()
    with atomic(out / "records.json") as temporary:
        temporary.write_text(json.dumps(records, indent=1), encoding="utf-8")
    terminal.say(f"{count} pairs in {out}")
    terminal.report({"out": str(out), "count": count})
