"""Validation on held-out volumes: scores of classical deconvolution and of the network."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.metrics import fitted, psnr, ssim
from napari_rln.core.tiles import even_sized
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.settings import RichardsonLucySettings, start_iteration
from napari_rln.networks.refinement import CANDIDATES, InferenceRefinement
from napari_rln.train.examples import Example
from napari_rln.train.loss import ERROR_FLOOR
from napari_rln.train.training_settings import Baseline, Preview, Quality

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_ITERATIONS = (5, 10, 15, 20, 30, 40, 60, 80, 100)  # numbers of iterations of matched RLD to score
_WB_ITERATIONS = (1, 2, 3, 4, 5)
_PATIENCE = 2  # scores of matched RLD without improvement before stopping


@dataclass
class _BestScores:
    """The best PSNR and the best SSIM so far, each by itself."""

    psnr_db: float = -np.inf
    ssim: float = -np.inf

    def add(self, result: FloatArray, truth: FloatArray) -> bool:
        """Score a result; return whether it improves one of the two."""
        scores = psnr(result, truth, fit=True), ssim(result, truth)
        better = scores[0] > self.psnr_db or scores[1] > self.ssim
        self.psnr_db, self.ssim = max(self.psnr_db, scores[0]), max(self.ssim, scores[1])
        return better


def baseline_iter(examples: Sequence[Example]) -> Generator[int, None, Baseline | None]:
    """Yield the number of examples done, after every iteration; return the baseline.

    The iteration is selected by ground truth, for each score separately; of matched
    Richardson-Lucy among the example's estimates and those around the predicted stop, if it has
    some. Without a PSF only the image is scored; without examples the baseline is none.
    """
    if not examples:
        return None
    kinds: list[list[_BestScores]] = [[], [], []]
    for number, example in enumerate(examples):
        best = [_BestScores(), _BestScores(), _BestScores()]
        assert example.pair is not None
        best[0].add(_image(example), example.pair.truth.data)
        if example.psf is not None:
            if example.estimates:
                classical = example.candidates[: CANDIDATES - 1]
                for estimate in (*example.estimates.values(), *classical):
                    best[1].add(estimate, example.pair.truth.data)
            else:
                for _ in _classical(example, "matched", _ITERATIONS, best[1]):
                    yield number
            for _ in _classical(example, "wiener-butterworth", _WB_ITERATIONS, best[2]):
                yield number
        for kind, scores in zip(kinds, best, strict=True):
            kind.append(scores)
    image, rld, wb = (
        Quality(psnr_db=fmean(b.psnr_db for b in kind), ssim=fmean(b.ssim for b in kind))
        for kind in kinds
    )
    if any(example.psf is None for example in examples):
        return Baseline(image=image)
    return Baseline(image=image, rld=rld, wiener_butterworth=wb)


class ValidationResult(NamedTuple):
    """Scores with the best fraction of the initial estimate, and a preview of the first example.

    The criterion for weights and fraction is the error, smaller being better: the mean logarithm of
    the error after the fit, as in :func:`napari_rln.train.loss.relative_loss`. The mean PSNR would
    be dominated by a few nearly perfect volumes. ``errors`` are those of each example.
    """

    quality: Quality
    errors: tuple[float, ...]
    estimate_weight: float
    preview: Preview

    @property
    def error(self) -> float:
        """Mean of the errors."""
        return fmean(self.errors)


def validate(
    network: Network,
    examples: Sequence[Example],
    *,
    refinement: InferenceRefinement | None = None,
    estimate_weights: Sequence[float] = (0.0,),
    output_scale: float = 1.0,
    step: int = 2,
) -> ValidationResult:
    """Return the scores of a network on one or more examples.

    The network is a function from image and initial estimate (C, D, H, W), of even sizes, to the
    output (1, D, H, W), which is refined if there is a refinement. ``estimate_weights`` are
    candidate fractions of the initial estimate in the
    result, ``output_scale`` is that of the targets, and inputs are padded to multiples of ``step``.
    """
    outputs = [apply_whole(network, example, refinement, step) for example in examples]

    def mixed(fraction: float) -> list[tuple[FloatArray, Example]]:
        pairs = zip(outputs, examples, strict=True)
        return [(_mixed(output, one, fraction, output_scale), one) for output, one in pairs]

    def errors(fraction: float) -> tuple[float, ...]:
        return tuple(_log_error(result, one) for result, one in mixed(fraction))

    found = {fraction: errors(fraction) for fraction in estimate_weights}
    best = min(found, key=lambda fraction: fmean(found[fraction]))
    results = mixed(best)
    quality = Quality(
        psnr_db=fmean(psnr(result, one.target, fit=True) for result, one in results),
        ssim=fmean(ssim(result, one.target) for result, one in results),
    )
    return ValidationResult(quality, found[best], best, _preview(examples[0], results[0][0]))


def preview(
    network: Network,
    example: Example,
    *,
    refinement: InferenceRefinement | None = None,
    estimate_weight: float,
    output_scale: float,
    step: int = 2,
) -> Preview:
    """Return the preview of an example; see :func:`validate`."""
    result = apply_whole(network, example, refinement, step)
    return _preview(example, _mixed(result, example, estimate_weight, output_scale))


def _mixed(
    output: FloatArray, example: Example, fraction: float, output_scale: float
) -> FloatArray:
    if not fraction:
        return output
    estimate = example.in_units_of_target(example.E0) / np.float32(output_scale)
    mixed: FloatArray = output + np.float32(fraction) * (estimate - output)
    return mixed


def _log_error(result: FloatArray, example: Example) -> float:
    off = fitted(result, example.target) - example.target
    return float(np.log(np.square(off).mean() / example.power + ERROR_FLOOR))


def apply_whole(
    network: Network,
    example: Example,
    refinement: InferenceRefinement | None = None,
    step: int = 2,
) -> FloatArray:
    """Return the result (Z, Y, X) for an example, in units of its target.

    With a refinement the network is applied unless its output is among the candidates.
    """
    if refinement is None:
        return _output(network, example, step)
    if len(example.candidates) < CANDIDATES:
        example = with_output(example, network)
    assert example.light is not None
    light, *candidates = (part.astype(np.float32) for part in (example.light, *example.candidates))
    return refinement(light, candidates, *example.about)


def with_output(example: Example, network: Network) -> Example:
    """Return an example with a network's output among the candidates of a refinement."""
    output = _output(network, example).astype(example.x.dtype)
    classical = example.candidates[: CANDIDATES - 1]
    return replace(example, candidates=(*classical, output))


