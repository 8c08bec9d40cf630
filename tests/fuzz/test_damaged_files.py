"""Damaged files of every format through the commands: a result, or one sentence and a code.

Seeded, so that what fails fails again. Every case damages one file in one way: bytes changed or cut
off, JSON and XML values replaced by others, cells of tables likewise.
"""

import json
import math
import random
import re
import shutil
import struct
from pathlib import Path

import microscope_files as files
import numpy as np
import pytest
import tifffile
import zarr

from napari_rln import cli
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.execution import Output
from napari_rln.engine.job import Job, PsfFile
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import write
from napari_rln.networks.model import load_model
from napari_rln.networks.network import Network

VOXEL_UM = (0.3, 0.1, 0.1)
SHAPE = (6, 14, 12)
ODD = (
    None, True, -1, 0, 1e20, 1e-30, -0.5, 2**70, "", "x", "nan", "\u2603", [], [1], {}, {"a": 1},
    [[]], "0,3", math.inf,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return sound files of every format, one folder each, by what they are."""
    root = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)
    data = rng.poisson(20 + 300 * (rng.random(SHAPE) > 0.97)).astype(np.uint16)
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in (5, 5, 5)), indexing="ij")
    psf = np.exp(-sum(g**2 for g in grid) / 2.0)
    write(Volume.from_array(psf, VOXEL_UM), root / "psf.tif")
    write(Volume.from_array(data, VOXEL_UM), root / "image.tif")
    made = {"psf": root / "psf.tif", "image": root / "image.tif"}

    def place(kind):
        folder = root / kind
        folder.mkdir()
        return folder

    volume = Volume.from_array(data, VOXEL_UM)
    write(volume, place("imagej") / "a.tif", dtype="uint16")
    write(volume, place("ome") / "a.ome.tif", dtype="uint16")
    tifffile.imwrite(place("zlib") / "a.tif", data, compression="zlib", imagej=False)
    for version, fmt in (("zarr4", 2), ("zarr5", 3)):
        group = zarr.create_group(place(version) / "a.ome.zarr", zarr_format=fmt)
        level = group.create_array("0", shape=SHAPE, dtype="u2", chunks=(3, 14, 12))
        level[...] = data
        image = {
            "axes": [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": list(VOXEL_UM)}],
                }
            ],
        }
        if fmt == 2:
            group.attrs["multiscales"] = [image | {"version": "0.4"}]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    files.write_czi(
        place("czi") / "a.czi", files.czi_planes(data[None, None]), files.czi_xml([files.GFP])
    )
    files.write_lif(place("lif") / "a.lif", [files.lif_image("a", data[None])])
    files.write_nd2(place("nd2") / "a.nd2", data[None, :, None])
    files.write_oif(place("oif") / "a.oif", data[None])
    planes = place("planes") / "p"
    planes.mkdir()
    for z, plane in enumerate(data):
        tifffile.imwrite(planes / f"z{z}.tif", plane)
    model = place("model") / "a.safetensors"
    load_model("bead-paper").save(model)
    job = Job(
        image=ImageFile(path=str(root / "image.tif")),
        psfs=(PsfFile(file=ImageFile(path=str(root / "psf.tif"), voxel_um=VOXEL_UM)),),
        methods=(RichardsonLucy(iterations=1), Network(model="bead-paper", grid="resample")),
        output=Output(path=Path("r.tif")),
    )
    job.save(place("job") / "a.json")
    table = place("table") / "a.csv"
    table.write_text(
        "image,psf,channel,time,voxel_um,out\n"
        f"{root / 'image.tif'},{root / 'psf.tif'},,,0.3 0.1 0.1,one.ome.tif\n"
    )
    return made | {folder.name: folder for folder in root.iterdir() if folder.is_dir()}


def _bytes(rng, path):
    content = bytearray(path.read_bytes())
    if not content:
        return
    kind = rng.randrange(4)
    # What describes a file lies in front, or at the end.
    near = rng.choice([0, max(0, len(content) - 200)])
    at = min(len(content) - 1, near + rng.randrange(200))
    if kind == 0:
        del content[rng.randrange(len(content)) :]
    elif kind == 1:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        content[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31, 2**32 - 1]))
    else:
        content[at : at + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, b"<>&\"'[]{", b"-1e99999"])
    path.write_bytes(bytes(content))


def _json_values(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _json_values(item, (*place, key))
        else:
            yield (*place, key)


def _replaced(rng, described):
    """Replace a value in JSON by an odd one, or remove it."""
    places = [p for p in _json_values(described) if p]
    if not places:
        return rng.choice(ODD)
    place = rng.choice(places)
    holder = described
    for key in place[:-1]:
        holder = holder[key]
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[place[-1]]
    else:
        holder[place[-1]] = rng.choice(ODD)
    return described


def _json(rng, path):
    path.write_text(json.dumps(_replaced(rng, json.loads(path.read_text()))))


def _numbers(rng, path):
    """Replace a number in a text within a file by another of the same length."""
    content = path.read_bytes()
    found = list(re.finditer(rb"(?<=[=\">])[0-9.]+(?=[\"<\n])", content))
    if found:
        number = rng.choice(found)
        with_ = rng.choice([b"-", b"9", b"0", b"x", b",", b"e"]) * len(number[0])
        path.write_bytes(content[: number.start()] + with_ + content[number.end() :])


def _cells(rng, path):
    head, row = path.read_text().splitlines()
    cells = row.split(",")
    cells[rng.randrange(len(cells))] = rng.choice(
        [
            "",
            "-1",
            "1e9",
            "x",
            '"',
            "\0",
            "/",
            "..",
            "nan nan nan",
            "1 2",
            "\u2603" * 300,
            "0" * 5000,
        ]
    )
    names = head.split(",")
    if rng.random() < 0.2:
        names[rng.randrange(len(names))] = rng.choice(["", "image", "size", "\ufeff"])
    path.write_text(f"{','.join(names)}\n{','.join(cells)}\n", encoding="utf-8")


def _model(rng, path):
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.7:
        card = _replaced(rng, json.loads(header["__metadata__"]["napari-rln"]))
        header["__metadata__"]["napari-rln"] = json.dumps(card)
    else:
        _replaced(rng, header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


OPTIONAL = {"lif": "liffile", "nd2": "nd2", "oif": "oiffile"}
CASES = 12  # of a kind; more were tried when this was written

DAMAGES = {
    "imagej": (_bytes, _numbers),
    "ome": (_bytes, _numbers),
    "zlib": (_bytes,),
    "zarr4": (_json, _json, _bytes),
    "zarr5": (_json, _json, _bytes),
    "czi": (_bytes,),
    "lif": (_bytes,),
    "nd2": (_bytes,),
    "oif": (_bytes,),
    "planes": (_bytes,),
    "model": (_model, _bytes),
    "table": (_cells,),
    "job": (_json, _json, _json, _bytes),
}


def _damaged(rng, folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    damage = rng.choice(DAMAGES[folder.name])
    if damage is _json:
        names = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "a.json")
        files = [p for p in files if p.name in names]
    damage(rng, rng.choice(files))
    return min(folder.iterdir())  # a file of a microscope, rather than its folder


def _commands(kind, damaged, sources, out):
    image, psf = sources["image"], sources["psf"]
    if kind == "model":
        yield "model", damaged
        yield "rln", image, "-m", damaged, "-o", out / "r.tif", "--voxel-um", 0.1, 0.1, 0.1
        return
    if kind == "job":
        yield "run", damaged
        return
    if kind == "table":
        yield "batch", "rld", damaged, "-o", out / "batch", "--iterations", 1
        return
    yield "rld", damaged, "--psf", psf, "-o", out / "r.tif", "--iterations", 1
    yield "psf", "info", damaged
    yield "check", image, damaged, "--psf", psf


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_files_give_a_result_or_a_sentence(sources, tmp_path, kind, capfd):
    pytest.importorskip(OPTIONAL.get(kind, "numpy"))
    rng = random.Random(kind)
    for case in range(CASES):
        folder = tmp_path / str(case) / kind
        shutil.copytree(sources[kind], folder)
        damaged = _damaged(rng, folder)
        commands = list(_commands(kind, damaged, sources, folder.parent))
        tokens = [str(token) for token in commands[case % len(commands)]]
        code = cli.run(tokens)
        said = capfd.readouterr()
        assert code in (cli.DONE, cli.CANNOT_BE_USED, cli.FAILED), (tokens, said.err)
        assert "Traceback" not in said.out + said.err, (tokens, said.err)
        errors = [line for line in said.err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == (code != cli.DONE), (tokens, said.err)
        assert not list(folder.parent.glob(".*")), tokens
