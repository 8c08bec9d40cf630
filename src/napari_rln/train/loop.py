"""Training loop."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from napari_rln.core.device import computing, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import Stopwatch, finish
from napari_rln.core.limits import as_dict
from napari_rln.core.memory import keep_freed_memory
from napari_rln.networks.model import Model
from napari_rln.train.checkpoint import Checkpoint, discard
from napari_rln.train.estimates_on_disk import EstimateCache
from napari_rln.train.state import TrainingState
from napari_rln.train.training_set import TrainingSet
from napari_rln.train.training_settings import TrainReport, TrainSettings

_ADVICE = "use smaller patches or batches (`patch`, `batch`)."


def train_model(
    training_set: TrainingSet, settings: TrainSettings, *, name: str = "model"
) -> Model:
    """Return the trained model; see :func:`train_model_iter`."""
    return finish(train_model_iter(training_set, settings, name=name))


def train_model_iter(
    training_set: TrainingSet,
    settings: TrainSettings,
    *,
    name: str = "model",
    checkpoint: Path | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
) -> Generator[TrainReport, None, Model]:
    """Train a network; yield a report after every step, return the best model.

    Closing the generator cancels and saves the state in the checkpoint; the best model so far is
    :meth:`TrainReport.model` of the last report.

    Parameters
    ----------
    training_set
        Source of examples and initial model.
    settings
        Settings of the training.
    name
        Name of the model.
    checkpoint
        File in which the state is saved regularly and on closing, for resuming; removed at the
        end, with the folder of initial estimates beside it.
    resume
        Continue from that file; the result equals that of an uninterrupted training.
    keep_checkpoint
        Do not remove the checkpoint at the end, so that nothing is lost until the model is saved.

    Raises
    ------
    RlnError
        If the settings, the initial model or the checkpoint do not fit.
    ComputeError
        If the computation fails.
    """
    keep_freed_memory()
    device = resolve_device(settings.device)
    cache = EstimateCache.beside(checkpoint)
    with (
        computing(0, device, _ADVICE),
        closing(TrainingState(training_set, settings, name, device, cache)) as run,
    ):
        saved = None
        if resume:
            if checkpoint is None:
                raise RlnError("`resume` needs a checkpoint to resume from; give `checkpoint`.")
            saved = Checkpoint.load(checkpoint)
            saved.check(as_dict(settings), training_set.inputs, checkpoint)
            run.timing.clock = Stopwatch(saved.seconds)  # the minutes are those of both parts
        yield from run.follow(_train(run, saved, checkpoint))
        model = run.model()
    if checkpoint is not None and not keep_checkpoint:
        discard(checkpoint)
    return model


def _train(
    run: TrainingState, saved: Checkpoint | None, checkpoint: Path | None
) -> Generator[TrainReport, None, None]:
    yield from run.prepare(saved)
    if saved is not None:
        run.restore(saved)
    elif run.training_set.initial_model is not None and run.settings.validate:
        yield from run.validate_initial()
    while run.step < run.total:
        report = run.advance()
        if checkpoint is not None and run.due():
            run.state().save(checkpoint)
        try:
            yield report
        except GeneratorExit:  # cancelled: save the steps done
            if checkpoint is not None and not run.due():
                run.state().save(checkpoint)
            raise
