"""State of a training between steps, and the step itself."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import nn

from napari_rln.core.brightness import brightness
from napari_rln.core.device import has_fast_bfloat16
from napari_rln.core.errors import ComputeError
from napari_rln.core.generators import relay
from napari_rln.core.limits import as_dict
from napari_rln.core.record import Record
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.ladder import STOP
from napari_rln.networks.architectures.base import Architecture
from napari_rln.networks.architectures.registry import copy_of, new_network
from napari_rln.networks.inference import NOT_MIRRORED, Mirrors
from napari_rln.networks.model import Model, joined_weights, split_weights
from napari_rln.networks.refinement import InferenceRefinement, Refinement
from napari_rln.networks.rln import RLN, NetworkSettings, initialise_as_identity
from napari_rln.networks.torch_inference import Inference, inference_of
from napari_rln.train.batch_statistics import estimate_statistics, set_momentum
from napari_rln.train.batches import inner
from napari_rln.train.checkpoint import BestWeights, Checkpoint
from napari_rln.train.estimates_on_disk import EstimateCache
from napari_rln.train.examples import Example, SyntheticPairs, cropped, rescaled
from napari_rln.train.learning_rate import WARM_UP, LearningRate, cosine
from napari_rln.train.loss import (
    Losses,
    ladder_loss,
    paper_loss,
    refined_loss,
    relative_error_loss,
    relative_loss,
)
from napari_rln.train.pool import Pool
from napari_rln.train.recipes import RECIPES
from napari_rln.train.timing import Timing
from napari_rln.train.training_set import TrainingSet
from napari_rln.train.training_settings import EDGE, Baseline, Preview, TrainReport, TrainSettings
from napari_rln.train.validation import (
    ValidationResult,
    baseline_iter,
    first_look,
    preview,
    validate,
    with_output,
)

_UNTIMED = 3  # first steps, which are slower
_GUESS = 100 * WARM_UP  # total steps, until the first are timed
_STATISTICS = 24  # batches from which the statistics of batch normalisation are estimated
_WORSE = 0.01  # of the logarithm of a held-out volume's error: 0.04 dB are tolerated
_FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # candidate weights of the initial estimate
_STEPS, _STATS = 0, 1  # streams of random numbers


class TrainingState:
    """State of a training between two steps."""

    def __init__(
        self,
        training_set: TrainingSet,
        settings: TrainSettings,
        name: str,
        device: torch.device,
        cache: EstimateCache,
    ) -> None:
        self.settings, self.training_set = settings, training_set
        self.name, self.device = name, device
        self.step = 0
        self.total = settings.steps or _GUESS
        self.timing = Timing(settings)
        self._baseline: Baseline | None = None
        self._best: BestWeights | None = None
        self._last: dict[str, float] = {}
        self._frozen = self._refining = False
        self._pool = Pool(training_set.source, settings, cache, training_set.folder)
        if training_set.initial_model is not None:
            self._pool.output_scale = training_set.initial_model.output_scale
        self._held_out: list[Example] = []
        self._initial_errors: list[float] = []
        self.network = self._network().to(device)
        self.refinement = self._new_refinement()
        parameters = list(self.network.parameters())
        if self.refinement is not None:
            self.refinement.to(device)
            parameters += self.refinement.parameters()
        self._optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate)
        self._learning_rate = LearningRate(settings)

    def close(self) -> None:
        """Stop creating examples."""
        self._pool.close()

    def follow(
        self, steps: Generator[TrainReport, None, None]
    ) -> Generator[TrainReport, None, None]:
        """Yield a training's reports, timed; between two of them nothing is computed."""
        with closing(self.timing.clock.follow(steps)) as timed:
            for report in timed:
                self._pool.hold()
                yield report
                self._pool.go_on()

    def prepare(self, saved: Checkpoint | None) -> Generator[TrainReport, None, None]:
        """Create the held-out and the first examples, and the baseline of the former.

        They are as many as in a saved state, with those of its steps; else fewer where time is
        short.
        """
        timing, step = self.timing, 0
        if saved is not None:
            timing.held_out, self._pool.first = saved.volumes
            self._baseline, step = saved.baseline, saved.step
        yield self._creating(step)
        while (number := len(self._held_out)) < timing.held_out:
            self._held_out.append(self._pool.create(number, self.training_set.held_out))
            if number == 0 and saved is None and self.settings.steps is None:
                most = timing.held_out, self._pool.first
                timing.held_out, self._pool.first = timing.volumes_in_time(timing.seconds, most)
            report = self._creating(step)
            self._pool.request(0)  # beside the others: alone the first is there sooner
            yield report if number else replace(report, preview=first_look(self._held_out[0]))
        self._pool.request(0)
        yield from self._wait_for(self._pool.first, step)
        # Where the blur is a part of the network, ground truth and image have one scale.
        own_scale = self.settings.normalisation == "brightness" and not self.network.needs_psf
        if self.training_set.initial_model is None and own_scale:
            firsts = range(self._pool.first)
            scale = round(median(brightness(self._pool.example(n).target) for n in firsts), 4)
            self._held_out = [
                rescaled(made, scale / self._pool.output_scale) for made in self._held_out
            ]
            self._pool.rescale(scale)
        self._pool.request(step)  # with that scale, as in an uninterrupted training
        yield from self._wait_for(self._pool.needed(step), step)
        if self._baseline is None:
            self._baseline = yield from relay(baseline_iter(self._held_out), self._scoring)

    def validate_initial(self) -> Generator[TrainReport, None, None]:
        """Validate the initial model as the first candidate, so that training cannot worsen it."""
        report = self._scoring(len(self._held_out))
        yield report
        if self.refinement is not None and not self._last_part:  # it is trained alone
            self._refine()
        yield self._validated(report, initial=True)

    def advance(self) -> TrainReport:
        """Perform one step and return its report."""
        if self.refinement is not None and not self._refining and self.step >= self._last_part:
            self._refine()
        if not self._frozen and self.step >= (1 - self.settings.frozen) * self.total:
            self._freeze()
        if self.step == _UNTIMED:
            self.timing.from_here(self.step)
        rate = self._rate()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._last = self._descend()
        self.step += 1
        if self.settings.steps is None and self.step == WARM_UP:
            self.total = self._steps_in_time()
        report = self._report("train", self.step, self.total, rate=rate)
        if self._held_out and self.due():
            self._estimate_statistics()
            report = self._validated(report)
            if self.settings.steps is None and WARM_UP < self.step < self.total:
                self.total = self._steps_in_time()
        return replace(report, _model=self.model)

    def due(self) -> bool:
        """Return whether validation and saving are due after this step."""
        return self.step % self.settings.validate_every == 0 or self.step == self.total

    def model(self) -> Model:
        """Return the best model so far."""
        if self._best is None:
            self._estimate_statistics()
        weights = self._best.weights if self._best else self._weights()
        source = self._best or self.training_set.initial_model
        own, more = split_weights(weights)
        network = copy_of(self.network, own)
        refinement = None
        if more:
            assert self.refinement is not None
            refinement = Refinement(self.refinement.settings)
            refinement.load_state_dict(more)
        facts: dict[str, Any] = {
            "steps": self.step,
            "total": self.total,
            "seconds": round(self.timing.seconds, 1),
            "best_step": self._best.step if self._best else self.step,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        if self._last:
            facts["losses"] = self._last
        if self._best is not None and self._baseline is not None:
            facts["validation"] = {"network": as_dict(self._best.quality)} | {
                kind: as_dict(quality)
                for kind, quality in as_dict(self._baseline).items()
                if quality is not None
            }
        return Model(
            name=self.name,
            network=network,
            refinement=refinement,
            start=self.settings.start_settings,
            stop=STOP if self.settings.start_settings.method == "ladder" else None,
            normalisation=self.settings.normalisation,
            output_scale=self._pool.output_scale,
            estimate_weight=source.estimate_weight if source and not refinement else 0.0,
            mirrors=self._mirrors,
            psf=self.training_set.psf,
            psf_b=self.training_set.source.psf_b,
            psf_widths=self.training_set.psf_widths,
            record=Record(
                method="train",
                settings=as_dict(self.settings),
                facts=facts,
                inputs=self.training_set.inputs,
            ),
        )

    def state(self) -> Checkpoint:
        """Return the state for resuming."""
        moments = self._optimiser.state_dict()["state"]
        return Checkpoint(
            settings=as_dict(self.settings),
            inputs=self.training_set.inputs,
            step=self.step,
            total=self.total,
            frozen=self._frozen,
            losses=self._last,
            weights=self._weights(),
            moments={i: {k: v.cpu().clone() for k, v in m.items()} for i, m in moments.items()},
            best=self._best,
            volumes=(len(self._held_out), self._pool.first),
            initial_errors=self._initial_errors,
            learning_rate=self._learning_rate.state(),
            baseline=self._baseline,
            seconds=round(self.timing.seconds, 2),
        )

    def restore(self, saved: Checkpoint) -> None:
        """Restore a saved state."""
        self.step, self.total = saved.step, saved.total
        self._frozen, self._last, self._best = saved.frozen, saved.losses, saved.best
        self._initial_errors = saved.initial_errors
        self._learning_rate = LearningRate(self.settings, **saved.learning_rate)
        own, more = split_weights(saved.weights)
        self.network.load_state_dict(own)
        if self.refinement is not None and self.step > self._last_part:
            self.refinement.load_state_dict(more)
            self._refine(resumed=True)
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": saved.moments, "param_groups": groups})
        self._pool.request(self.step)
        self.timing.from_here(self.step)

    def _network(self) -> Architecture:
        initial, settings = self.training_set.initial_model, self.settings
        network: Architecture
        if initial is not None:
            network = copy_of(initial.network)
        elif settings.architecture == "rln":
            network = RLN(NetworkSettings(views=settings.views))
        else:
            network = new_network(settings.architecture)
        if network.needs_psf:
            assert self._psf is not None
            network.bind(self._psf)
        if initial is None:
            network.initialise(torch.Generator().manual_seed(settings.seed))
        if initial is None and isinstance(network, RLN):
            if settings.initial == "estimate":
                initialise_as_identity(network)
            nn.init.constant_(network.H3.u_7.bn.bias, settings.last_beta)
        set_momentum(network, settings.bn_momentum)
        # With few channels, torch's convolutions are faster in the channels-last layout.
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return network

    def _new_refinement(self) -> Refinement | None:
        """Return the refinement to train, if any, with its first weights."""
        initial, settings = self.training_set.initial_model, self.settings
        if not settings.refine:
            return None
        with torch.random.fork_rng([]):
            torch.manual_seed(settings.seed)
            refinement = Refinement()
        if initial is not None and initial.refinement is not None:
            refinement = Refinement(initial.refinement.settings)
            refinement.load_state_dict(initial.refinement.state_dict())
        return refinement.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]

    @property
    def _last_part(self) -> int:
        """Step from which the refinement is trained instead of the network."""
        return round((1 - self.settings.refine) * self.total)

    def _refine(self, *, resumed: bool = False) -> None:
        """Train the refinement from now on, behind the best weights of the network."""
        if not self._frozen:
            self._freeze()
        if self._best is not None and not resumed and self.step:
            self.network.load_state_dict(split_weights(self._best.weights)[0])
            self._best = None
        self._refining = True
        network = self._inference_network()
        self._pool.refine(network)
        self._held_out = [with_output(made, network) for made in self._held_out]

    def _inference_network(self) -> Inference:
        network = self.network.eval()
        return inference_of(network, self.device, mirrors=self._mirrors, psf=self._psf)

    @property
    def _psf(self) -> FloatArray | None:
        """PSF of the examples; none for a family of PSFs."""
        psf, source = self.training_set.psf, self.training_set.source
        if psf is None:
            return None
        return (cropped(psf) if isinstance(source, SyntheticPairs) else psf).data

    @property
    def _mirrors(self) -> Mirrors:
        """Axes along which the result is averaged."""
        mirror = self.settings.mirror and self.settings.variant == "started"
        return self.training_set.source.symmetry.flips if mirror else NOT_MIRRORED

    def _inference_refinement(self, refinement: Refinement | None) -> InferenceRefinement | None:
        if refinement is None:
            return None
        return InferenceRefinement(refinement, self.device, "float32")

    def _descend(self) -> dict[str, float]:
        losses = self._refinement_losses() if self._refining else self._network_losses()
        if not torch.isfinite(losses.total):
            raise ComputeError(
                f"the training diverged: its loss is not finite after {self.step} steps; choose a "
                "lower learning rate (learning_rate)."
            )
        self._optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            for part in (self.network, self.refinement) if self.refinement else (self.network,):
                nn.utils.clip_grad_norm_(part.parameters(), self.settings.clip)
        self._optimiser.step()
        return {term: float(v.detach()) for term, v in zip(Losses._fields, losses, strict=True)}

    def _refinement_losses(self) -> Losses:
        assert self.refinement is not None
        batch = self._pool.batch(self.step, _STEPS, self.step).to(self.device)
        self.refinement.train()
        fast = has_fast_bfloat16(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            output = self.refinement(batch.x, batch.E0, batch.about)
        margin = max(self.settings.margin, EDGE)
        truth = inner(batch.truth, margin)
        return refined_loss(inner(output, margin).float(), truth, batch.power)

    def _network_losses(self) -> Losses:
        batch = self._pool.batch(self.step, _STEPS, self.step).to(self.device)
        self.network.train(not self._frozen)
        # On a CPU it gains a quarter and rounds outputs; Fourier transforms lack it.
        fast = self.device.type == "cuda" and not self.network.needs_psf
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            stages = self.network(batch.x, batch.E0)
        margin = self.settings.margin
        visible = batch.without_margin(margin)
        if self.settings.architecture != "rln":
            stages = stages._replace(output=inner(stages.output, margin).float())
            if self.settings.loss == "paper":
                return RECIPES[self.settings.architecture].losses(stages, visible.truth)
            return relative_error_loss(stages.output, visible.truth, visible.power)
        stages = stages._replace(
            e=inner(stages.e, margin).float(), output=inner(stages.output, margin).float()
        )
        image = 0.5 * visible.x if self.settings.views == "averaged" else visible.x
        if self.settings.loss == "paper":
            return paper_loss(stages, image, visible.truth)
        if self.settings.start_settings.method == "ladder":
            about = visible.about if self.settings.normalisation == "photons" else None
            return ladder_loss(stages, visible.E0, visible.truth, visible.power, about)
        return relative_loss(stages, visible.E0, visible.truth, visible.power)

    def _rate(self) -> float:
        if self._refining:
            first = self._last_part
            return self.settings.refine_rate * cosine(max(0, self.step - first), self.total - first)
        total = self.total if self.refinement is None else self._last_part
        return self._learning_rate.at(self.step, total)

    def _steps_in_time(self) -> int:
        """Return the number of steps that fits the time limit, from the time of those done."""
        each = self.timing.each_step(self.step)
        if self._held_out and not self.timing.validation:
            self._inference_network()  # compiles, once per machine
            self._validate()
        return self.timing.steps_in_time(self.step, each)

    def _validated(self, report: TrainReport, *, initial: bool = False) -> TrainReport:
        """Return a report with the scores of the present weights, and keep the best weights.

        When a model is adapted to a PSF by synthetic volumes, each of them held out for a class of
        structures, they must be no worse on any.
        """
        result = self._validate()
        self._learning_rate.observe(result.error)
        source = self.training_set.source
        if initial and isinstance(source, SyntheticPairs) and source.psf is not None:
            self._initial_errors = [*result.errors]
        before = self._initial_errors or result.errors
        fits = all(new <= old + _WORSE for new, old in zip(result.errors, before, strict=True))
        if self._best is None or (fits and result.error < self._best.error):
            self._best = BestWeights(
                result.quality, result.error, result.estimate_weight, self.step, self._weights()
            )
        return replace(
            report, quality=result.quality, preview=result.preview, best_step=self._best.step
        )

    def _validate(self) -> ValidationResult:
        initial, began = self.training_set.initial_model, self.timing.seconds
        whole = self.settings.variant == "paper" or self._refining
        fractions = {0.0} if whole else {*_FRACTIONS}
        if whole:
            initial = None
        result = validate(
            self._inference_network(),
            self._held_out,
            refinement=self._inference_refinement(self.refinement if self._refining else None),
            estimate_weights=sorted(fractions | ({initial.estimate_weight} if initial else set())),
            output_scale=self._pool.output_scale,
            step=self.network.step,
        )
        self.timing.add_validation(began)
        return result

    def _freeze(self) -> None:
        if self.step or self.training_set.initial_model is None:  # else those of that model
            self._estimate_statistics()
        self._frozen = True

    def _estimate_statistics(self) -> None:
        """Set the running statistics to those of the examples, unless frozen."""
        if not self._frozen:
            draws = (
                self._pool.batch(self.step, _STATS, self.step, number)
                for number in range(_STATISTICS)
            )
            estimate_statistics(self.network, (batch.to(self.device) for batch in draws))

    def _weights(self) -> dict[str, torch.Tensor]:
        weights = joined_weights(self.network, self.refinement if self._refining else None)
        return {k: v.detach().cpu().clone() for k, v in weights.items()}

    def _wait_for(self, count: int, step: int) -> Generator[TrainReport, None, None]:
        """Yield a report whenever one of a number of examples is created."""
        while self._pool.finished < count:
            self._pool.example(self._pool.finished)
            yield self._creating(step)

    def _creating(self, step: int) -> TrainReport:
        """Return the report while the examples of a step are created."""
        needed = self._pool.needed(step)
        done = len(self._held_out) + min(self._pool.finished, needed)
        return self._report("examples", done, self.timing.held_out + needed)

    def _scoring(self, done: int) -> TrainReport:
        """Return the report while the held-out examples are scored."""
        return self._report("baseline", done, len(self._held_out))

    def _preview(self) -> Preview:
        """Return a preview by the present weights, of an example not trained on if there is one."""
        initial, started = self.training_set.initial_model, self._refining or self.step
        refinement = self.refinement if self._refining else None
        if initial is not None and not started:
            refinement = initial.refinement
        source = self._best or initial
        network = inference_of(self.network.eval(), self.device, psf=self._psf)
        return preview(
            network,
            self._held_out[0] if self._held_out else self._pool.example(0),
            refinement=self._inference_refinement(refinement),
            estimate_weight=source.estimate_weight if source and not self._refining else 0.0,
            output_scale=self._pool.output_scale,
            step=self.network.step,
        )

    def _time_left(self, phase: str, step: int, total: int) -> tuple[float | None, float | None]:
        """Return the seconds left, and those of the preparation alone."""
        timing = self.timing
        if phase == "train":
            known = self.settings.steps or step > WARM_UP
            timed = known and step > timing.timed_from >= _UNTIMED
            return timing.steps_left(step, total) if timed else None, None
        preparation: float | None
        if phase == "baseline":
            preparation = timing.scores_left(step)
        else:
            scored = self._baseline is not None
            preparation = timing.volumes_left(step, total, scored=scored)
        if self.settings.steps is not None:
            return None, preparation
        return max(60 * self.settings.minutes - timing.seconds, preparation or 0.0), preparation

    def _report(self, phase: Any, step: int, total: int, *, rate: float = 0.0) -> TrainReport:
        last = self._last
        left, preparation_left = self._time_left(phase, step, total)
        shows = bool(self._held_out) or self._pool.finished > 0
        return TrainReport(
            phase=phase,
            step=step,
            total=total,
            seconds=self.timing.seconds,
            seconds_left=left,
            preparation_left=preparation_left,
            learning_rate=rate,
            baseline=self._baseline,
            best_step=self._best.step if self._best else 0,
            loss=last.get("total"),
            mse=last.get("mse"),
            ssim=last.get("ssim"),
            e_mse=last.get("e_mse"),
            _preview=self._preview if shows else None,
        )
