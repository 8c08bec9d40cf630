"""OME-Zarr by boxes (read up to 0.6, written as 0.4 and 0.5), and Zarr arrays without metadata.

Written images are pyramids of levels. In 0.5 a worker writes whole shards, and viewers read the
chunks in them; 0.4 has chunks only.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import zarr
import zarr.codecs
from numcodecs import Blosc

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.tiles import plan_tiles
from napari_rln.core.volume import Box, Shape, VoxelUm
from napari_rln.io.lazy import OpenedImage, Pieces
from napari_rln.io.metadata import um_per
from napari_rln.io.paths import title
from napari_rln.io.stated_optics import per_channel
from napari_rln.io.tiff_optics import ome_optics
from napari_rln.psf.optics import Optics

AnyArray = zarr.Array[Any]
Version = Literal["0.4", "0.5"]

RECORD_KEY = "napari-rln"
"""Key of the record in a group's attributes."""

# Bit shuffling puts bits of one significance together, which compresses even noisy values.
_COMPRESSORS = {
    "0.4": Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE),
    "0.5": zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
}
_LONGEST = 2**40  # voxels along an axis, beyond the capacity of any disk
_COARSEST = 256  # voxels along an axis, below which no further level is made
_LETTERS = {
    "t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "depth": "Z", "y": "Y",
    "height": "Y", "x": "X", "width": "X",
}  # fmt: skip


def open_lazily(path: Path) -> OpenedImage:
    """Return the finest level of an OME-Zarr image, or a Zarr array.

    Raise an RlnError if there is no image, or it is unreadable.
    """
    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # damaged metadata can make the parser raise anything
        raise RlnError(f"{path.name} cannot be read as Zarr ({error}).") from error
    if isinstance(node, zarr.Array):
        return _opened(node, _plain_axes(node, path.name), None, title(path))
    image = _ome(node)
    if "multiscales" not in image:
        return open_lazily(_only_image(node, image, path))
    try:
        scale = image["multiscales"][0]
        finest = scale["datasets"][0]
        array = node[finest["path"]]
        if not isinstance(array, zarr.Array):
            raise ValueError(f"{finest['path']} is no array")
        axes, units = _axes(scale, array.ndim)
        factors = _scale(scale, finest, array.ndim)
        name = str(scale.get("name") or title(path))
    except Exception as error:  # as above
        raise RlnError(
            f"{path.name} has OME-Zarr metadata that cannot be used ({error}); export it again."
        ) from error
    sizes = {
        axis: abs(float(factor)) * unit if unit and factor else None
        for axis, factor, unit in zip(axes, factors, units, strict=True)
    }
    z, y, x = (sizes.get(axis) for axis in "ZYX")
    voxel_um = None if y is None or x is None else (z or y, y, x)
    if "Z" in axes and z is None:
        voxel_um = None
    opened = _opened(array, axes, voxel_um, name, _record(dict(node.attrs)))
    return opened._replace(optics=per_channel(_optics(path, image), opened.channels))


def _optics(path: Path, image: dict[str, Any]) -> list[Optics]:
    """Return the optics of the channels of an image, by metadata beside it and OMERO's labels."""
    omero = image.get("omero")
    channels = (omero.get("channels") if isinstance(omero, dict) else None) or ()
    named = [Optics(channel=str(c.get("label") or "")) for c in channels if isinstance(c, dict)]
    for group in (path, path.parent):  # of converters, with the images as members 0, 1, ...
        described = group / "OME" / "METADATA.ome.xml"
        if not described.is_file():
            continue
        try:
            root = ElementTree.parse(described).getroot()
        except ElementTree.ParseError:
            return named
        images = root.findall("{*}Image")
        place = int(path.name) if group != path and path.name.isdecimal() else 0
        found = ome_optics(root, images[place]) if place < len(images) else []
        if len(found) == len(named):
            pairs = zip(found, named, strict=True)
            found = [replace(one, channel=one.channel or other.channel) for one, other in pairs]
        return found
    return named


def _opened(
    array: AnyArray, axes: str, voxel_um: VoxelUm | None, name: str, record: Record | None = None
) -> OpenedImage:
    size = array.shards or array.chunks
    if not all(size) or max(array.shape, default=0) > _LONGEST:
        raise RlnError(
            f"{name} is {array.shape} voxels in chunks of {size}: its metadata are damaged; copy "
            "it again."
        )
    stored = _stored(array)
    pieces = Pieces(kind="chunks", axes=axes, shape=array.shape, size=size, present=stored)
    in_memory = math.prod(array.chunks) * array.dtype.itemsize
    return OpenedImage(array, axes, voxel_um, name, record, pieces, stored.values, in_memory)