def _output(network: Network, example: Example, step: int = 2) -> FloatArray:
    x, E0 = (
        torch.stack(
            [torch.from_numpy(even_sized(channel.astype(np.float32), step)) for channel in channels]
        )
        for channels in example.network_input()
    )
    output = network(x, E0)[0].cpu().numpy()
    whole: FloatArray = output[tuple(slice(n) for n in example.x.shape)]
    return example.in_units_of_target(whole)


def _classical(
    example: Example, projector: str, counts: Sequence[int], best: _BestScores
) -> Iterator[None]:
    """Yield after every iteration, updating the best scores."""
    settings = RichardsonLucySettings(
        iterations=counts[-1],
        back_projector=projector,  # type: ignore[arg-type]
        device="cpu",
    )
    patience = _PATIENCE if projector == "matched" else len(counts)
    worse = 0
    observed = example.classical_views()
    if len(observed) > 1:  # as in the deconvolution of two views
        settings = replace(settings, start="image")
    assert example.pair is not None
    run = start_iteration(observed, settings, torch.device("cpu"))
    for done in range(1, counts[-1] + 1):
        run.step(measure=False)
        if done in counts:
            better = best.add(run.estimate(), example.pair.truth.data)
            worse = 0 if better else worse + 1
            if worse == patience:
                return
        yield


def _image(example: Example) -> FloatArray:
    """Return the image, or the mean of two views."""
    assert example.pair is not None
    first = example.pair.image.data
    return first if example.second is None else 0.5 * (first + example.second.image.data)


def first_look(example: Example) -> Preview:
    """Return the preview of an example before a network is applied."""
    return _preview(example, None)


def _preview(example: Example, result: FloatArray | None) -> Preview:
    z, y = example.x.shape[0] // 2, example.x.shape[1] // 2

    def planes(volume: FloatArray) -> tuple[FloatArray, FloatArray]:
        return volume[z].copy(), volume[:, y].copy()

    return Preview(
        image=planes(example.in_units_of_target(example.x)),
        start=None if example.from_image else planes(example.in_units_of_target(example.E0)),
        result=None if result is None else planes(result),
        truth=planes(example.target),
    )
