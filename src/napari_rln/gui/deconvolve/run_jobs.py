"""Background jobs of a run, each with the layer that its result grows in."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from napari.components import ViewerModel

from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.gui.deconvolve.autosave import saved
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, FinishedResult, Inputs
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.deconvolve.ondisk import DiskResult, DiskResultStream, DiskRun
from napari_rln.gui.deconvolve.second_view import ViewLayers
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.jobs import BackgroundJob, Steps
from napari_rln.gui.layers import LayerImage, record_of

Stream = ResultStream | DiskResultStream
Finished = Callable[[FinishedResult], None]


def job_in_memory(
    viewer: ViewerModel,
    inputs: Inputs,
    views: ViewLayers | None,
    method: ChosenMethod,
    shared: Shared,
    run: PastRun,
    finished: Finished,
    *,
    folder: Path | None = None,
    is_last: bool = True,
) -> tuple[BackgroundJob, ResultStream]:
    """Return the job of a method in memory, and its layer.

    ``finished`` takes the result, with the ``run`` that it is part of, or the estimate that was
    displayed when it was cancelled; a complete result is also written into a ``folder``. After the
    last method of an image the iterations that they share are freed.
    """
    dual = "" if views is None else "dual "
    title = f"{inputs.image.name} \N{MIDDLE DOT} {dual}{method.name}"
    stream = ResultStream(viewer, inputs.image, title)
    hashes: dict[str, str] = {}  # of the inputs, once they are read
    if views is None:
        steps = partial(inputs.deconvolve, method, shared, hashes)
    else:
        steps = partial(views.deconvolve, method, inputs.repair, hashes)

    def all_steps() -> Steps[Volume]:
        try:
            return (yield from saved(steps(), folder))
        finally:
            if is_last:
                shared.release_path()

    def finish(result: Volume) -> None:
        stream.finish(result)
        assert result.record is not None
        finished(FinishedResult(stream, result.record, inputs, run, shared))

    def stop(reason: str) -> None:
        name = " ".join([method.method.kind, *dual.split()])
        facts = {"image": inputs.image.name, "psf": inputs.psf.name if inputs.psf else None}
        settings = method.method.as_json()
        made = Record(method=name, settings=settings, facts=facts, inputs=dict(hashes))
        stream.stop(made, reason)
        kept = record_of(stream.layer) if stream.layer in viewer.layers else None
        # One by a fraction of the photons says too little about the image.
        if reason == "cancelled" and kept is not None and "estimated_from" not in kept.facts:
            finished(FinishedResult(stream, kept, inputs, run, shared))

    key = inputs.key, views and views.key, method
    job = BackgroundJob(title, all_steps, key=key, done=finish, stopped=stop, is_named=True)
    return job, stream


def job_on_disk(
    viewer: ViewerModel, disk: DiskRun, sample: LayerImage, run: PastRun, finished: Finished
) -> tuple[BackgroundJob, DiskResultStream]:
    """Return the job of a method from disk to disk, and its layer.

    Its result is compared with the image in a ``sample`` of it.
    """
    inputs, image = disk.inputs, disk.inputs.image
    image.check_upright()
    title = f"{image.name} \N{MIDDLE DOT} {disk.chosen.name}"
    stream = DiskResultStream(viewer, image, title)
    sampled = dataclasses.replace(inputs, image=sample)

    def finish(result: DiskResult) -> None:
        stream.finish(result)
        finished(FinishedResult(stream, result.record, sampled, run))

    out = disk.output.path
    job = BackgroundJob(
        title,
        disk.deconvolve,
        key=(inputs.key, disk.chosen, out),
        done=finish,
        stopped=lambda reason: stream.remove(),
        is_named=True,
        cancel_note=f"finished parts of {out.name} are kept, and Run continues it",
    )
    return job, stream
