"""One Richardson-Lucy iteration and the state between iterations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from napari_rln.forward import Convolution, each, pieces
from napari_rln.regularisation import total_variation_factor
from napari_rln.volume import VoxelUm

Start = Literal["flat", "image"]

# Smallest value of an estimate, as a share of the image's mean: a multiplicative update cannot
# leave 0, and denormal numbers are slow.
_FLOOR = 1e-6
_TINY = 1e-30  # instead of the square of a step that was none


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One image of the object, and how it came about.

    Attributes
    ----------
    blur
        The forward model.
    image
        Counts, shape ``blur.image_shape``, non-negative.
    background
        Constant light beside the object's, in counts.
    transfer
        Transfer function of an unmatched back projector; none for the matched one.
    seen
        Bool, the shape of the image: where it shows the object. Everywhere when none.
    held_out
        Unseen counts of the same object, to judge estimates by.
    """

    blur: Convolution
    image: torch.Tensor
    background: float = 0.0
    transfer: torch.Tensor | None = None
    seen: torch.Tensor | None = None
    held_out: torch.Tensor | None = None


class RichardsonLucy:
    """Richardson-Lucy with any back projector, accelerated after Biggs and Andrews.

    Biggs and Andrews (Applied Optics 36, 1766, 1997) continue the path of the estimates: the step
    is taken from ``x_k + a (x_k - x_{k-1})`` with ``a`` from the last two steps' likeness.

    Of several views of one object each corrects the estimate in its turn, within an iteration.

    Three estimates' worth of memory, reused in turn; pointwise work goes piece by piece through
    the cache. The work buffers of the forward models hold whatever is being computed.

    Parameters
    ----------
    *views
        One or more, of one shape, whose forward models take estimates of one shape.
    accelerate
        Whether to predict.
    start
        From a flat estimate or from the image, the mean of several.
    tv
        Strength of total variation; 0 for none.
    voxel_um
        (z, y, x), for total variation.
    held_out_ratio
        Expected held-out counts over those of the images.
    momenta
        How far to continue the path after each step, as another run's ``momenta`` tell: so all
        parts of a volume are deconvolved alike. Found from the image itself when none.
    flat
        Value of a flat estimate, in counts less background; the image's mean when none.

    Attributes
    ----------
    momenta : list of torch.Tensor
        How far the path was continued after each step.
    deviance, chi2 : float
        How the estimate before a step predicts what was held out, per voxel, the deviance up to a
        constant.
    """

    def __init__(
        self,
        *views: View,
        accelerate: bool = True,
        start: Start = "flat",
        tv: float = 0.0,
        voxel_um: VoxelUm = (1.0, 1.0, 1.0),
        held_out_ratio: float = 1.0,
        momenta: Sequence[float] | None = None,
        flat: float | None = None,
    ) -> None:
        self.momenta: list[torch.Tensor] = []
        self._told_momenta = momenta
        self.deviance = self.chi2 = float("nan")
        self._blur = views[0].blur
        self._tv, self._voxel_um = tv, voxel_um
        self._accelerate = accelerate
        # In float32 a GPU sums in a tree, exact enough; not every GPU has float64.
        shown = [view.image if view.seen is None else view.image[view.seen] for view in views]
        means = [float(image.mean()) for image in shown]
        self._floor = _FLOOR * max(means[0], flat or 0.0)  # of a dark part of a volume, above 0
        self._turns = [
            _Turn(view, mean, self._floor, held_out_ratio)
            for view, mean in zip(views, means, strict=True)
        ]
        self._flat = self._turns[0].light if flat is None else flat
        self._pieces = pieces(math.prod(self._blur.estimate_shape), self._blur.device)
        self._estimate = self._first(start)
        self._predicted = self._estimate.clone() if accelerate else self._estimate
        self._last_step: torch.Tensor | None = None
        self._last_square = torch.ones_like(self._estimate[0, 0, 0])

    def field_of_view(self) -> torch.Tensor:
        """Return a view of the estimate where the image is; the next step changes it."""
        return self._estimate[self._blur.window]

    def outside(self) -> torch.Tensor:
        """Return the light in the (first) image that comes from beyond the field of view.

        A view of the work buffer, the shape of the image: it holds until the next step.
        """
        beyond = self._estimate.clone()
        beyond[self._blur.window] = 0
        return self._blur.A(beyond)

    def step(self, *, measure: bool = True) -> float:
        """Do one iteration; return the relative change of the estimate, nan if not to measure."""
        smooth = None
        if self._tv:
            smooth = total_variation_factor(self._predicted, self._tv, self._voxel_um)
        current = self._predicted
        for turn in self._turns:
            current = turn.corrected(current, smooth)
            smooth = None  # once in an iteration
        self.deviance = sum(turn.deviance for turn in self._turns) / len(self._turns)
        self.chi2 = sum(turn.chi2 for turn in self._turns) / len(self._turns)
        return self._advance(current.view(-1), measure=measure)

    def _first(self, start: Start) -> torch.Tensor:
        estimate = self._turns[0].image.new_full(self._blur.estimate_shape, self._flat)
        if start == "image":
            window = estimate[self._blur.window]
            if len(self._turns) == 1:
                window.copy_(self._turns[0].field())
                return estimate
            field, weight = torch.zeros_like(window), torch.zeros_like(window)
            for turn in self._turns:
                seen = torch.ones_like(weight) if turn.seen is None else turn.seen
                field += seen * turn.field()
                weight += seen
            window.copy_(torch.where(weight > 0, field / weight.clamp_min(1), self._flat))
        return estimate

    def _advance(self, new: torch.Tensor, *, measure: bool) -> float:
        """Move on to a new estimate and predict from it; return the relative change."""
        ahead = self._momentum(new) if self._accelerate else None
        # The last step has had its say; its memory takes the next prediction.
        following = self._last_step
        if self._accelerate and following is None:
            following = torch.empty_like(self._predicted)
        estimate = self._estimate.view(-1)
        nothing = new.new_zeros(2)

        def advance(part: slice) -> torch.Tensor:
            old, now = estimate[part], new[part]
            moved = now - old
            if ahead is not None and following is not None:
                values = following.view(-1)[part]
                torch.addcmul(now, moved, ahead, out=values)
                values.clamp_min_(self._floor)
            old.copy_(now)
            if not measure:
                return nothing
            return torch.stack([torch.dot(moved, moved), torch.dot(now, now)])

        change, norm = torch.stack(each(advance, self._pieces, new.device)).sum(0)
        if following is not None:
            self._last_step, self._predicted = self._predicted, following
        return float((change / norm).sqrt()) if measure else math.nan

    def _momentum(self, new: torch.Tensor) -> torch.Tensor:
        """Replace the prediction by the step made from it; return how far to continue."""
        predicted = self._predicted.view(-1)
        last = None if self._last_step is None else self._last_step.view(-1)
        nothing = new.new_zeros(())

        def subtract(part: slice) -> torch.Tensor:
            made = predicted[part]
            torch.sub(new[part], made, out=made)
            alike = nothing if last is None else torch.dot(made, last[part])
            return torch.stack([alike, torch.dot(made, made)])

        likeness, square = torch.stack(each(subtract, self._pieces, new.device)).sum(0)
        ahead: torch.Tensor = (likeness / self._last_square.clamp_min(_TINY)).clamp(0.0, 0.999)
        self._last_square = square
        if self._told_momenta is not None:
            ahead = ahead.new_tensor(self._told_momenta[len(self.momenta)])
        self.momenta.append(ahead)
        return ahead


