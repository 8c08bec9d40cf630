"""Runs of the dock as what a command, or Python, is given to do the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.gui.copy_button import Run, image_of, psf_b_of, psf_of
from napari_rln.gui.deconvolve.method_list import Method, Rld
from napari_rln.gui.deconvolve.second_view import Views
from napari_rln.gui.layers import LayerImage


def run_of(image: LayerImage, psf: LayerImage | None, method: Method, mend: bool) -> Run:
    """Return a run in memory."""
    given = image_of(image) | psf_of(psf) | {"repair": mend, "settings": method.settings}
    given["out"] = Path(f"{image.name} {method.name}.ome.tif")
    if isinstance(method, Rld):
        return "rld", given
    return "rln", given | {"model": method.model_path}


def run_on_disk(
    image: LayerImage,
    psf: LayerImage | None,
    method: Method,
    mend: bool,
    out: Path,
    settings: dict[str, Any],
) -> Run:
    """Return a run from disk to disk; the settings are those of the dock's place."""
    verb, given = run_of(image, psf, method, mend)
    given |= {"out": out, **settings}
    if not isinstance(method, Rld):  # has these among its own
        tiled = {name: given.pop(name) for name in ("tile", "memory_gb")}
        given["settings"] = replace(method.settings, **tiled)
    return verb, given


def run_of_views(views: Views, method: Method, mend: bool) -> Run:
    """Return a run on two views."""
    first, second = image_of(views.first), image_of(views.second)
    psf = psf_of(views.psf_first)
    if first.get("time") != second.get("time"):
        raise RlnError("a command reads one time point of both views; choose the same.")
    given = first | psf | {"image_b": second["image"], "repair": mend, "views": views.settings}
    given["out"] = Path(f"{views.first.name} dual {method.name}.ome.tif")
    others = {
        # None would be as good as the first's.
        "channel_b": (
            second.get("channel", 0 if "channel" in first else None),
            first.get("channel"),
        ),
        "voxel_um_b": (second["voxel_um"], first["voxel_um"]),
    }
    given |= {name: its for name, (its, firsts) in others.items() if its != firsts}
    given |= psf_b_of(views.psf_second, psf)
    if isinstance(method, Rld):
        return "dual", given | {"settings": method.settings}
    told = method.settings
    if told.precision == "float16":
        raise RlnError("the command computes two views in float32 or float64; choose one of them.")
    shared = RldSettings(
        background=told.background, negatives=told.negatives, device=told.device,
        precision=told.precision,
    )  # fmt: skip
    return "dual", given | {
        "model": method.model_path, "settings": shared, "tile": told.tile,
        "memory_gb": told.memory_gb,
    }  # fmt: skip
