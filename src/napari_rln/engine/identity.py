"""Whether a run that was begun, or is complete, is the one that is asked for."""

import hashlib
import json
from pathlib import Path
from typing import Any

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.core.settings import as_dict
from napari_rln.engine.job import Job
from napari_rln.engine.request import LargeRun
from napari_rln.engine.sampling import Samples
from napari_rln.io.image import Image
from napari_rln.networks.model import Model

# Settings that say where and how much at once, not what: a run may go on with others.
_WHERE = ("device", "memory_gb", "tile", "report_every")


def identity_of(run: LargeRun, source: Image, samples: Samples) -> dict[str, Any]:
    """Return all that a result depends on."""
    identity = {
        "method": run.method,
        "image": samples.hash,
        "shape": list(source.shape),
        "times": source.times,
        "voxel_um": list(source.voxel_um),
        "psf": run.psf.hash if run.psf is not None else None,
        "model": None if run.model is None else _model_hash(run.model),
        "form": run.large.ome_zarr if run.form == "zarr" else "tiff",
        "dtype": run.dtype,
        "version": __version__,
    }
    settings = {k: v for k, v in as_dict(run.settings).items() if k not in _WHERE}
    found: dict[str, Any] = json.loads(json.dumps(identity | settings))
    return found


def _model_hash(model: Model) -> str:
    """Return a hash of the weights and of all that tells how they are applied."""
    card = model.card()
    kept = ("network", "start", "normalisation", "output_scale", "share")
    told = json.dumps({name: card[name] for name in kept}, sort_keys=True)
    return f"{model.hash}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def check_same(identity: dict[str, Any], job: Job | None, out: Path) -> None:
    """Raise unless what is there is the same work as what is asked for.

    Raises
    ------
    RlnError
        With what differs.
    """
    if job is None:
        raise RlnError(
            f"{out} is there already; name another result, or replace it with `overwrite`."
        )
    other = [
        f"{name} {job.identity.get(name)!r}, not {value!r}"
        for name, value in identity.items()
        if job.identity.get(name) != value
    ]
    if other:
        raise RlnError(
            f"{out} was begun with {'; '.join(other)}; give the same again, name another "
            "result, or begin anew with `overwrite`."
        )
