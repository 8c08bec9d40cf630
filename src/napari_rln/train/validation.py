"""Held-out volumes: what classical deconvolution makes of them, and what the network does."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.metrics import fitted, psnr, ssim
from napari_rln.core.tiles import even_sized
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.settings import RichardsonLucySettings, start_views
from napari_rln.train.examples import Example
from napari_rln.train.loss import ERROR_FLOOR
from napari_rln.train.training_settings import Baseline, Preview, Quality

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_ITERATIONS = (5, 10, 15, 20, 30, 40, 60, 80, 100)  # of matched RLD among which the best is sought
_WB_ITERATIONS = (1, 2, 3, 4, 5)
_PATIENCE = 2  # counts of matched RLD that are no better, after which noise has taken over


@dataclass
class _BestScores:
    """The best PSNR and the best SSIM so far, each on its own: in favour of what is judged."""

    psnr_db: float = -np.inf
    ssim: float = -np.inf

    def add(self, result: FloatArray, truth: FloatArray) -> bool:
        """Take a result; return whether it is better than all before in one of the two."""
        found = psnr(result, truth, fit=True), ssim(result, truth)
        better = found[0] > self.psnr_db or found[1] > self.ssim
        self.psnr_db, self.ssim = max(self.psnr_db, found[0]), max(self.ssim, found[1])
        return better


def baseline_steps(examples: Sequence[Example]) -> Generator[int, None, Baseline | None]:
    """Yield how many examples are done, after every iteration; return the best there can be.

    That is by the truth, over the iterations and for both scores separately. Without a PSF there is
    the image only, without examples nothing.
    """
    if not examples:
        return None
    kinds: list[list[_BestScores]] = [[], [], []]
    for number, held in enumerate(examples):
        best = [_BestScores(), _BestScores(), _BestScores()]
        best[0].add(_image(held), held.pair.truth.data)
        if held.psf is not None:
            for _ in _classical(held, "matched", _ITERATIONS, best[1]):
                yield number
            for _ in _classical(held, "wiener-butterworth", _WB_ITERATIONS, best[2]):
                yield number
        for kind, found in zip(kinds, best, strict=True):
            kind.append(found)
    image, rld, wb = (
        Quality(psnr_db=fmean(b.psnr_db for b in kind), ssim=fmean(b.ssim for b in kind))
        for kind in kinds
    )
    if any(held.psf is None for held in examples):
        return Baseline(image=image)
    return Baseline(image=image, rld=rld, wiener_butterworth=wb)


class Examination(NamedTuple):
    """What was found.

    Attributes
    ----------
    quality
        With the best share.
    error
        By which weights and share are chosen, smaller being better: the mean logarithm of the error
        after the fit, as in :func:`napari_rln.train.loss.relative_loss`. The mean PSNR would be
        ruled by the few volumes that are nearly perfect.
    share
        Of the first estimate in the result, with which the error is smallest.
    preview
        Middle planes of the first example.
    """

    quality: Quality
    error: float
    share: float
    preview: Preview


def examine(
    network: Network,
    examples: Sequence[Example],
    *,
    shares: Sequence[float] = (0.0,),
    output_scale: float = 1.0,
) -> Examination:
    """Return how well the network does on examples.

    Parameters
    ----------
    network
        Returns the output (1, D, H, W) for image and first estimate (C, D, H, W), even sizes.
    examples
        At least one.
    shares
        Of the first estimate in the result, among which the best is sought.
    output_scale
        Of the targets.
    """
    outputs = [apply_whole(network, held) for held in examples]

    def mixed(share: float) -> list[FloatArray]:
        pairs = zip(outputs, examples, strict=True)
        return [_mixed(output, held, share, output_scale) for output, held in pairs]

    def error(share: float) -> float:
        pairs = zip(mixed(share), examples, strict=True)
        return fmean(_log_error(result, held) for result, held in pairs)

    share = min(shares, key=error)
    pairs = list(zip(mixed(share), examples, strict=True))
    quality = Quality(
        psnr_db=fmean(psnr(result, held.target, fit=True) for result, held in pairs),
        ssim=fmean(ssim(result, held.target) for result, held in pairs),
    )
    return Examination(quality, error(share), share, _preview(examples[0], pairs[0][0]))


def preview(network: Network, held: Example, *, share: float, output_scale: float) -> Preview:
    """Return planes of an example as the network makes them now; see :func:`examine`."""
    return _preview(held, _mixed(apply_whole(network, held), held, share, output_scale))


def _mixed(output: FloatArray, held: Example, share: float, output_scale: float) -> FloatArray:
    mixed: FloatArray = output + np.float32(share) * (held.E0 / np.float32(output_scale) - output)
    return mixed


def _log_error(result: FloatArray, held: Example) -> float:
    off = fitted(result, held.target) - held.target
    return float(np.log(np.square(off).mean() / held.power + ERROR_FLOOR))


def apply_whole(network: Network, held: Example) -> FloatArray:
    """Return the network's output for an example, (Z, Y, X), its scale."""
    x, E0 = (
        torch.stack([torch.from_numpy(even_sized(channel)) for channel in channels])
        for channels in held.given()
    )
    output = network(x, E0)[0].cpu().numpy()
    whole: FloatArray = output[tuple(slice(n) for n in held.x.shape)]
    return whole


def _classical(
    held: Example, projector: str, counts: Sequence[int], best: _BestScores
) -> Iterator[None]:
    """Yield after every iteration, with the best scores so far."""
    settings = RichardsonLucySettings(
        iterations=counts[-1],
        back_projector=projector,  # type: ignore[arg-type]
        device="cpu",
    )
    patience = _PATIENCE if projector == "matched" else len(counts)
    worse = 0
    seen = held.seen()
    if len(seen) > 1:  # as two views are deconvolved elsewhere
        settings = replace(settings, start="image")
    run = start_views(seen, settings, torch.device("cpu"))
    for done in range(1, counts[-1] + 1):
        run.step(measure=False)
        if done in counts:
            better = best.add(run.estimate(), held.pair.truth.data)
            worse = 0 if better else worse + 1
            if worse == patience:
                return
        yield


def _image(held: Example) -> FloatArray:
    """Return the image, of two views their mean."""
    first = held.pair.image.data
    return first if held.second is None else 0.5 * (first + held.second.image.data)


def _preview(held: Example, now: FloatArray) -> Preview:
    z, y = held.x.shape[0] // 2, held.x.shape[1] // 2

    def planes(volume: FloatArray) -> tuple[FloatArray, FloatArray]:
        return volume[z].copy(), volume[:, y].copy()

    return Preview(
        image=planes(held.x), start=planes(held.E0), now=planes(now), truth=planes(held.target)
    )