def _only_image(group: zarr.Group, image: dict[str, Any], path: Path) -> Path:
    """Return the path of the only image of a group; raise an RlnError if there is not one."""
    images = [name for name, member in group.groups() if "multiscales" in _ome(member)]
    if "plate" in image:
        images = [f"{well['path']}/0" for well in image["plate"].get("wells") or ()]
    if "plate" in image or "well" in image or not images:
        raise RlnError(
            f"{path} is a Zarr group without an image; name an image in it"
            + (f", for instance {path / images[0]}." if images else ".")
        )
    if len(images) > 1:
        raise RlnError(
            f"{path} contains the images {', '.join(sorted(images))}; name one of them, for "
            f"instance {path / min(images)}."
        )
    return path / images[0]


def _folder_of(array: AnyArray) -> Path:
    return Path(array.store.root) / array.path  # type: ignore[attr-defined]


def _stored(array: AnyArray) -> dict[tuple[int, ...], Path]:
    """Return the files of existing chunks, or shards, by their numbers.

    Empty files, left by an interrupted copy, count as missing.
    """
    folder = _folder_of(array)
    encoding = getattr(array.metadata, "chunk_key_encoding", None)
    prefix = ("c",) if encoding is not None and encoding.name == "default" else ()
    files = {}
    for where, _, names in os.walk(folder):
        above = Path(where).relative_to(folder).parts
        for name in names:
            parts = [*above, *name.split(".")]
            if tuple(parts[: len(prefix)]) != prefix:
                continue
            numbers = parts[len(prefix) :]
            if len(numbers) == array.ndim and all(word.isdecimal() for word in numbers):
                file = Path(where) / name
                if file.stat().st_size:
                    files[tuple(map(int, numbers))] = file
    return files


def _ome(group: zarr.Group) -> dict[str, Any]:
    """Return the OME metadata of a group, which 0.5 stores under a key of their own."""
    attributes: dict[str, Any] = dict(group.attrs)
    metadata = attributes.get("ome", attributes)
    return metadata if isinstance(metadata, dict) else {}


def _axes(scale: dict[str, Any], ndim: int) -> tuple[str, list[float | None]]:
    """Return the axes' letters, and the length of their units in micrometres.

    Raise a ValueError unless they are some of t, c, z, y and x, one for each axis of the array.
    """
    axes = scale.get("axes")
    if axes is None and scale.get("coordinateSystems"):  # from 0.6 on
        axes = _system(scale)["axes"]
    if axes is None:  # fixed before 0.4
        return "TCZYX"[-ndim:], [None] * ndim
    named = [{"name": axis} if isinstance(axis, str) else axis for axis in axes]
    names = [str(axis["name"]).lower() for axis in named]
    if len(names) != ndim:
        raise ValueError(f"it names the axes {', '.join(names)} but its array has {ndim}")
    letters = "".join(_LETTERS.get(name, "?") for name in names)
    if "?" in letters or len(set(letters)) < ndim:
        raise ValueError(f"its axes are called {', '.join(names)}; they must be of t, c, z, y, x")
    return letters, [um_per(axis.get("unit", "")) for axis in named]


def _system(scale: dict[str, Any]) -> dict[str, Any]:
    """Return the coordinate system to which the levels of an image are mapped."""
    systems: list[dict[str, Any]] = scale["coordinateSystems"]
    output = scale["datasets"][0]["coordinateTransformations"][0].get("output")
    name = output.get("name") if isinstance(output, dict) else output
    return next((system for system in systems if system.get("name") == name), systems[-1])


def _scale(image: dict[str, Any], level: dict[str, Any], ndim: int) -> Sequence[float | None]:
    """Return the size of a level's voxels along each axis; None where not clearly stated."""
    # From 0.6 on, transformations of all levels lead on to other coordinate systems.
    entries = [level] if "coordinateSystems" in image else [level, image]
    try:
        scales = [scale for entry in entries for scale in _scales(entry, ndim)]
    except (ValueError, TypeError, LookupError, AttributeError):
        return [None] * ndim
    return list(np.prod(scales, axis=0)) if scales else [None] * ndim


