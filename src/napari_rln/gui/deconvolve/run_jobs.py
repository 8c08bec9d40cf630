"""Background jobs of a run, each with the layer that its result grows in."""

import dataclasses
from collections.abc import Callable
from functools import partial

from napari.components import ViewerModel

from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, FinishedResult, Inputs
from napari_rln.gui.deconvolve.ondisk import DiskResult, DiskResultStream, DiskRun
from napari_rln.gui.deconvolve.second_view import ViewLayers
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.jobs import BackgroundJob
from napari_rln.gui.layers import LayerImage

Stream = ResultStream | DiskResultStream
Finished = Callable[[FinishedResult], None]


def job_in_memory(
    viewer: ViewerModel,
    inputs: Inputs,
    views: ViewLayers | None,
    method: ChosenMethod,
    shared: Shared,
    run: object,
    finished: Finished,
) -> tuple[BackgroundJob, ResultStream]:
    """Return the job of a method in memory, and its layer.

    ``finished`` takes the result, with the ``run`` that it is part of.
    """
    dual = "" if views is None else "dual "
    title = f"{inputs.image.name} \N{MIDDLE DOT} {dual}{method.name}"
    stream = ResultStream(viewer, inputs.image, title)
    if views is None:
        steps = partial(inputs.deconvolve, method, shared)
    else:
        steps = partial(views.deconvolve, method, inputs.repair)

    def finish(result: Volume) -> None:
        stream.finish(result)
        assert result.record is not None
        finished(FinishedResult(stream, result.record, inputs, run, shared))

    def stop(reason: str) -> None:
        name = " ".join([method.method.kind, *dual.split()])
        stream.stop(Record(method=name, settings=method.method.as_json()), reason)

    key = inputs.key, views and views.key, method
    return BackgroundJob(title, steps, key=key, done=finish, stopped=stop), stream


def job_on_disk(
    viewer: ViewerModel, disk: DiskRun, sample: LayerImage, run: object, finished: Finished
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
        cancel_note=f"finished parts of {out.name} are kept, and Run continues it",
    )
    return job, stream
