"""The training loop."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
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
from napari_rln.train.batches import inner, without_margin
from napari_rln.train.checkpoint import Checkpoint
from napari_rln.train.examples import Example, Source, example
from napari_rln.train.pool import FIRST, Pool
from napari_rln.train.settings import Baseline, Quality, TrainReport, TrainSettings
from napari_rln.train.validation import Examination, baseline, examine
from napari_rln.volume import Volume

_WARM_UP = 20  # steps in which the learning rate rises; they are timed as well
_UNTIMED = 3  # the first ones, which are slower
_GUESS = 100 * _WARM_UP  # steps, until the first were timed
_STATISTICS = 24  # batches from which the statistics of batch normalisation are estimated
_ADVICE = "use smaller patches or batches (--patch, --batch)."
_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the first estimate in the result, that are tried
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
        saved = None
        if resume:
            if checkpoint is None:
                raise RlnError("there is no checkpoint to resume from: name one.")
            saved = Checkpoint.load(checkpoint)
            run.check(saved, checkpoint)
        yield from run.prepare()
        if saved is not None:
            run.restore(saved)
        while run.step < run.total:
            report = run.advance()
            if checkpoint is not None and run.due():
                run.state().save(checkpoint)
            yield report
        model = run.model()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class _Best:
    """The best weights so far, and how good they are; see :class:`Examination`."""

    quality: Quality
    error: float
    share: float
    step: int
    weights: dict[str, torch.Tensor]


class _Run:
    """A training between two steps."""

    def __init__(
        self, setting: Setting, settings: TrainSettings, name: str, device: torch.device
    ) -> None:
        self.settings, self.setting, self.name, self.device = settings, setting, name, device
        self.step = 0
        self.total = settings.steps or _GUESS
        self._began = self._timed = time.perf_counter()
        self._timed_from = 0
        self._baseline: Baseline | None = None
        self._best: _Best | None = None
        self._last: dict[str, float] = {}
        self._frozen = False
        self._pool = Pool(setting.source, settings)
        if setting.begin is not None:
            self._pool.output_scale = setting.begin.output_scale
        self._held: list[Example] = []
        self.network = self._network().to(device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)

    def close(self) -> None:
        """Leave off making examples."""
        self._pool.close()

    def prepare(self) -> Iterator[TrainReport]:
        """Make the first examples and the held-out ones, and judge these by classical means."""
        first, held = min(FIRST, self.settings.examples), self.settings.validate
        made = []
        for number in range(first):
            made.append(self._pool.add(number))
            yield self._report("examples", number + 1, first + held)
        if self.setting.begin is None and self.settings.normalisation == "brightness":
            self._pool.rescale(round(median(brightness(e.target) for e in made), 4))
        del made
        self._pool.request(self.step)
        for number in range(held):
            self._held.append(
                example(
                    self.setting.held_out,
                    number,
                    self.settings.start_settings,
                    self.settings.normalisation,
                    output_scale=self._pool.output_scale,
                )
            )
            yield self._report("examples", first + number + 1, first + held)
        self._baseline = baseline(self._held)

    def advance(self) -> TrainReport:
        """Do one step; return the report of it."""
        if not self._frozen and self.step >= (1 - self.settings.frozen) * self.total:
            self._freeze()
        if self.step == _UNTIMED:
            self._time_from_here()
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
            found = self._examine()
            quality, preview = found.quality, found.preview
            if self._best is None or found.error < self._best.error:
                self._best = _Best(
                    quality=quality,
                    error=found.error,
                    share=found.share,
                    step=self.step,
                    weights=self._weights(),
                )
        report = self._report("train", self.step, self.total, rate=rate)
        return replace(report, quality=quality, preview=preview, _model=self.model)

    def due(self) -> bool:
        """Tell whether the network is to be examined and the state saved after this step."""
        return self.step % self.settings.validate_every == 0 or self.step == self.total

    def model(self) -> Model:
        """Return the best model so far."""
        if self._best is None:
            self._estimate_statistics()
        weights = self._best.weights if self._best else self._weights()
        network = RLN(self.network.settings)
        network.load_state_dict(weights)
        facts: dict[str, Any] = {
            "steps": self.step,
            "total": self.total,
            "seconds": round(time.perf_counter() - self._began, 1),
            "best_step": self._best.step if self._best else self.step,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        if self._last:
            facts["losses"] = self._last
        if self._best is not None and self._baseline is not None:
            facts["validation"] = {"network": as_dict(self._best.quality)} | {
                kind: as_dict(quality) for kind, quality in as_dict(self._baseline).items()
            }
        return Model(
            name=self.name,
            network=network,
            start=self.settings.start_settings,
            normalisation=self.settings.normalisation,
            output_scale=self._pool.output_scale,
            share=self._best.share if self._best else 0.0,
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
            "frozen": self._frozen,
            "losses": self._last,
        }
        if self._best is not None:
            best = self._best
            tensors |= {f"best.{k}": v for k, v in best.weights.items()}
            described["best"] = {
                "quality": as_dict(best.quality),
                "error": best.error,
                "share": best.share,
                "step": best.step,
            }
        return Checkpoint(tensors=tensors, described=described)

    def check(self, saved: Checkpoint, path: Path) -> None:
        """Raise unless a saved state is one of this training.

        Raises
        ------
        RlnError
            With the names of what differs.
        """
        now = self.state().described
        for part in ("settings", "inputs"):
            differ = saved.differing(part, now[part])
            if differ:
                raise RlnError(
                    f"{path.name} is of another training: {', '.join(differ)} differ; train anew "
                    "without --resume, or with the settings of then."
                )

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a saved state."""
        self.step, self.total = saved.described["step"], saved.described["total"]
        self._frozen, self._last = saved.described["frozen"], saved.described["losses"]
        self.network.load_state_dict(saved.part("network"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in saved.part("adam").items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        if "best" in saved.described:
            told = dict(saved.described["best"])
            told["quality"] = Quality(**told["quality"])
            self._best = _Best(**told, weights=saved.part("best"))
        self._pool.request(self.step)
        self._time_from_here()

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

    def _descend(self) -> dict[str, float]:
        batch = self._pool.batch(self.step, _STEPS, self.step).to(self.device)
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
        return {term: float(v.detach()) for term, v in zip(Losses._fields, losses, strict=True)}

    def _rate(self) -> float:
        highest, step = self.settings.learning_rate, self.step
        if self.settings.schedule == "paper":
            return float(highest * 0.95 ** (step / 600))
        warm = min(1.0, (step + 1) / _WARM_UP)
        return float(highest * warm * 0.5 * (1 + np.cos(np.pi * step / self.total)))

    def _steps_in_time(self) -> int:
        """Return how many steps fill the time that is given, by the time of the first."""
        before = time.perf_counter()
        each = (before - self._timed) / (_WARM_UP - self._timed_from)
        examination = 0.0
        if self._held:
            self._examine()
            examination = time.perf_counter() - before
        left = 60 * self.settings.minutes - (time.perf_counter() - self._began)
        each += examination / self.settings.validate_every
        return max(_WARM_UP + 1, _WARM_UP + int(left / each))

    def _examine(self) -> Examination:
        return examine(
            self.network.eval(),
            self._held,
            self.device,
            shares=(0.0,) if self.settings.variant == "paper" else _SHARES,
            output_scale=self._pool.output_scale,
        )

    def _time_from_here(self) -> None:
        self._timed, self._timed_from = time.perf_counter(), self.step

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
                batch = self._pool.batch(self.step, _STATS, self.step, number).to(self.device)
                self.network(batch.x, batch.E0)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def _report(self, phase: Any, step: int, total: int, *, rate: float = 0.0) -> TrainReport:
        seconds = time.perf_counter() - self._began
        left = None
        known = self.settings.steps or step > _WARM_UP
        if phase == "train" and known and step > self._timed_from >= _UNTIMED:
            each = (time.perf_counter() - self._timed) / (step - self._timed_from)
            left = each * (total - step)
        return TrainReport(
            phase=phase,
            step=step,
            total=total,
            seconds=seconds,
            seconds_left=left,
            learning_rate=rate,
            baseline=self._baseline,
            best_step=self._best.step if self._best else 0,
            loss=self._last.get("total"),
            mse=self._last.get("mse"),
            ssim=self._last.get("ssim"),
            e_mse=self._last.get("e_mse"),
        )


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