def _scales(entry: dict[str, Any], ndim: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the scales among the transformations of an image or a level.

    Raise a ValueError if there are others than scales and translations, or of other axes.
    """
    steps = list(entry.get("coordinateTransformations") or [])
    while steps:
        step = steps.pop(0)
        kind = step.get("type")
        if kind == "sequence":
            steps = [*step["transformations"], *steps]
        elif kind == "scale":
            scale = np.asarray(step["scale"], dtype=np.float64)
            if scale.shape != (ndim,) or not np.isfinite(scale).all():
                raise ValueError(f"a scale of {scale.shape} numbers for {ndim} axes")
            yield scale
        elif kind not in ("identity", "translation"):
            raise ValueError(f"a transformation of type {kind}")


def _plain_axes(array: AnyArray, name: str) -> str:
    """Return the axes of an array without OME metadata."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(names, list | tuple) and len(names) == array.ndim:
        letters = "".join(_LETTERS.get(str(n).lower(), "?") for n in names)
        if "?" not in letters and len(set(letters)) == array.ndim:
            return letters
        if letters.strip("?"):  # the known axes imply that the others are not the usual ones
            raise RlnError(
                f"the dimensions of {name} are called {', '.join(map(str, names))}; they must be "
                "t, c, z, y, x."
            )
    *lead, _, _, _ = (1, 1, *array.shape)
    if array.ndim < 2 or array.ndim > 5 or any(n > 1 for n in lead):
        raise RlnError(
            f"{name} has {array.ndim} axes without names; write it as OME-Zarr, or name its "
            "dimensions t, c, z, y, x."
        )
    return "TCZYX"[-array.ndim :]


def _record(attributes: dict[str, Any]) -> Record | None:
    try:
        return Record.from_json(json.dumps(attributes[RECORD_KEY]))
    except (KeyError, ValueError, TypeError):
        return None


def image_levels(path: Path) -> list[AnyArray]:
    """Return all levels of an image on disk, the finest first; of a plain array the array itself.

    Errors are those of :func:`open_lazily`.
    """
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return [node]
    if "multiscales" in _ome(node):
        return levels_of(node)
    return image_levels(_only_image(node, _ome(node), path))


def pyramid(shape: Shape, voxel_um: VoxelUm) -> list[tuple[int, int, int]]:
    """Return the downsampling factors (z, y, x) of the levels, relative to the finest.

    Every level halves the axes with the smallest voxels, which makes voxels nearly cubic; z is
    halved too when it is no longer the coarsest by far.
    """
    levels = [(1, 1, 1)]
    while True:
        factors = levels[-1]
        sizes = [n / f for n, f in zip(shape, factors, strict=True)]
        if max(sizes) <= _COARSEST:
            return levels
        voxels = [v * f for v, f in zip(voxel_um, factors, strict=True)]
        finest = min(v for v, n in zip(voxels, sizes, strict=True) if n >= 2)
        z, y, x = (
            f * (2 if n >= 2 and v < 1.5 * finest else 1)
            for f, v, n in zip(factors, voxels, sizes, strict=True)
        )
        levels.append((z, y, x))


class ZarrTarget:
    """An OME-Zarr image, written by boxes of whole shards, or of whole chunks without shards.

    Its path is that of a group made by :meth:`create`.
    """

    def __init__(self, path: Path) -> None:
        # Missing chunks count as lost, so chunks of the fill value are written too.
        self.levels = [
            level.with_config({"write_empty_chunks": True})
            for level in levels_of(zarr.open_group(path, mode="r+"))
        ]
        self.dtype = self.levels[0].dtype
        z, y, x = self.levels[0].shape[-3:]
        self.shape: Shape = (z, y, x)

    @classmethod
    def create(
        cls,
        path: Path,
        shape: Shape,
        times: int | None,
        dtype: npt.DTypeLike,
        voxel_um: VoxelUm,
        name: str,
        record: Record,
        *,
        version: Version,
        chunk: Shape,
        block: Shape,
    ) -> "ZarrTarget":
        """Make an image and its levels, all of them empty.

        ``shape`` (Z, Y, X) is that of one of the volumes; the axes are z, y, x if ``times`` is
        None, else t, c, z, y, x. A ``block`` is of whole chunks: a shard in version 0.5.
        """
        sharded = version == "0.5"
        group = zarr.create_group(path, zarr_format=3 if sharded else 2)
        factors = pyramid(shape, voxel_um)
        lead = () if times is None else (times, 1)
        ones = (1,) * len(lead)
        for level, factor in enumerate(factors):
            group.create_array(
                str(level),
                shape=(*lead, *coarser(shape, factor)),
                dtype=np.dtype(dtype),
                chunks=(*ones, *chunk),
                shards=(*ones, *block) if sharded else None,
                compressors=_COMPRESSORS[version],
                fill_value=0,
                chunk_key_encoding={"name": "default" if sharded else "v2", "separator": "/"},
                dimension_names="tczyx"[-len(lead) - 3 :] if sharded else None,
            )
        multiscale = _metadata(factors, voxel_um, name, len(lead), version)
        metadata: dict[str, Any] = {"multiscales": [multiscale]}
        metadata = {"ome": metadata | {"version": version}} if sharded else metadata
        group.attrs.update(metadata | {RECORD_KEY: json.loads(record.to_json())})
        return cls(path)

    def write(self, box: Box, data: npt.NDArray[Any], time: int = 0, level: int = 0) -> None:
        """Write a part of a volume, (z, y, x) of the array's type."""
        self.levels[level][*self._lead(time), *box] = data

    def read(self, box: Box, time: int = 0, level: int = 0) -> npt.NDArray[Any]:
        """Return a written part of a volume, (z, y, x)."""
        return np.asarray(self.levels[level][*self._lead(time), *box])

    def erase(self, box: Box, time: int = 0, level: int = 0) -> None:
        """Remove the chunks of a part of a volume, as damaged ones cannot be overwritten."""
        array = self.levels[level]
        sizes = array.shards or array.chunks
        lead = self._lead(time)
        along = (
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(box, sizes[-3:], strict=True)
        )
        folder = _folder_of(array)
        for where in itertools.product(*([n] for n in lead), *along):
            (folder / array.metadata.encode_chunk_key(where)).unlink(missing_ok=True)

    def coarsened(self, box: Box, time: int, level: int) -> npt.NDArray[Any]:
        """Return a part of a level, as means of the previous level.

        Computed chunk by chunk, as the source is up to eight times as large.
        """
        coarse = np.empty([part.stop - part.start for part in box], self.dtype)
        z, y, x = self.levels[level].chunks[-3:]
        for tile in plan_tiles(coarse.shape, (z, y, x), (0, 0, 0)):
            place = tuple(
                slice(p.start + c.start, p.start + c.stop)
                for p, c in zip(box, tile.core, strict=True)
            )
            coarse[tile.core] = self._means(place, time, level)  # type: ignore[arg-type]
        return coarse

    def _means(self, box: Box, time: int, level: int) -> npt.NDArray[Any]:
        fine, coarse = (self.levels[n].shape[-3:] for n in (level - 1, level))
        factors = [-(-f // c) if c < f else 1 for f, c in zip(fine, coarse, strict=True)]
        z, y, x = (
            slice(part.start * f, min(part.stop * f, n))
            for part, f, n in zip(box, factors, fine, strict=True)
        )
        data = self.read((z, y, x), time, level - 1).astype(np.float32)
        for axis, factor in enumerate(factors):
            if factor == 1:
                continue
            if data.shape[axis] % 2:  # the last voxel is repeated
                data = np.concatenate([data, data.take([-1], axis)], axis)
            first, second = (data[(slice(None),) * axis + (slice(s, None, 2),)] for s in (0, 1))
            data = (first + second) * np.float32(0.5)
        if self.dtype.kind in "iu":
            data = np.rint(data)
        return data.astype(self.dtype)

    def _lead(self, time: int) -> tuple[Any, ...]:
        return (time, 0) if self.levels[0].ndim == 5 else ()


def coarser(shape: Shape, factors: tuple[int, int, int]) -> Shape:
    """Return the size (z, y, x) of a level with downsampling factors."""
    z, y, x = (math.ceil(n / f) for n, f in zip(shape, factors, strict=True))
    return z, y, x


def levels_of(group: zarr.Group) -> list[AnyArray]:
    """Return all levels of an image, the finest first."""
    sets = _ome(group)["multiscales"][0]["datasets"]
    return [array for each in sets if isinstance(array := group[each["path"]], zarr.Array)]


def _metadata(
    factors: list[tuple[int, int, int]], voxel_um: VoxelUm, name: str, lead: int, version: Version
) -> dict[str, Any]:
    """Return the metadata of an image's axes and levels, validated against the specification."""
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

    axes = [Axis(name="t", type="time"), Axis(name="c", type="channel")][:lead]
    axes += [Axis(name=axis, type="space", unit="micrometer") for axis in "zyx"]
    datasets = []
    for level, factor in enumerate(factors):
        scale = [1.0] * lead + [v * f for v, f in zip(voxel_um, factor, strict=True)]
        # The first voxel of a coarser level is centred between the voxels that it averages.
        shift = [0.0] * lead + [v * (f - 1) / 2 for v, f in zip(voxel_um, factor, strict=True)]
        datasets.append(Dataset.build(path=str(level), scale=scale, translation=shift))
    multiscale = Multiscale(axes=axes, datasets=tuple(datasets), name=name, type="mean")
    checked: Any = multiscale if version == "0.5" else multiscale.to_version("0.4")
    metadata: dict[str, Any] = json.loads(checked.model_dump_json(exclude_none=True))
    return metadata
