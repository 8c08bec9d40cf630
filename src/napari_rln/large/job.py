"""A run's folder beside its result: what is to be done, by what, and what is finished.

``<result>.part`` holds the job, the PSF, the model, the result as far as it is, tiles that wait for
their neighbours, and a line for everything that is finished. Nothing in it is ever changed but
replaced whole or added to, so that a run that was killed at any moment can go on. When all is done
the result takes its name and ``<result>.run.json`` keeps what was done.
"""

import dataclasses
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from napari_rln import __version__
from napari_rln.errors import RlnError
from napari_rln.io import OutputType, atomic, read_volume, write_volume
from napari_rln.large.plan import Format, Plan
from napari_rln.large.statistics import Statistics
from napari_rln.model import Model, load_model
from napari_rln.record import Record, jsonable
from napari_rln.rld import RldSettings
from napari_rln.rln import RlnSettings
from napari_rln.stores.ngff import Version, ZarrTarget
from napari_rln.stores.source import Origin
from napari_rln.stores.tiff import TiffTarget
from napari_rln.volume import Volume, VoxelUm

Method = Literal["rld", "rln"]
Target = TiffTarget | ZarrTarget
Settings = RldSettings | RlnSettings


TILE = -1
"""In a key, instead of a level: a tile of the classical deconvolution."""


class Key(NamedTuple):
    """What is finished once: a block of a level, or a tile, in a volume of a series."""

    time: int
    level: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker has to know; in JSON as it is here, beside PSF and model.

    Attributes
    ----------
    method
        What is done.
    origin
        The image.
    identity
        All that the result depends on: what must be the same for a run to go on.
    name
        Of the result.
    settings
        Of the method.
    voxel_um
        Voxel size (z, y, x) in micrometres.
    statistics, plan
        As found and made before the first tile.
    form, ome_zarr, dtype
        Of the result.
    device
        Type of what computes.
    threads
        With which a worker computes: results are equal to the bit only with equally many.
    ram
        Bytes that a worker might take when the plan was made.
    inputs
        Hashes of image, PSF and model.
    version
        Of napari-rln.
    """

    method: Method
    origin: Origin
    identity: dict[str, Any]
    name: str
    settings: dict[str, Any]
    voxel_um: VoxelUm
    statistics: Statistics
    plan: Plan
    form: Format
    ome_zarr: Version
    dtype: OutputType
    device: str
    threads: int
    ram: int
    inputs: dict[str, str]
    version: str = __version__

    def record(self) -> Record:
        """Return the record that the result carries."""
        found, plan = self.statistics, self.plan
        facts: dict[str, Any] = {
            **found.calibrated.facts(),
            "sampled_voxels": found.sampled,
            "block": list(plan.block),
        }
        if found.iterations:
            facts |= {"iterations": found.iterations, "tile": list(plan.core),
                      "halo": list(plan.halo), "blended": list(plan.overlap)}  # fmt: skip
        if self.method == "rln":
            facts["normalisation"] = {"offset": found.offset, "scale": found.scale}
        if found.consistency is not None:
            facts["consistency"] = found.consistency
        return Record(
            method=self.method, settings=self.settings, facts=facts, inputs=self.inputs,
            version=self.version,
        )  # fmt: skip

    def to_json(self) -> str:
        """Return the job as JSON."""
        return json.dumps(jsonable(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the job that :meth:`to_json` wrote."""
        fields = json.loads(text)
        origin = fields["origin"]
        if origin["voxel_um"]:
            origin["voxel_um"] = tuple(origin["voxel_um"])
        made = {
            "origin": Origin(**origin),
            "statistics": Statistics(**fields["statistics"]),
            "plan": Plan.of(fields["plan"]),
            "voxel_um": tuple(fields["voxel_um"]),
        }
        return cls(**(fields | made))


