"""The training loop."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from napari_rln.device import computing, resolve_device
from napari_rln.errors import RlnError
from napari_rln.loss import Losses, paper_loss, relative_loss
from napari_rln.memory import keep_freed_memory
from napari_rln.model import Model
from napari_rln.networks.rln import RLN, NetworkSettings, initialise, pass_estimate_on
from napari_rln.normalisation import brightness
from napari_rln.record import Record
from napari_rln.settings import as_dict
from napari_rln.steps import finish
from napari_rln.train.batches import Batch, draw_batch, inner, without_margin
from napari_rln.train.checkpoint import Checkpoint
from napari_rln.train.examples import Example, Source, example
from napari_rln.train.settings import Baseline, Quality, TrainReport, TrainSettings
from napari_rln.train.validation import baseline, examine
from napari_rln.volume import Volume

_FIRST = 8  # examples before the first step
_WARM_UP = 20  # steps in which the learning rate rises; they are timed as well
_STATISTICS = 24  # batches from which the statistics of batch normalisation are estimated
_ADVICE = "use smaller patches or batches (--patch, --batch)."
_STEPS, _STATS = 0, 1  # streams of random numbers


class Setting(NamedTuple):
    """What a training is of.

    Attributes
    ----------
    source
        Of the volumes to learn from.
    held_out
        Of the volumes to choose the best weights by.
    psf
        That the model is bound to; none for a family.
    reach
        See :class:`napari_rln.model.Model`.
    begin
        A model to go on from; none for new weights.
    inputs
        Names and hashes for the record.
    """

    source: Source
    held_out: Source
    psf: Volume | None
    reach: dict[str, tuple[float, float]]
    begin: Model | None
    inputs: dict[str, str]


def train_model(setting: Setting, settings: TrainSettings, *, name: str = "model") -> Model:
    """Return the trained model; see :func:`train_steps`, of which this is the last word."""
    return finish(train_steps(setting, settings, name=name))


def train_steps(
    setting: Setting,
    settings: TrainSettings,
    *,
    name: str = "model",
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Generator[TrainReport, None, Model]:
    """Train a network; yield a report after every step, return the best model.

    Closing the generator cancels; the last report's :meth:`TrainReport.model` is what was reached.

    Parameters
    ----------
    setting
        What to learn from, and where to begin.
    settings
        How.
    name
        Of the model.
    checkpoint
        File that holds the state now and then, so that a killed training can go on; removed at
        the end.
    resume
        Go on from that file; the result is that of a training that was not interrupted.

    Raises
    ------
    RlnError
        If the settings, the model to begin with or the checkpoint do not fit.
    ComputeError
        If the computation fails on the way.
    """
    keep_freed_memory()
    device = resolve_device(settings.device)
    with computing(0, device, _ADVICE), closing(_Run(setting, settings, name, device)) as run:
        yield from run.prepare()
        if resume:
            if checkpoint is None:
                raise RlnError("there is no checkpoint to resume from: name one.")
            run.restore(Checkpoint.load(checkpoint), checkpoint)
        while run.step < run.total:
            report = run.advance()
            if checkpoint is not None and run.due():
                run.state().save(checkpoint)
            yield report
        model = run.model()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return model


class _Run:
    """A training between two steps."""

    def __init__(
        self, setting: Setting, settings: TrainSettings, name: str, device: torch.device
    ) -> None:
        self.settings, self.setting, self.name, self.device = settings, setting, name, device
        self.step = 0
        self.total = settings.steps or _WARM_UP
        self.output_scale = setting.begin.output_scale if setting.begin else 1.0
        self._began = self._timed = time.perf_counter()
        self._baseline: Baseline | None = None
        self._best: tuple[Quality, int, dict[str, torch.Tensor]] | None = None
        self._last: Losses | None = None
        self._frozen = False
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._futures: list[Future[Example]] = []
        self._held: list[Example] = []
        self.network = self._network().to(device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)

    def close(self) -> None:
        """Leave off making examples."""
        self._workers.shutdown(wait=True, cancel_futures=True)

    def prepare(self) -> Iterator[TrainReport]:
        """Make the first examples and the held-out ones, and judge these by classical means."""
        count = min(_FIRST, self.settings.examples)
        scaled = self.setting.begin is not None or self.settings.normalisation == "percentiles"
        first = []
        for number in range(count):  # without a scale yet: it comes from them
            first.append(self._example(self.setting.source, number, self.output_scale))
            yield self._report("examples", number + 1, count + self.settings.validate)
        if not scaled:
            self.output_scale = round(median(brightness(e.target) for e in first), 4)
            first = [_rescaled(e, self.output_scale) for e in first]
        for made in first:
            done: Future[Example] = Future()
            done.set_result(made)
            self._futures.append(done)
        for number in range(self.settings.validate):
            self._held.append(self._example(self.setting.held_out, number, self.output_scale))
            yield self._report("examples", count + number + 1, count + self.settings.validate)
        self._baseline = baseline(self._held)
        self._request()

    def advance(self) -> TrainReport:
        """Do one step; return the report of it."""
        if not self._frozen and self.step >= (1 - self.settings.frozen) * self.total:
            self._freeze()
        if self.step == min(3, _WARM_UP - 1):
            self._timed = time.perf_counter()
        rate = self._rate()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._last = self._descend()
        self.step += 1
        if self.settings.steps is None and self.step == _WARM_UP:
            self.total = self._steps_in_time()
        quality = preview = None
        if self._held and self.due():
            self._estimate_statistics()
            quality, preview = examine(self.network.eval(), self._held, self.device)
            if self._best is None or quality.psnr_db > self._best[0].psnr_db:
                self._best = quality, self.step, self._weights()
        report = self._report("train", self.step, self.total, rate=rate)
        return replace(report, quality=quality, preview=preview, _model=self.model)

    def due(self) -> bool:
        """Tell whether the network is to be examined and the state saved after this step."""
        return self.step % self.settings.validate_every == 0 or self.step == self.total

    def model(self) -> Model:
        """Return the best model so far."""
        if self._best is None:
            self._estimate_statistics()
        weights = self._best[2] if self._best else self._weights()
        network = RLN(self.network.settings)
        network.load_state_dict(weights)
        facts: dict[str, Any] = {
            "steps": self.step,
            "total": self.total,
            "seconds": round(time.perf_counter() - self._began, 1),
            "best_step": self._best[1] if self._best else self.step,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        if self._last is not None:
            terms = zip(Losses._fields, self._last, strict=True)
            facts["losses"] = {term: float(value) for term, value in terms}
        if self._best is not None and self._baseline is not None:
            facts["validation"] = {"network": as_dict(self._best[0])} | {
                kind: as_dict(quality) for kind, quality in as_dict(self._baseline).items()
            }
        return Model(
            name=self.name,
            network=network,
            start=self.settings.start_settings,
            normalisation=self.settings.normalisation,
            output_scale=self.output_scale,
            psf=self.setting.psf,
            reach=self.setting.reach,
            record=Record(
                method="train",
                settings=as_dict(self.settings),
                facts=facts,
                inputs=self.setting.inputs,
            ),
        )

    def state(self) -> Checkpoint:
        """Return all that is needed to go on."""
        tensors = {f"network.{k}": v for k, v in self._weights().items()}
        for i, values in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v.cpu().clone() for k, v in values.items()}
        described: dict[str, Any] = {
            "settings": as_dict(self.settings),
            "inputs": self.setting.inputs,
            "step": self.step,
            "total": self.total,
            "output_scale": self.output_scale,
            "frozen": self._frozen,
        }
        if self._best is not None:
            tensors |= {f"best.{k}": v for k, v in self._best[2].items()}
            described["best"] = [as_dict(self._best[0]), self._best[1]]
        return Checkpoint(tensors=tensors, described=described)

    def restore(self, saved: Checkpoint, path: Path) -> None:
        """Go on from a saved state.

        Raises
        ------
        RlnError
            If it is of another training.
        """
        now = self.state().described
        for part in ("settings", "inputs"):
            differ = saved.differing(part, now[part])
            if differ:
                raise RlnError(
                    f"{path.name} is of another training: {', '.join(differ)} differ; train anew "
                    "without --resume, or with the settings of then."
                )
        self.step, self.total = saved.described["step"], saved.described["total"]
        self._frozen = saved.described["frozen"]
        self.network.load_state_dict(saved.part("network"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in saved.part("adam").items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        if "best" in saved.described:
            scores, step = saved.described["best"]
            self._best = Quality(**scores), step, saved.part("best")
        self._request()

    def _network(self) -> RLN:
        begin, settings = self.setting.begin, self.settings
        network = RLN(begin.network.settings if begin else NetworkSettings())
        if begin is not None:
            network.load_state_dict(begin.network.state_dict())
        else:
            initialise(network, torch.Generator().manual_seed(settings.seed))
            if settings.initial == "estimate":
                pass_estimate_on(network)
            nn.init.constant_(network.H3.u_7.bn.bias, settings.last_beta)
        for module in _normalisations(network):
            module.momentum = settings.bn_momentum
        # With few channels torch's convolutions are faster with these side by side in memory.
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return network

    def _example(self, source: Source, number: int, output_scale: float) -> Example:
        return example(
            source,
            number,
            self.settings.start_settings,
            self.settings.normalisation,
            output_scale=output_scale,
            by_truth=source is self.setting.source,
        )

    def _wanted(self, step: int) -> int:
        """Return how many examples a step draws from; by the step alone, not by what is ready."""
        return min(_FIRST + step // self.settings.every, self.settings.examples)

    def _request(self) -> None:
        """Have the examples of the steps to come made."""
        ahead = min(self._wanted(self.step) + 2, self.settings.examples)
        for number in range(len(self._futures), ahead):
            self._futures.append(
                self._workers.submit(self._example, self.setting.source, number, self.output_scale)
            )

    def _batch(self, *seed: int) -> Batch:
        self._request()
        examples = [future.result() for future in self._futures[: self._wanted(self.step)]]
        batch = draw_batch(
            examples, self.settings, self.setting.source.symmetry, (self.settings.seed, *seed)
        )
        return batch.to(self.device)

    def _descend(self) -> Losses:
        batch = self._batch(_STEPS, self.step)
        self.network.train(not self._frozen)
        fast = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            stages = self.network(batch.x, batch.E0)
        margin = self.settings.margin
        seen = without_margin(batch, margin)
        stages = stages._replace(
            e=inner(stages.e, margin).float(), output=inner(stages.output, margin).float()
        )
        losses = (
            paper_loss(stages, seen.x, seen.truth)
            if self.settings.loss == "paper"
            else relative_loss(stages, seen.E0, seen.truth, seen.power)
        )
        self._optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._optimiser.step()
        return Losses(*(term.detach() for term in losses))

    def _rate(self) -> float:
        highest, step = self.settings.learning_rate, self.step
        if self.settings.schedule == "paper":
            return float(highest * 0.95 ** (step / 600))
        warm = min(1.0, (step + 1) / _WARM_UP)
        return float(highest * warm * 0.5 * (1 + np.cos(np.pi * step / self.total)))

    def _steps_in_time(self) -> int:
        """Return how many steps fill the time that is given, by the time of the first."""
        now = time.perf_counter()
        each = (now - self._timed) / (_WARM_UP - 3)
        left = 60 * self.settings.minutes - (now - self._began)
        if self._held:
            before = time.perf_counter()
            examine(self.network.eval(), self._held, self.device)
            each += (time.perf_counter() - before) / self.settings.validate_every
        return max(_WARM_UP + 1, _WARM_UP + int(left / each))

    def _freeze(self) -> None:
        self._estimate_statistics()
        self._frozen = True

    @torch.no_grad()
    def _estimate_statistics(self) -> None:
        """Set the running statistics to those of the examples under the present weights."""
        if self._frozen:
            return
        with _averaging(self.network):
            for number in range(_STATISTICS):
                batch = self._batch(_STATS, self.step, number)
                self.network(batch.x, batch.E0)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def _report(self, phase: Any, step: int, total: int, *, rate: float = 0.0) -> TrainReport:
        seconds = time.perf_counter() - self._began
        loss, mse, ssim, e_mse = map(float, self._last) if self._last else (None,) * 4
        left = None
        if phase == "train" and step > _WARM_UP:
            left = (time.perf_counter() - self._timed) / (step - 3) * (total - step)
        return TrainReport(
            phase=phase,
            step=step,
            total=total,
            seconds=seconds,
            seconds_left=left,
            learning_rate=rate,
            baseline=self._baseline,
            best_step=self._best[1] if self._best else 0,
            loss=loss,
            mse=mse,
            ssim=ssim,
            e_mse=e_mse,
        )


def _rescaled(made: Example, scale: float) -> Example:
    return replace(
        made, target=made.target / np.float32(scale), mean=made.mean / scale,
        power=max(made.power / scale**2, 1e-6),
    )  # fmt: skip


def _normalisations(network: nn.Module) -> Iterator[nn.BatchNorm3d]:
    return (m for m in network.modules() if isinstance(m, nn.BatchNorm3d))


@contextmanager
def _averaging(network: nn.Module) -> Iterator[None]:
    """Have running statistics become the plain mean over what passes; then as before."""
    modules = list(_normalisations(network))
    momenta = [module.momentum for module in modules]
    for module in modules:
        module.reset_running_stats()
        module.momentum = None
    network.train()
    try:
        yield
    finally:
        for module, momentum in zip(modules, momenta, strict=True):
            module.momentum = momentum
