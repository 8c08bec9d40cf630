"""Lazy arrays of files and folders: axes, metadata and missing pieces, without the values."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import VoxelUm
from napari_rln.psf.optics import Optics

Index = tuple[int | slice, ...]
"""Index of a part of an array: a number, or start and stop, for each axis."""


class Lazy(Protocol):
    """An array whose values are read by indexing: of zarr, numpy's memory maps, or dask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
    """Planes or chunks of an array with an axis for each letter, some of which may be missing.

    ``size`` is that of a piece, and the last along an axis may be smaller. ``present`` are the
    numbers along every axis of the existing pieces; ``is_incomplete`` tells whether the file refers
    to an unknown number of further ones.
    """

    kind: Literal["planes", "chunks"]
    axes: str
    shape: tuple[int, ...]
    size: tuple[int, ...]
    present: Collection[tuple[int, ...]]
    is_incomplete: bool = False

    def missing(self, index: Index) -> str:
        """Return the missing pieces of a part of the array as text; empty where all exist."""
        if self.is_incomplete:
            return f"{self.kind} after the {len(self.present)} that it holds"
        touched = self._touched(index)
        total, existing = math.prod(map(len, touched)), sum(1 for _ in self._existing(touched))
        if existing >= total:
            return ""
        absent = (piece for piece in _product(touched) if piece not in self.present)
        few = list(itertools.islice(absent, 1000))
        return f"{total - existing} of {total} {self.kind} ({self._listed(few, total - existing)})"

    def existing(self, index: Index) -> Iterator[tuple[Index, tuple[slice, ...]]]:
        """Yield the places of existing pieces: in the array, and in a part of it.

        The place in the part has an entry for each slice of the index.
        """
        for piece in self._existing(self._touched(index)):
            whole: list[int | slice] = []
            within = []
            for part, n, number, size in zip(index, self.shape, piece, self.size, strict=True):
                if not isinstance(part, slice):
                    whole.append(part)
                    continue
                first, last, _ = part.indices(n)
                start, stop = max(first, number * size), min(last, (number + 1) * size)
                whole.append(slice(start, stop))
                within.append(slice(start - first, stop - first))
            yield tuple(whole), tuple(within)

    def last_plane(self, index: Index) -> int:
        """Return the number of planes, of a part, up to the last one with an existing piece."""
        existing = list(self._existing(self._touched(index)))
        at = self.axes.find("Z")
        if at < 0 or not existing:
            return min(len(existing), 1)
        return min(self.shape[at], self.size[at] * (1 + max(piece[at] for piece in existing)))

    def _touched(self, index: Index) -> list[range]:
        """Return the numbers of the pieces along each axis that a part of the array touches."""
        touched = []
        for part, n, size in zip(index, self.shape, self.size, strict=True):
            start, stop, _ = (part if isinstance(part, slice) else slice(part, part + 1)).indices(n)
            touched.append(range(start // size, -(-stop // size)))
        return touched

    def _existing(self, touched: Sequence[range]) -> Iterator[tuple[int, ...]]:
        """Yield the existing ones of the touched pieces, by a loop over the smaller set."""
        if math.prod(map(len, touched)) < len(self.present):
            yield from (piece for piece in _product(touched) if piece in self.present)
            return
        for piece in self.present:
            if all(n in along for n, along in zip(piece, touched, strict=True)):
                yield piece

    def _listed(self, few: list[tuple[int, ...]], total: int) -> str:
        """Return the places of missing pieces as short text, along axes with several pieces."""
        named = [a for a, n in enumerate(self.shape) if n > self.size[a]] or [0]
        varying = [a for a, along in enumerate(zip(*few, strict=True)) if len(set(along)) > 1]
        if len(few) == total and len(varying) <= 1:
            return " ".join(
                f"{self.axes[a].lower()} {ranges({piece[a] for piece in few})}" for a in named
            )
        return "the first at " + " ".join(f"{self.axes[a].lower()} {few[0][a]}" for a in named)


def _product(along: Sequence[range]) -> Iterator[tuple[int, ...]]:
    """Yield all combinations of numbers, without lists of them.

    :func:`itertools.product` first makes lists, which fill the memory where damaged metadata state
    a size that no disk holds.
    """
    if not along:
        yield ()
        return
    for first in along[0]:
        for others in _product(along[1:]):
            yield first, *others


def places_of(
    index: Sequence[int | slice], lengths: Sequence[int]
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return the places that an index along some axes takes, and the shape of what it takes."""
    spans = [
        range(*part.indices(n)) if isinstance(part, slice) else range(part, part + 1)
        for part, n in zip(index, lengths, strict=True)
    ]
    kept = (len(span) for span, part in zip(spans, index, strict=True) if isinstance(part, slice))
    return list(itertools.product(*spans)), tuple(kept)


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as text, neighbours together: ``"3, 7 to 9"``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a} to {b}" if b > a else f"{a}" for a, b in spans)


class OpenedImage(NamedTuple):
    """An image on disk: a lazy array with a letter for each axis, and metadata.

    The voxel size (z, y, x) in micrometres is None where not stated, the record for images that are
    no results of napari-rln, and ``pieces`` where none can be missing. ``files`` returns the files
    of the values, ``piece_bytes`` is the number of bytes to read for a single voxel, ``images``
    the number of images in the same file or set of files, and ``optics`` those of every channel;
    empty if nothing is stated.
    """

    array: Lazy
    axes: str
    voxel_um: VoxelUm | None
    name: str
    record: Record | None = None
    pieces: Pieces | None = None
    files: Callable[[], Iterable[Path]] = lambda: ()
    piece_bytes: int = 0
    images: int = 1
    optics: tuple[Optics, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._length("C")

    @property
    def times(self) -> int:
        """Number of time points."""
        return self._length("T")

    def _length(self, axis: str) -> int:
        at = self.axes.find(axis)
        return 1 if at < 0 else self.array.shape[at]


def rgb_error(name: str) -> RlnError:
    """Return the error of an image of colours rather than values."""
    return RlnError(f"{name} is an RGB image; convert it to grey values or split its channels.")


def choose_image(sizes: Sequence[str], requested: int | None, name: str) -> int:
    """Return the number of the chosen image of a file; of its only image if none is chosen.

    Raise an RlnError if the number does not exist, or if there are several images and none is
    chosen.
    """
    if not sizes:
        raise RlnError(f"{name} contains no image; name another file.")
    if requested is None and len(sizes) > 1:
        few = ", ".join(sizes[:4]) + (", ..." if len(sizes) > 4 else "")
        raise RlnError(
            f"{name} contains {len(sizes)} images ({few}); choose one with `series`=0.."
            f"{len(sizes) - 1}, or save it separately. Planes of one stack with different sizes, "
            "types or compressions count as several images too."
        )
    if not 0 <= (requested or 0) < len(sizes):
        raise RlnError(
            f"{name} contains {len(sizes)} image{'s' * (len(sizes) > 1)}; {requested} is not among "
            f"0 to {len(sizes) - 1} (`series`)."
        )
    return requested or 0


MOST_PLANES = 10_000_000
"""Largest accepted number of planes: lists of more would fill the memory."""


def stamp(files: Iterable[Path]) -> str:
    """Return a stamp of files: a hash of their names, sizes and times.

    It changes when files are written or replaced, but may also change otherwise.
    """
    # A copy may keep the modification time, but not the change time.
    states = (
        (file.name, status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns}")
        for file, status in ((file, file.stat()) for file in files)
    )
    digest = hashlib.sha256()
    for name, size, changed in sorted(states):
        digest.update(f"{name}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
