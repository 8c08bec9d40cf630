"""Pictures of a study: lateral and axial planes of image, truth and results, and residual maps."""

import base64
import math
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Array, FloatArray
from napari_rln.evaluate.plane_sections import round_length
from napari_rln.study.report.markup import Markup, element
from napari_rln.study.results import CellResult, Planes
from napari_rln.study.selection import ImageKey, image_of

_LARGEST = 256  # pixels of a side of a picture
_WIDE = 200.0  # width of a picture in units of its drawing
_PERCENTILES = (0.5, 99.8)  # of the truth, for black and white
_RESIDUAL_PERCENTILE = 99.5
_MICROMETRE = "\N{MICRO SIGN}m"


@dataclass(frozen=True, kw_only=True)
class Column:
    """Planes of a volume, with their title, and a line below it."""

    name: str
    planes: Planes
    role: Literal["image", "truth", "result"]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Columns of one test image: the image, its truth, and the results of the methods."""

    image: ImageKey
    truth: Planes
    columns: tuple[Column, ...]


def picture_sets(
    folder: Path, results: Sequence[CellResult], methods: Sequence[str], most: int = 12
) -> tuple[tuple[PictureSet, ...], int]:
    """Return the pictures of some test images, and the number of images that have pictures.

    Test images are chosen so that, as far as possible, each PSF, photon level, structure and
    condition occurs. Of a trained method the result is shown whose training suits the image best.

    Parameters
    ----------
    folder
        Folder of the study.
    results
        Results to show.
    methods
        Names of the methods in the order of the columns.
    most
        Largest number of test images.

    Raises
    ------
    RlnError
        If a file is damaged.
    """
    found: defaultdict[ImageKey, dict[str, CellResult]] = defaultdict(dict)
    for result in sorted(results, key=_mismatch, reverse=True):
        if result.error is None and "image" in result.facts and _path(folder, result.key).is_file():
            found[image_of(result.cell)][result.cell.method] = result  # the best match is the last
    known = {
        image: by_method
        for image, by_method in found.items()
        if _path(folder, f"truth-{_hash(by_method)}").is_file()
    }
    chosen = _varied(sorted(known, key=lambda image: (image.condition != "", image)), most)
    return tuple(_load(folder, image, known[image], methods) for image in chosen), len(known)


def _mismatch(result: CellResult) -> tuple[bool, bool, int]:
    """Return how little the training of a result suits its image."""
    cell = result.cell
    return (
        cell.trained_on not in (None, cell.tested_on),
        cell.trained_photons not in (None, cell.photons),
        -(cell.training_volumes or 0),
    )


def _varied(images: Sequence[ImageKey], most: int) -> list[ImageKey]:
    """Return the images that show the most different values, in the order given."""
    left, chosen = list(images), list[ImageKey]()
    seen: set[tuple[int, object]] = set()
    while left and len(chosen) < most:
        best = max(left, key=lambda image: len(set(enumerate(image)) - seen))  # the first of equals
        seen |= set(enumerate(best))
        chosen.append(best)
        left.remove(best)
    return [image for image in images if image in chosen]


def _load(
    folder: Path, image: ImageKey, results: Mapping[str, CellResult], methods: Sequence[str]
) -> PictureSet:
    name = _hash(results)
    truth = _planes(_path(folder, f"truth-{name}"))
    columns = []
    if _path(folder, f"image-{name}").is_file():
        raw = _planes(_path(folder, f"image-{name}"))
        columns.append(Column(name="Image", planes=raw, role="image"))
    columns.append(Column(name="Truth", planes=truth, role="truth"))
    for method in methods:
        if method in results:
            result = results[method]
            planes = _planes(_path(folder, result.key))
            if (planes.xy.shape, planes.xz.shape) != (truth.xy.shape, truth.xz.shape):
                raise RlnError(
                    f"the planes {_path(folder, result.key)} differ from the truth in shape; "
                    "delete the file, and that of its cell, to compute the cell again."
                )
            value = result.scores.get("psnr_db", math.nan)
            note = f"{value:.2f} dB" if math.isfinite(value) else ""
            columns.append(Column(name=method, planes=planes, role="result", note=note))
    return PictureSet(image=image, truth=truth, columns=tuple(columns))


def _hash(results: Mapping[str, CellResult]) -> str:
    return str(next(iter(results.values())).facts["image"])


def _path(folder: Path, name: str) -> Path:
    """Return the file of planes; the name is one of a file, not a path out of the folder."""
    return folder / "planes" / f"{Path(name).name}.npz"


def _planes(path: Path) -> Planes:
    try:
        return Planes.load(path)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise RlnError(
            f"{path} holds no planes ({error}); delete it to write the report without it."
        ) from error


def draw(pictures: PictureSet) -> Markup:
    """Return the columns of a test image: xy above xz, and below each result its residual.

    Truth and results have one grey scale and one of residuals; the image, blurred and in other
    units, has its own.
    """
    truth, columns = pictures.truth, pictures.columns
    z_um, y_um, x_um = truth.voxel_um
    greys = {"truth": _range(truth, _PERCENTILES)}
    greys |= {c.role: _range(c.planes, _PERCENTILES) for c in columns if c.role == "image"}
    residuals = {
        c.name: Planes(
            xy=c.planes.xy - truth.xy, xz=c.planes.xz - truth.xz, voxel_um=truth.voxel_um
        )
        for c in columns
        if c.role == "result"
    }
    ends = [
        _range(r, (100 - _RESIDUAL_PERCENTILE, _RESIDUAL_PERCENTILE)) for r in residuals.values()
    ]
    span = max(abs(end) for pair in ends for end in pair) if ends else 1.0
    figures = []
    for column in columns:
        grey = greys.get(column.role, greys["truth"])
        parts = [element("figcaption", element("b", column.name), element("span", column.note))]
        for planes, limits, colors, what in (
            (column.planes, grey, "gray", column.name),
            (residuals.get(column.name), (-span, span), "RdBu_r", f"residual of {column.name}"),
        ):
            if planes is not None:
                bar = column is columns[0]
                xy = _panel(planes.xy, limits, colors, (y_um, x_um), f"{what}, xy", bar=bar)
                parts += [xy, _panel(planes.xz, limits, colors, (z_um, x_um), f"{what}, xz")]
        figures.append(element("figure", *parts))
    said = [f"{role} black {low:.3g}, white {high:.3g}" for role, (low, high) in greys.items()]
    note = element(
        "p",
        f"Grey scale of results and {', of the '.join(said)}. Residual (result \N{MINUS SIGN} "
        f"truth) from \N{MINUS SIGN}{span:.3g} ",
        element("span", class_="diverging"),
        f" to {span:.3g}.",
        class_="note",
    )
    return element("div", element("div", *figures, class_="columns"), note)


def _range(planes: Planes, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return percentiles of planes, the second above the first."""
    both = np.concatenate([planes.xy.ravel(), planes.xz.ravel()])
    low, high = (float(p) for p in np.nanpercentile(both, percentiles))
    return (low, high) if high > low else (low, low + 1)


