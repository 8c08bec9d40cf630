"""Identity of a run: the comparison of an interrupted or complete run with the requested one."""

import json
from pathlib import Path

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.method import Json
from napari_rln.engine.journal import RunState
from napari_rln.engine.sampling import Samples
from napari_rln.engine.task import Task
from napari_rln.io.image import Image

NOT_IDENTIFYING = ("device", "report_every")
"""Settings that do not change the result: a run may be resumed with other values."""


def identity_of(task: Task, image: Image, samples: Samples) -> Json:
    """Return everything that a result depends on."""
    identity = {
        "method": task.method.kind,
        "image": samples.hash,
        "shape": list(image.shape),
        "times": image.times,
        "voxel_um": list(image.voxel_um),
        "psf": task.psf.hash if task.psf is not None else None,
        "form": task.output.ome_zarr if task.form == "zarr" else "tiff",
        "dtype": task.output.dtype,
        "version": __version__,
    }
    own = {k: v for k, v in task.method.describe().identity.items() if k not in NOT_IDENTIFYING}
    fields: Json = json.loads(json.dumps(identity | own))
    return fields


def check_same(identity: Json, state: RunState | None, out: Path) -> None:
    """Raise unless an existing run is the requested one.

    Raises
    ------
    RlnError
        If they differ, with the differences.
    """
    if state is None:
        raise RlnError(
            f"{out} already exists; name another result, or replace it with `overwrite`."
        )
    differences = [
        f"{name} {state.identity.get(name)!r}, not {value!r}"
        for name, value in identity.items()
        if state.identity.get(name) != value
    ]
    if differences:
        raise RlnError(
            f"{out} was started with {'; '.join(differences)}; use the same settings and image, "
            "name another result, or start over with `overwrite`."
        )