class _Turn:
    """A view that corrects the estimate when it is its turn."""

    def __init__(self, view: View, mean: float, floor: float, held_out_ratio: float) -> None:
        self.image, self.seen, self._blur = view.image, view.seen, view.blur
        self._background, self._transfer = view.background, view.transfer
        self._held_out, self._held_out_ratio = view.held_out, held_out_ratio
        self._floor = floor
        self.light = max(mean - view.background, floor)
        """Mean of the image less background."""
        self._signal = self.light * view.image.numel()
        self.deviance = self.chi2 = float("nan")
        arrives = view.blur.arriving()
        self._normalise = view.blur.normaliser(arrives) if view.transfer is None else None
        self._arrives = None if view.transfer is None else arrives
        self._pieces = pieces(math.prod(view.blur.estimate_shape), view.blur.device)
        rows = max(1, self._pieces[0].stop // (view.image.shape[1] * view.image.shape[2]))
        self._planes = [slice(z, z + rows) for z in range(0, view.image.shape[0], rows)]

    def field(self) -> torch.Tensor:
        """Return the image less background.

        Floored well above 0: a voxel that starts at 0 by chance would need long to leave it.
        """
        return (self.image - self._background).clamp_min_(0.1 * self.light)

    def corrected(self, estimate: torch.Tensor, smooth: torch.Tensor | None) -> torch.Tensor:
        """Return an estimate as this view corrects it; holds until its next turn.

        Parameters
        ----------
        estimate
            Unchanged.
        smooth
            A further factor.
        """
        ratio = self._ratio(self._blur.A(estimate, background=self._background))
        if self._transfer is None:
            correction = self._blur.A_adjoint(ratio)
        else:
            correction = self._blur.filter(ratio, self._transfer)
        correction = correction.contiguous()
        factors = [estimate.view(-1)]
        if self._normalise is not None:
            factors.append(self._normalise.view(-1))
        if smooth is not None:
            factors.append(smooth.view(-1))
        self._correct(correction.view(-1), factors)
        return correction

    def _ratio(self, model: torch.Tensor) -> torch.Tensor:
        """Turn the expected image into image / expected image, in place."""

        def divide(planes: slice) -> tuple[float, float]:
            part = model[planes]
            part.clamp_min_(self._floor)
            seen = None if self.seen is None else self.seen[planes]
            deviance = squares = 0.0
            if self._held_out is not None:
                unseen, expected = self._held_out[planes], part * self._held_out_ratio
                if seen is not None:
                    unseen, expected = unseen[seen], expected[seen]
                deviance = float((expected - torch.xlogy(unseen, expected)).sum())
                squares = float(((unseen - expected).square_() / expected).sum())
            torch.div(self.image[planes], part, out=part)
            if seen is not None:
                part.masked_fill_(~seen, 1.0)  # what was not seen corrects nothing
            return deviance, squares

        parts = each(divide, self._planes, model.device)
        deviance, squares = (sum(column) for column in zip(*parts, strict=True))
        count = model.numel() if self.seen is None else max(1, int(self.seen.sum()))
        self.deviance, self.chi2 = 2 * deviance / count, squares / count
        return model

    def _correct(self, new: torch.Tensor, factors: list[torch.Tensor]) -> None:
        """Turn a correction into the new estimate, in place."""

        def correct(part: slice) -> None:
            values = new[part]
            for factor in factors:
                values.mul_(factor[part])
            values.clamp_min_(self._floor)

        each(correct, self._pieces, new.device)
        if self._arrives is not None:
            # Unmatched filters change the brightness: bring back the photons of the image.
            arrives = self._arrives.view(-1)
            light = each(lambda p: torch.dot(new[p], arrives[p]), self._pieces, new.device)
            scale = self._signal / torch.stack(light).sum()
            each(lambda part: new[part].mul_(scale), self._pieces, new.device)
