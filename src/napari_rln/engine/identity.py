"""Whether a run that was begun, or is complete, is the one that is asked for."""

import json
from pathlib import Path

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.method import Json
from napari_rln.engine.journal import RunState
from napari_rln.engine.sampling import Samples
from napari_rln.engine.task import Task
from napari_rln.io.image import Image

# Settings that say where and how often, not what: a run may go on with others.
_WHERE = ("device", "report_every")


def identity_of(task: Task, image: Image, samples: Samples) -> Json:
    """Return all that a result depends on."""
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
    own = {k: v for k, v in task.method.described().identity.items() if k not in _WHERE}
    found: Json = json.loads(json.dumps(identity | own))
    return found


def check_same(identity: Json, state: RunState | None, out: Path) -> None:
    """Raise unless what is there is the same work as what is asked for.

    Raises
    ------
    RlnError
        With what differs.
    """
    if state is None:
        raise RlnError(
            f"{out} is there already; name another result, or replace it with `overwrite`."
        )
    other = [
        f"{name} {state.identity.get(name)!r}, not {value!r}"
        for name, value in identity.items()
        if state.identity.get(name) != value
    ]
    if other:
        raise RlnError(
            f"{out} was begun with {'; '.join(other)}; give the same again, name another "
            "result, or begin anew with `overwrite`."
        )