class Folder:
    """Where the files of a run are.

    Parameters
    ----------
    out
        The result.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.part = out.with_name(f"{out.name}.part")
        self.manifest = out.with_name(f"{out.name}.run.json")
        self.result = self.part / out.name
        self._job, self._log = self.part / "job.json", self.part / "finished.jsonl"
        self._psf, self._model = self.part / "psf.ome.tif", self.part / "model.safetensors"

    @property
    def lock(self) -> Path:
        """Of the file that a run holds locked."""
        return self.out.with_name(f"{self.out.name}.lock")

    def begin(
        self,
        job: Job,
        psf: Volume | None,
        model: Model | None,
        estimate: npt.NDArray[np.float32] | None,
    ) -> None:
        """Make the folder, with all that workers need; the job last, which says that it is whole.

        Parameters
        ----------
        job
            What is to be done.
        psf, model
            What it needs.
        estimate
            The only tile of the first volume, where it is deconvolved already.

        Raises
        ------
        OSError
            If the disk is full, or the folder is not writable.
        """
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir()
        if psf is not None:
            write_volume(psf, self._psf)
        if model is not None:
            model.save(self._model)
        if estimate is not None:
            np.save(self.scratch(0, 0), estimate)
            light = job.statistics.mean * math.prod(job.plan.shape)
            self.add_finished(Key(0, TILE, 0), {"image": light})
        self._create(job)
        self.write(job)

    def write(self, job: Job) -> None:
        """Write what is to be done, whole or not at all."""
        with atomic(self._job) as temporary:
            temporary.write_text(job.to_json())

    def _create(self, job: Job) -> None:
        plan = job.plan
        common = {"voxel_um": job.voxel_um, "name": job.name, "record": job.record()}
        times = _times(job)
        if job.form == "tiff":
            TiffTarget.create(self.result, plan.shape, times, job.dtype, **common)  # type: ignore[arg-type]
        else:
            ZarrTarget.create(
                self.result, plan.shape, times, job.dtype, **common,  # type: ignore[arg-type]
                version=job.ome_zarr, chunk=plan.chunk, block=plan.block,
            )  # fmt: skip

    def job(self) -> Job | None:
        """Return the job of a run that was begun; none where there is none.

        Raises
        ------
        RlnError
            If it was begun by another version, which wrote it otherwise.
        """
        try:
            return Job.from_json(self._job.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RlnError(
                f"{self.part} is of another version of napari-rln ({error}); delete it, or begin "
                "anew with --overwrite."
            ) from error

    def stamp(self) -> int:
        """Return by what a run is told from another one of the same name.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        return self._job.stat().st_mtime_ns

    def psf(self) -> Volume | None:
        """Return the PSF."""
        return read_volume(self._psf) if self._psf.exists() else None

    def model(self) -> Model | None:
        """Return the model."""
        return load_model(self._model) if self._model.exists() else None

    def target(self, job: Job) -> Target:
        """Return the result, to be written."""
        if job.form == "zarr":
            return ZarrTarget(self.result)
        return TiffTarget(self.result, job.plan.shape, _times(job))

    def scratch(self, time: int, number: int) -> Path:
        """Return where a deconvolved tile waits for its neighbours."""
        return self.part / f"tile-{time}-{number}.npy"

    def clean(self) -> None:
        """Remove what a killed worker left half-written."""
        for leftover in (*self.part.glob(".*-tile-*.npy"), *self.result.rglob("*.partial")):
            leftover.unlink(missing_ok=True)

    def finished(self) -> dict[Key, dict[str, Any]]:
        """Return what is finished, with checksums and what else was found."""
        found = {}
        try:
            lines = self._log.read_text().splitlines()
        except FileNotFoundError:
            return {}
        for line in lines:
            try:
                entry = json.loads(line)
                found[Key(*entry.pop("key"))] = entry
            except (ValueError, KeyError, TypeError):  # cut off when the run was killed
                continue
        return found

    def add_finished(self, key: Key, entry: dict[str, Any]) -> None:
        """Note that a block is finished, on the disk before this returns.

        Raises
        ------
        OSError
            If the disk is full.
        """
        # A line that was cut off by a kill must not swallow this one.
        line = "\n" + json.dumps({"key": list(key), **entry}) + "\n"
        with self._log.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def complete(self, job: Job, summary: dict[str, Any]) -> None:
        """Give the result its name, keep the manifest, and remove the rest."""
        entries = [{"key": list(k), **v} for k, v in sorted(self.finished().items())]
        held = json.loads(job.to_json()) | {"summary": jsonable(summary), "finished": entries}
        with atomic(self.manifest) as temporary:
            temporary.write_text(json.dumps(held))
        if self.out.exists():  # an older one, that is to be replaced
            self.out.rename(self.part / "replaced")
        self.result.rename(self.out)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a run needs no more when its result has its name."""
        shutil.rmtree(self.part, ignore_errors=True)

    def completed(self) -> Job | None:
        """Return the job of a run that is complete; none where there is none."""
        if not self.out.exists():
            return None
        try:
            held = json.loads(self.manifest.read_text())
            return Job.from_json(
                json.dumps({f.name: held[f.name] for f in dataclasses.fields(Job)})
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _times(job: Job) -> int | None:
    """Return the length of the result's axis of time; none where it has no such."""
    return job.plan.times if job.origin.time is None and job.plan.times > 1 else None