def _panel(
    plane: FloatArray,
    limits: tuple[float, float],
    colormap: str,
    pixel_um: tuple[float, float],
    name: str,
    *,
    bar: bool = False,
) -> Markup:
    """Return a plane in its true proportions, with a scale bar if asked for."""
    down_um, across_um = (n * um for n, um in zip(plane.shape, pixel_um, strict=True))
    height = _WIDE * down_um / across_um
    indices = 255 * (_reduced(plane) - limits[0]) / (limits[1] - limits[0])
    pixels = np.clip(np.nan_to_num(indices), 0, 255).round().astype(np.uint8)
    palette = (255 * matplotlib.colormaps[colormap](np.arange(256))[:, :3]).round().astype(np.uint8)
    data = base64.b64encode(_png(pixels, palette)).decode()
    parts = [
        element("title", name),
        element(
            "image", href=f"data:image/png;base64,{data}", width=_WIDE, height=height,
            preserveAspectRatio="none",
        ),
    ]  # fmt: skip
    if bar:
        length_um = round_length(0.3 * across_um)
        long = _WIDE * length_um / across_um
        x, y = _WIDE - long - 10, height - 12
        shade = {"x": x - 6, "y": y - 20, "width": long + 12, "height": 28, "class_": "shade"}
        parts.append(element("rect", **shade))
        parts.append(element("rect", x=x, y=y, width=long, height=4.0, class_="scalebar"))
        text = f"{length_um:g} {_MICROMETRE}"
        middle = x + long / 2
        parts.append(element("text", text, x=middle, y=y - 6, text_anchor="middle"))
    box = f"0 0 {_WIDE:g} {height:.4g}"
    return element("svg", *parts, viewBox=box, class_="plane", role="img")


def _reduced(plane: FloatArray) -> Array:
    """Return a plane as means over blocks, if it has more pixels than a picture shows."""
    for axis in (0, 1):
        block = math.ceil(plane.shape[axis] / _LARGEST)
        if block > 1:
            starts = np.arange(0, plane.shape[axis], block)
            counts = np.diff([*starts, plane.shape[axis]])
            sums = np.add.reduceat(plane, starts, axis=axis)
            plane = sums / np.expand_dims(counts, 1 - axis)
    return plane


def _png(indices: Array, palette: Array) -> bytes:
    """Return a PNG of the colours (256, 3) uint8 that indices (Y, X) uint8 choose."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows, columns = indices.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    unfiltered = np.pad(indices, ((0, 0), (1, 0)))  # each row begins with its filter, 0 for none
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", palette.tobytes()),
            chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )
