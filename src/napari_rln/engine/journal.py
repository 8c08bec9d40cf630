"""A run's folder beside its result: state, inputs, partial result and journal.

``<result>.part`` holds the run's state, the PSF, the files of the method, the partial result, tiles
that wait for their neighbours, and a line for every finished part. Files in it are only replaced
as a whole or appended to, so that a run that was killed at any moment can be resumed. At the end
the result gets its name, and ``<result>.run.json`` keeps the manifest.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from napari_rln import __version__
from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.record import Record, jsonable
from napari_rln.core.tiles import as_text
from napari_rln.core.volume import Box, FloatArray, Volume, VoxelUm
from napari_rln.deconvolution.method import Json, Method
from napari_rln.engine.image_state import ImageState
from napari_rln.engine.methods import method_from_json
from napari_rln.engine.plan import Format, Plan
from napari_rln.io.image import ImageFile, checksum
from napari_rln.io.ome_zarr import Version, ZarrTarget
from napari_rln.io.paths import atomic
from napari_rln.io.tiff import TiffTarget
from napari_rln.io.volumes import OutputType, read, write

Target = TiffTarget | ZarrTarget

# NumPy parses the header of a .npy file as Python, which CPython before 3.11.8 and 3.12.2 fails at
# now and then when two threads do it at once ("AST constructor recursion depth mismatch").
_reading_header = threading.Lock()

# Errors of reading files that are damaged, or of another version.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)

_SEAL = "seal"  # of JSON, its own checksum

TILE = -1
"""Level in the key of a tile of the classical deconvolution."""


class Key(NamedTuple):
    """Key of a finished part: a block of a level, or a tile, in a volume of a series."""

    time: int
    level: int
    number: int


@dataclass(frozen=True, kw_only=True)
class RunState:
    """State of a run for its workers, stored as JSON beside the PSF and files of the method.

    Attributes
    ----------
    method
        Method, from :func:`napari_rln.engine.methods.method_as_json`.
    image
        Image file.
    identity
        Everything that the result depends on; must be equal for a run to be resumed.
    record
        Record of the result.
    name
        Name of the result.
    voxel_um
        Voxel size (z, y, x) in micrometres.
    image_state, plan
        Calibration of the whole image and division, made before the first tile.
    form, ome_zarr, dtype
        Format, OME-Zarr version and type of the result.
    device
        Type of the device.
    threads
        Threads of a worker: results are equal to the bit only for equal numbers.
    ram
        Memory of a worker for which the plan was made, bytes.
    stamp
        Stamp of the image's files, which changes when they do.
    version
        Version of napari-rln.
    """

    method: Json
    image: ImageFile
    identity: Json
    record: Record
    name: str
    voxel_um: VoxelUm
    image_state: ImageState
    plan: Plan
    form: Format
    ome_zarr: Version
    dtype: OutputType
    device: str
    threads: int
    ram: int
    stamp: str
    version: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """Return the state in JSON's types."""
        fields: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return fields | {"record": self.record.as_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the state from the dictionary of :meth:`as_dict`."""
        parsed = {
            "image": ImageFile.from_json(fields["image"]),
            "record": Record.from_dict(fields["record"]),
            "image_state": ImageState(**fields["image_state"]),
            "plan": Plan.of(fields["plan"]),
            "voxel_um": tuple(fields["voxel_um"]),
        }
        plain = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        return cls(**(plain | parsed))


class Completed(NamedTuple):
    """Manifest of a complete run.

    Attributes
    ----------
    state
        State of the run.
    summary
        Measured facts and the duration.
    finished
        Written parts, with checksums.
    """

    state: RunState
    summary: dict[str, Any]
    finished: dict[Key, dict[str, Any]]


def sealed(fields: dict[str, Any]) -> str:
    """Return JSON with a checksum of its content."""
    text = json.dumps(fields, sort_keys=True)
    return json.dumps({_SEAL: f"{zlib.crc32(text.encode()):08x}"} | fields, sort_keys=True)


def unsealed(text: str) -> dict[str, Any]:
    """Return the fields from the JSON of :func:`sealed`.

    Raises
    ------
    ValueError
        If the text is something else, or damaged.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or _SEAL not in fields:
        raise ValueError("it has no checksum")
    expected = fields.pop(_SEAL)
    if expected != f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}":
        raise ValueError("its content was changed or damaged")
    return fields


class RunFolder:
    """Files of a run."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.part = out.with_name(f"{out.name}.part")
        self.manifest = out.with_name(f"{out.name}.run.json")
        self.result = self.part / out.name
        self._state, self._log = self.part / "job.json", self.part / "finished.jsonl"
        self._psf = self.part / "psf.ome.tif"
        self._mark = self.part / "napari-rln"  # marks the folder as ours

    @property
    def lock(self) -> Path:
        """Path of the lock file of a run."""
        return self.out.with_name(f"{self.out.name}.lock")

    def begin(self, psf: Volume | None, method: Method) -> Method:
        """Make the folder with the inputs of workers; return the method with its files there.

        Raises
        ------
        OSError
            If the disk is full, or the folder is not writable.
        """
        self.tidy()
        self.part.mkdir()
        self._mark.touch()
        return self.save_inputs(psf, method)

    def create(self, state: RunState, tile: FloatArray | None = None, source: str = "") -> None:
        """Make the empty result, and last the state, which marks the folder as complete.

        Parameters
        ----------
        state
            State of the run.
        tile
            (Z, Y, X), the single tile of a volume, if already deconvolved.
        source
            Checksum of the image in that tile.

        Raises
        ------
        OSError
            If the disk is full.
        """
        plan, times = state.plan, _times(state)
        if tile is not None:
            when = state.image_state.time
            np.save(self.scratch(when, 0), tile)
            light = state.image_state.mean * math.prod(plan.shape)
            entry = {"image": light, "source": source, "checksum": checksum(tile)}
            self.add_finished(Key(when, TILE, 0), entry)
        common = {"voxel_um": state.voxel_um, "name": state.name, "record": state.record}
        if state.form == "tiff":
            TiffTarget.create(self.result, plan.shape, times, state.dtype, **common)  # type: ignore[arg-type]
        else:
            ZarrTarget.create(
                self.result, plan.shape, times, state.dtype, **common,  # type: ignore[arg-type]
                version=state.ome_zarr, chunk=plan.chunk, block=plan.block,
            )  # fmt: skip
        self.write(state)

    def is_whole(self, state: RunState) -> bool:
        """Tell whether an incomplete result exists, and can be written to."""
        try:
            target = self.target(state)
        except Exception:  # damaged metadata can make the parser raise anything
            return False
        return target.shape == state.plan.shape and target.dtype == np.dtype(state.dtype)

    def save_inputs(self, psf: Volume | None, method: Method) -> Method:
        """Write the PSF and the files of the method; return the method with these files."""
        if psf is not None:
            write(psf, self._psf)
        return method.save_files(self.part)

    def write(self, state: RunState) -> None:
        """Write the state, atomically."""
        with atomic(self._state) as temporary:
            temporary.write_text(sealed(state.as_dict()))

    def state(self) -> RunState | None:
        """Return the state of an interrupted run; None without one.

        Raises
        ------
        RlnError
            If it is damaged, or in the format of another version.
        """
        try:
            return RunState.from_dict(unsealed(self._state.read_text()))
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            raise RlnError(
                f"{self.part} is damaged, or of another version of napari-rln ({error}); delete "
                "it, or start over with `overwrite`."
            ) from error

    def stamp(self) -> int:
        """Return a stamp that distinguishes runs of the same name.

        Raises
        ------
        ComputeError
            If there is no run.
        """
        try:
            return self._state.stat().st_mtime_ns
        except FileNotFoundError as error:
            raise ComputeError(
                f"a worker has no access to {self.part}; all machines need the same folders."
            ) from error

    def psf(self) -> Volume | None:
        """Return the PSF."""
        return read(self._psf) if self._psf.exists() else None

    def method(self, state: RunState) -> Method:
        """Return the method."""
        return method_from_json(state.method, self.part)

    def target(self, state: RunState, path: Path | None = None) -> Target:
        """Return the result to be written, or that at a path."""
        path = path or self.result
        if state.form == "zarr":
            return ZarrTarget(path)
        return TiffTarget(path, state.plan.shape, _times(state))

    def scratch(self, time: int, number: int) -> Path:
        """Return the path of a deconvolved tile that waits for its neighbours."""
        return self.part / f"tile-{time}-{number}.npy"

    def read_scratch(self, time: int, number: int) -> FloatArray:
        """Open a deconvolved tile that waits for its neighbours, mapped into memory.

        Raises
        ------
        OSError, ValueError, EOFError
            If the file is missing, half-written or damaged.
        """
        with _reading_header:
            kept: FloatArray = np.load(self.scratch(time, number), mmap_mode="r")
        return kept

    def clean(self) -> None:
        """Remove half-written files of a killed worker."""
        for leftover in (*self.part.glob(".*-tile-*.npy"), *self.result.rglob("*.partial")):
            leftover.unlink(missing_ok=True)

    def finished(self) -> dict[Key, dict[str, Any]]:
        """Return the finished parts, with checksums and other facts."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        entries = {}
        for line in lines:
            with contextlib.suppress(*_UNREADABLE):  # truncated when the run was killed
                entry = unsealed(line)
                entries[Key(*entry.pop("key"))] = entry
        return entries

    def add_finished(self, key: Key, entry: dict[str, Any]) -> None:
        """Record that a block is finished, on the disk before this returns.

        Raises
        ------
        OSError
            If the disk is full.
        """
        # Starts on a new line, as the last one may have been truncated by a kill.
        line = "\n" + sealed({"key": list(key), **entry}) + "\n"
        with self._log.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def complete(self, state: RunState, summary: dict[str, Any]) -> None:
        """Rename the result to its final name, write the manifest, and remove the rest."""
        entries = [{"key": list(k), **v} for k, v in sorted(self.finished().items())]
        content = state.as_dict() | {"summary": jsonable(summary), "finished": entries}
        with atomic(self.manifest) as temporary:
            temporary.write_text(sealed(content))
        if self.out.exists():  # an older result, to be replaced
            self.out.rename(self.part / "replaced")
        self.result.rename(self.out)
        self.tidy()

    def tidy(self) -> None:
        """Remove the files that a complete run no longer needs."""
        if self.is_ours:
            shutil.rmtree(self.part, ignore_errors=True)

    @property
    def is_ours(self) -> bool:
        """Whether the folder is that of a run, and not another one of that name."""
        return self._mark.exists() or self._state.exists()

    def check_free(self) -> None:
        """Raise if other files have the names that a run needs.

        Raises
        ------
        RlnError
            If so, with the names.
        """
        taken = [
            path
            for path, ours in (
                (self.part, self.is_ours),
                (self.manifest, self.completed() is not None),
                (self.lock, self.lock.is_file() and self.lock.stat().st_size == 0),
            )
            if os.path.lexists(path) and not ours
        ]
        if taken:
            raise RlnError(
                f"{taken[0]} was not written by napari-rln, which needs this name during the run; "
                "rename it, or choose another name for the result."
            )

    def completed(self) -> Completed | None:
        """Return the manifest of a complete run; None without one."""
        try:
            content = unsealed(self.manifest.read_text())
            finished = {}
            for entry in content["finished"]:
                key = Key(*entry["key"])
                finished[key] = {name: value for name, value in entry.items() if name != "key"}
            return Completed(RunState.from_dict(content), dict(content["summary"]), finished)
        except (OSError, *_UNREADABLE):
            return None


def box_of(state: RunState, key: Key) -> Box:
    """Return the part of a level of the result with a key, or the core of a tile."""
    if key.level == TILE:
        return state.plan.tiles[key.number].core
    if key.level:
        return state.plan.level_boxes(key.level)[key.number]
    return state.plan.blocks[key.number].core


def is_intact(target: Target, state: RunState, key: Key, expected: str) -> bool:
    """Tell whether a part of a result has its expected checksum."""
    box = box_of(state, key)
    try:
        if isinstance(target, ZarrTarget):
            return checksum(target.read(box, key.time, key.level)) == expected
        return checksum(target.read(box, key.time)) == expected
    except Exception:  # a damaged chunk can make codecs raise anything
        return False


def changed_since(state: RunState, key: Key) -> RlnError:
    """Return the error that an image has changed since the start of a run."""
    when = f", time {key.time}" if state.plan.times > 1 else ""
    return RlnError(
        f"the image {state.image.path} has changed since the run started (at "
        f"{as_text(box_of(state, key))}{when}); restore it, or start over with `overwrite`."
    )


def _times(state: RunState) -> int | None:
    """Return the length of the result's time axis; None without one."""
    return state.plan.times if state.image.time is None and state.plan.times > 1 else None
