"""One Richardson-Lucy iteration and the state between iterations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from napari_rln.core.device import to_numpy
from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.deconvolution.convolution import Convolution, each, pieces
from napari_rln.deconvolution.total_variation import total_variation_factor

Start = Literal["flat", "image"]

# Smallest value of an estimate, as a share of the image's mean: a multiplicative update cannot
# leave 0, and denormal numbers are slow.
_FLOOR = 1e-6
_TINY = 1e-30  # instead of the square of a step that was none
_LONGER = 1.1  # factor by which steps that were halved grow again
_WORSE = 1 + 1e-5  # factor on the deviance from which on a step made things worse


class HeldOut(Protocol):
    """Photons that are in no image of a run."""

    def error(self, expected: torch.Tensor, ahead: float) -> float:
        """Return how badly an estimate predicts them.

        Parameters
        ----------
        expected
            The image, in photons, that is expected by the point from which the next step is taken.
        ahead
            How far beyond the estimate that point lies, in last changes of the estimate.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One image of the object, and how it came about.

    Attributes
    ----------
    blur
        The forward model.
    image
        Photons, shape ``blur.image_shape``, non-negative.
    background
        Constant light beside the object's, in photons.
    transfer
        Transfer function of an unmatched back projector; none for the matched one.
    seen
        Bool, the shape of the image: where it shows the object. Everywhere when none.
    held_out
        Photons of the same object that are in no image, to judge estimates by.
    """

    blur: Convolution
    image: torch.Tensor
    background: float = 0.0
    transfer: torch.Tensor | None = None
    seen: torch.Tensor | None = None
    held_out: HeldOut | None = None


class RichardsonLucyIteration:
    """Richardson-Lucy with any back projector, accelerated after Biggs and Andrews.

    Biggs and Andrews (Applied Optics 36, 1766, 1997) continue the path of the estimates: the step
    is taken from ``x_k + a (x_k - x_{k-1})`` with ``a`` from the last two steps' likeness.

    Matched Richardson-Lucy is expectation maximisation and cannot go astray. A filter in place of
    the adjoint can, where the estimate is much brighter than its blur: a step that explains the
    image worse than the one before is taken back, first what was predicted beyond it, then half of
    it and of all that follow.

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
    momenta
        How far to continue the path after each step, as another run's ``momenta`` have it: so all
        parts of a volume follow one path. Found from the image itself when none.
    flat
        Value of a flat estimate, in photons less background; the image's mean when none.
    unit
        Image units per photon, in which :meth:`estimate` and :meth:`outside` answer.

    Attributes
    ----------
    momenta : list of torch.Tensor
        How far the path was continued after each step; -1 where the last step was taken back.
    done : int
        Steps so far.
    error : float
        How badly the estimate before a step predicts what was held out; nan where nothing was.
    """

    def __init__(
        self,
        *views: View,
        accelerate: bool = True,
        start: Start = "flat",
        tv: float = 0.0,
        voxel_um: VoxelUm = (1.0, 1.0, 1.0),
        momenta: Sequence[float] | None = None,
        flat: float | None = None,
        unit: float = 1.0,
    ) -> None:
        self.momenta: list[torch.Tensor] = []
        self._told_momenta = momenta
        self.done = 0
        self.error = math.nan
        self._unit = unit
        self._blur = views[0].blur
        self._tv, self._voxel_um = tv, voxel_um
        self._accelerate = accelerate
        self._guarded = any(view.transfer is not None for view in views)
        self._keeps_steps = accelerate or self._guarded
        self._length, self._deviance, self._change = 1.0, math.inf, math.nan
        # In float32 a GPU sums in a tree, exact enough; not every GPU has float64.
        shown = [view.image if view.seen is None else view.image[view.seen] for view in views]
        means = [float(image.mean()) for image in shown]
        self._floor = _FLOOR * max(means[0], flat or 0.0)  # of a dark part of a volume, above 0
        self._turns = [
            _Turn(view, mean, self._floor, first=view is views[0])
            for view, mean in zip(views, means, strict=True)
        ]
        self._flat = self._turns[0].light if flat is None else flat
        self._pieces = pieces(math.prod(self._blur.estimate_shape), self._blur.device)
        self._estimate = self._first(start)
        self._predicted = self._estimate.clone() if self._keeps_steps else self._estimate
        self._last_step: torch.Tensor | None = None
        self._last_square = torch.ones_like(self._estimate[0, 0, 0])

    def field_of_view(self) -> torch.Tensor:
        """Return a view of the estimate where the image is, photons; the next step changes it."""
        return self._estimate[self._blur.window]

    def estimate(self, part: tuple[slice, ...] = ()) -> FloatArray:
        """Return a copy of the estimate where the image is, or of a part of that, image units."""
        return self._in_units(self.field_of_view()[part])

    def outside(self) -> FloatArray:
        """Return the light in the (first) image from beyond the field of view, image units."""
        beyond = self._estimate.clone()
        beyond[self._blur.window] = 0
        return self._in_units(self._blur.A(beyond))

    def blurred(self, data: FloatArray) -> torch.Tensor:
        """Return the photons that an object in the field of view sends to the (first) image.

        Parameters
        ----------
        data
            (Z, Y, X), image units, as :meth:`estimate` gives it.
        """
        field = torch.zeros_like(self._estimate)
        field[self._blur.window] = self.in_photons(data)
        return self._blur.A(field).clone()

    def in_photons(self, data: FloatArray) -> torch.Tensor:
        """Return image units as photons, where the run computes."""
        return torch.from_numpy(data / np.float32(self._unit)).to(self._estimate)

    def _in_units(self, photons: torch.Tensor) -> FloatArray:
        values = to_numpy(photons)
        values *= np.float32(self._unit)
        return values

    def step(self, *, measure: bool = True) -> float:
        """Do one iteration; return the relative change of the estimate, nan if not to measure."""
        self.done += 1
        if self._guarded and self._went_astray():
            return self._step_back(measure=measure)
        smooth = None
        if self._tv:
            smooth = total_variation_factor(self._predicted, self._tv, self._voxel_um)
        current = self._predicted
        # Only where it is asked for: on a GPU, to look at a number is to wait for it.
        judged = any(turn.judges for turn in self._turns)
        ahead = self._ahead() if judged else 0.0
        for turn in self._turns:
            current = turn.corrected(current, smooth, ahead)
            smooth = None  # once in an iteration
        errors = [turn.error for turn in self._turns if not math.isnan(turn.error)]
        self.error = sum(errors) / len(errors) if errors else math.nan
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

    def _ahead(self) -> float:
        """Return how far beyond the estimate the prediction lies."""
        return max(float(self.momenta[-1]), 0.0) if self.momenta else 0.0

    def _went_astray(self) -> bool:
        """Tell whether the prediction explains the (first) image worse than the one before."""
        if self._told_momenta is not None:
            return self._told_momenta[len(self.momenta)] < 0
        deviance = self._turns[0].expect(self._predicted)
        if self._last_step is not None and deviance > _WORSE * self._deviance:
            return True
        self._deviance = deviance
        return False

    def _step_back(self, *, measure: bool) -> float:
        """Take back what lies beyond the estimate, or else half of the last step."""
        made = self._last_step
        assert made is not None  # there is no going astray before the first step
        if not self._ahead():
            self._length *= 0.5
            made.mul_(0.5)
            self._estimate.sub_(made)
        self._predicted.copy_(self._estimate)
        self.momenta.append(self._last_square.new_tensor(-1.0))
        return self._change if measure else math.nan

    def _advance(self, new: torch.Tensor, *, measure: bool) -> float:
        """Move on to a new estimate and predict from it; return the relative change."""
        ahead = self._momentum(new) if self._keeps_steps else None
        # The last step is not needed any more; its memory takes the next prediction.
        following = self._last_step
        if self._keeps_steps and following is None:
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
        self._length = min(1.0, _LONGER * self._length)
        if measure:
            self._change = float((change / norm).sqrt())
        return self._change if measure else math.nan

    def _momentum(self, new: torch.Tensor) -> torch.Tensor:
        """Replace the prediction by the step made from it; return how far to continue."""
        predicted = self._predicted.view(-1)
        last = None if self._last_step is None else self._last_step.view(-1)
        nothing = new.new_zeros(())

        def subtract(part: slice) -> torch.Tensor:
            made = predicted[part]
            if self._length < 1:
                torch.lerp(made, new[part], self._length, out=new[part])
            torch.sub(new[part], made, out=made)
            alike = nothing if last is None else torch.dot(made, last[part])
            return torch.stack([alike, torch.dot(made, made)])

        likeness, square = torch.stack(each(subtract, self._pieces, new.device)).sum(0)
        ahead: torch.Tensor = (likeness / self._last_square.clamp_min(_TINY)).clamp(0.0, 0.999)
        if not self._accelerate or (self.momenta and self._guarded and self.momenta[-1] < 0):
            ahead = torch.zeros_like(ahead)
        self._last_square = square
        if self._told_momenta is not None:
            ahead = ahead.new_tensor(self._told_momenta[len(self.momenta)])
        self.momenta.append(ahead)
        return ahead


class _Turn:
    """A view that corrects the estimate when it is its turn."""

    def __init__(self, view: View, mean: float, floor: float, *, first: bool) -> None:
        self.image, self.seen, self._blur = view.image, view.seen, view.blur
        self._background, self._transfer = view.background, view.transfer
        self._held_out = view.held_out
        self._floor = floor
        self.light = max(mean - view.background, floor)
        """Mean of the image less background."""
        shown = view.image.numel() if view.seen is None else int(view.seen.sum())
        self._signal = self.light * shown
        self.error = math.nan
        self._expected: torch.Tensor | None = None
        arrives = view.blur.arriving(view.seen)
        self._normalise = self._arrives = None
        if view.transfer is None:
            self._normalise = view.blur.normaliser(arrives)
            if not first:  # what this view does not show is left to the others
                self._normalise.masked_fill_(self._normalise == 0, 1.0)
        else:
            self._arrives = arrives
        self._pieces = pieces(math.prod(view.blur.estimate_shape), view.blur.device)
        rows = max(1, self._pieces[0].stop // (view.image.shape[1] * view.image.shape[2]))
        self._planes = [slice(z, z + rows) for z in range(0, view.image.shape[0], rows)]

    def field(self) -> torch.Tensor:
        """Return the image less background.

        Floored well above 0: a voxel that starts at 0 by chance would need long to leave it.
        """
        return (self.image - self._background).clamp_min_(0.1 * self.light)

    @property
    def judges(self) -> bool:
        """Whether photons were held out of the image."""
        return self._held_out is not None

    def expect(self, estimate: torch.Tensor) -> float:
        """Return the Poisson deviance of the image from what an estimate leads to expect.

        The next correction has to be of that estimate.
        """
        self._expected = self._blur.A(estimate, background=self._background)
        expected = self._expected

        def deviance(planes: slice) -> float:
            part, image = expected[planes].clamp_min(self._floor), self.image[planes]
            terms = part - image + torch.xlogy(image, image / part)
            if self.seen is not None:
                terms = terms[self.seen[planes]]
            return float(terms.double().sum()) if terms.device.type == "cpu" else float(terms.sum())

        return 2 * sum(each(deviance, self._planes, expected.device))

    def corrected(
        self, estimate: torch.Tensor, smooth: torch.Tensor | None, ahead: float
    ) -> torch.Tensor:
        """Return an estimate as this view corrects it; holds until its next turn.

        Parameters
        ----------
        estimate
            Unchanged.
        smooth
            A further factor.
        ahead
            As of :meth:`HeldOut.error`.
        """
        expected, self._expected = self._expected, None
        if expected is None:
            expected = self._blur.A(estimate, background=self._background)
        ratio = self._ratio(expected, ahead)
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

    def _ratio(self, model: torch.Tensor, ahead: float) -> torch.Tensor:
        """Turn the expected image into image / expected image, in place."""
        if self._held_out is not None:
            self.error = self._held_out.error(model, ahead)

        def divide(planes: slice) -> None:
            part = model[planes]
            part.clamp_min_(self._floor)
            torch.div(self.image[planes], part, out=part)
            if self.seen is not None:
                # What was not seen corrects nothing: it has no share in the matched projector's
                # weights, and filters, which have no such weights, take it to be as expected.
                part.masked_fill_(~self.seen[planes], 0.0 if self._transfer is None else 1.0)

        each(divide, self._planes, model.device)
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
