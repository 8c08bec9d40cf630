"""The Richardson-Lucy iteration and its state."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from napari_rln.core.device import to_numpy
from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.deconvolution.convolution import Convolution, map_pieces, pieces
from napari_rln.deconvolution.gradient_consensus import GradientConsensus
from napari_rln.deconvolution.stopping import SplitPhotons
from napari_rln.deconvolution.total_variation import total_variation_factor

Start = Annotated[
    Literal["flat", "image"], {"label": "Initial estimate", "words": {"image": "the image"}}
]

# Smallest value of an estimate, as a fraction of the image's mean: multiplicative updates cannot
# leave 0, and denormal numbers are slow.
_FLOOR = 1e-6
_TINY = 1e-30  # least squared norm of a step
_LONGER = 1.1  # growth of halved steps per iteration
_WORSE = 1 + 1e-5  # factor on the deviance beyond which a step is reverted


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One image of the object, with its forward model.

    Attributes
    ----------
    blur
        The forward model.
    image
        Photons, shape ``blur.image_shape``, non-negative.
    background
        Constant background, photons.
    transfer
        Transfer function of an unmatched back projector; none for the matched one.
    mask
        Bool, of the shape of the image, voxels that show the object; all when none.
    held_out
        Photons held out of the image, to score estimates.
    consensus
        Random halves of the image whose corrections must agree; only with the matched back
        projector.
    """

    blur: Convolution
    image: torch.Tensor
    background: float = 0.0
    transfer: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    held_out: SplitPhotons | None = None
    consensus: GradientConsensus | None = None


class RichardsonLucyIteration:
    """Richardson-Lucy with any back projector, accelerated after Biggs and Andrews.

    Biggs and Andrews (Applied Optics 36, 1766, 1997) extrapolate the estimates: the step is taken
    from ``x_k + a (x_k - x_{k-1})`` with ``a`` from the correlation of the last two steps.

    Matched Richardson-Lucy is expectation maximisation and cannot diverge. A filter in place of the
    adjoint can, where the estimate is much brighter than its blur: a step that increases the
    deviance of the image is reverted, first its extrapolation, then half of the step itself, and
    later steps are halved too.

    Several views of one object correct the estimate one after the other within an iteration.

    The state is three estimates, whose memory is reused; pointwise operations run in pieces that
    fit the cache. The work buffers of the forward models hold intermediate results.

    Parameters
    ----------
    *views
        One or more, of one shape, with forward models of one estimate shape.
    accelerate
        Whether to extrapolate.
    start
        First estimate: flat, or the image, the mean of several.
    tv
        Strength of total-variation regularisation; 0 for none.
    voxel_um
        Voxel size (z, y, x) in micrometres, for total variation.
    momenta
        Acceleration factor after each step, from ``momenta`` of another run, so that all tiles of
        a volume are accelerated equally; computed from the image when none.
    flat
        Value of a flat estimate, photons minus background; the image's mean when none.
    unit
        Image units per photon, of the results of :meth:`estimate` and :meth:`outside`.
    marks
        Numbers of iterations whose estimates are kept, with their deviances.

    Attributes
    ----------
    kept : dict
        Estimates kept, by number of iterations; see :meth:`estimate`.
    deviances : dict
        Poisson deviances per voxel of the (first) image from their blur; about 1 where only noise
        is left.
    momenta : list of torch.Tensor
        Acceleration factor after each step; -1 where a step was reverted.
    done : int
        Number of iterations so far.
    error : float
        Error with which the estimate before the last step predicts held-out photons; nan without.
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
        marks: Collection[int] = (),
    ) -> None:
        self._marks = frozenset(marks)
        self.kept: dict[int, FloatArray] = {}
        self.deviances: dict[int, float] = {}
        self.momenta: list[torch.Tensor] = []
        self._fixed_momenta = momenta
        self.done = 0
        self.error = math.nan
        self._unit = unit
        self._blur = views[0].blur
        self._tv, self._voxel_um = tv, voxel_um
        self._accelerate = accelerate
        self._guarded = any(view.transfer is not None for view in views)
        self._keeps_steps = accelerate or self._guarded
        self._length, self._deviance, self._change = 1.0, math.inf, math.nan
        # A GPU sums float32 in a tree, which is exact enough; not every GPU has float64.
        shown = [view.image if view.mask is None else view.image[view.mask] for view in views]
        means = [float(image.mean()) for image in shown]
        self._floor = _FLOOR * max(means[0], flat or 0.0)  # above 0 in a dark part of a volume too
        self._corrections = [
            _Correction(view, mean, self._floor, first=view is views[0])
            for view, mean in zip(views, means, strict=True)
        ]
        self._flat = self._corrections[0].light if flat is None else flat
        self._pieces = pieces(math.prod(self._blur.estimate_shape), self._blur.device)
        self._estimate = self._first(start)
        self._predicted = self._estimate.clone() if self._keeps_steps else self._estimate
        self._last_step: torch.Tensor | None = None
        self._last_square = torch.ones_like(self._estimate[0, 0, 0])

    def field_of_view(self) -> torch.Tensor:
        """Return the estimate in the field of view, photons: a view that the next step changes."""
        return self._estimate[self._blur.window]

    def estimate(self, part: tuple[slice, ...] = ()) -> FloatArray:
        """Return a copy of the estimate in the field of view or a part of it, image units."""
        return self._in_units(self.field_of_view()[part])

    def outside(self) -> FloatArray:
        """Return the light in the (first) image from beyond the field of view, image units."""
        beyond = self._estimate.clone()
        beyond[self._blur.window] = 0
        return self._in_units(self._blur.A(beyond))

    def blurred(self, data: FloatArray) -> torch.Tensor:
        """Return the photons in the (first) image of an object, as from :meth:`estimate`."""
        field = torch.zeros_like(self._estimate)
        field[self._blur.window] = self.in_photons(data)
        return self._blur.A(field).clone()

    def in_photons(self, data: FloatArray) -> torch.Tensor:
        """Return image units as photons, on the device of the run."""
        return torch.from_numpy(data / np.float32(self._unit)).to(self._estimate)

    def _in_units(self, photons: torch.Tensor) -> FloatArray:
        values = to_numpy(photons)
        values *= np.float32(self._unit)
        return values

    def step(self, *, measure: bool = True) -> float:
        """Run one iteration; return the relative change of the estimate, nan unless measured."""
        self.done += 1
        if self._guarded and self._diverged():
            return self._step_back(measure=measure)
        smooth = None
        if self._tv:
            smooth = total_variation_factor(self._predicted, self._tv, self._voxel_um)
        current = self._predicted
        # Only if needed: reading a number from a GPU waits for it.
        scored = any(view.held_out is not None for view in self._corrections)
        extrapolation = self._extrapolation() if scored else 0.0
        for view in self._corrections:
            current = view.corrected(current, smooth, extrapolation)
            smooth = None  # once per iteration
        errors = [view.error for view in self._corrections if not math.isnan(view.error)]
        self.error = sum(errors) / len(errors) if errors else math.nan
        return self._advance(current.view(-1), measure=measure)

    def _first(self, start: Start) -> torch.Tensor:
        estimate = self._corrections[0].image.new_full(self._blur.estimate_shape, self._flat)
        if start == "image":
            window = estimate[self._blur.window]
            if len(self._corrections) == 1:
                window.copy_(self._corrections[0].field())
                return estimate
            field, weight = torch.zeros_like(window), torch.zeros_like(window)
            for view in self._corrections:
                mask = 1 if view.mask is None else view.mask
                field += mask * view.field()
                weight += mask
            window.copy_(torch.where(weight > 0, field / weight.clamp_min(1), self._flat))
        return estimate

    def _extrapolation(self) -> float:
        """Return the distance of the prediction beyond the estimate, in last changes."""
        return max(float(self.momenta[-1]), 0.0) if self.momenta else 0.0

    def _diverged(self) -> bool:
        """Return whether the deviance of the (first) image has increased."""
        if self._fixed_momenta is not None:
            return self._fixed_momenta[len(self.momenta)] < 0
        deviance = self._corrections[0].expect(self._predicted)
        if self._last_step is not None and deviance > _WORSE * self._deviance:
            return True
        self._deviance = deviance
        return False

    def _step_back(self, *, measure: bool) -> float:
        """Revert the extrapolation or, without one, half of the last step."""
        last = self._last_step
        assert last is not None  # the first step cannot diverge
        if not self._extrapolation():
            self._length *= 0.5
            last.mul_(0.5)
            self._estimate.sub_(last)
        self._predicted.copy_(self._estimate)
        self.momenta.append(self._last_square.new_tensor(-1.0))
        return self._change if measure else math.nan

    def _advance(self, new: torch.Tensor, *, measure: bool) -> float:
        """Adopt a new estimate and extrapolate from it; return the relative change."""
        momentum = self._momentum(new) if self._keeps_steps else None
        # The previous step is no longer needed; its memory takes the next prediction.
        following = self._last_step
        if self._keeps_steps and following is None:
            following = torch.empty_like(self._predicted)
        estimate = self._estimate.view(-1)
        nothing = new.new_zeros(2)

        def advance(part: slice) -> torch.Tensor:
            old, now = estimate[part], new[part]
            moved = now - old
            if momentum is not None and following is not None:
                values = following.view(-1)[part]
                torch.addcmul(now, moved, momentum, out=values)
                values.clamp_min_(self._floor)
            old.copy_(now)
            if not measure:
                return nothing
            return torch.stack([torch.dot(moved, moved), torch.dot(now, now)])

        change, norm = torch.stack(map_pieces(advance, self._pieces, new.device)).sum(0)
        if following is not None:
            self._last_step, self._predicted = self._predicted, following
        self._length = min(1.0, _LONGER * self._length)
        if self.done in self._marks:
            self.kept[self.done] = self.estimate()
            self.deviances[self.done] = self._corrections[0].deviance(self._estimate)
        if measure:
            self._change = float((change / norm).sqrt())
        return self._change if measure else math.nan

    def _momentum(self, new: torch.Tensor) -> torch.Tensor:
        """Replace the prediction by the step from it; return the acceleration factor."""
        predicted = self._predicted.view(-1)
        last = None if self._last_step is None else self._last_step.view(-1)
        nothing = new.new_zeros(())

        def subtract(part: slice) -> torch.Tensor:
            step = predicted[part]
            if self._length < 1:
                torch.lerp(step, new[part], self._length, out=new[part])
            torch.sub(new[part], step, out=step)
            product = nothing if last is None else torch.dot(step, last[part])
            return torch.stack([product, torch.dot(step, step)])

        product, square = torch.stack(map_pieces(subtract, self._pieces, new.device)).sum(0)
        momentum: torch.Tensor = (product / self._last_square.clamp_min(_TINY)).clamp(0.0, 0.999)
        if not self._accelerate or (self.momenta and self._guarded and self.momenta[-1] < 0):
            momentum = torch.zeros_like(momentum)
        self._last_square = square
        if self._fixed_momenta is not None:
            momentum = momentum.new_tensor(self._fixed_momenta[len(self.momenta)])
        self.momenta.append(momentum)
        return momentum


class _Correction:
    """The correction of the estimate by one view."""

    def __init__(self, view: View, mean: float, floor: float, *, first: bool) -> None:
        self.image, self.mask, self._blur = view.image, view.mask, view.blur
        self._background, self._transfer = view.background, view.transfer
        self.held_out, self._consensus = view.held_out, view.consensus
        self._floor = floor
        self.light = max(mean - view.background, floor)
        """Mean of the image minus background."""
        self._shown = view.image.numel() if view.mask is None else int(view.mask.sum())
        self._signal = self.light * self._shown
        self.error = math.nan
        self._expected: torch.Tensor | None = None
        sensitivity = view.blur.sensitivity(view.mask)
        self._normalise = self._sensitivity = None
        if view.transfer is None:
            self._normalise = view.blur.normaliser(sensitivity)
            if not first:  # the others correct what this view does not show
                self._normalise.masked_fill_(self._normalise == 0, 1.0)
        else:
            self._sensitivity = sensitivity
        self._pieces = pieces(math.prod(view.blur.estimate_shape), view.blur.device)
        rows = max(1, self._pieces[0].stop // (view.image.shape[1] * view.image.shape[2]))
        self._planes = [slice(z, z + rows) for z in range(0, view.image.shape[0], rows)]

    def field(self) -> torch.Tensor:
        """Return the image minus background.

        Floored well above 0: a voxel that starts near 0 by chance would take long to leave it.
        """
        return (self.image - self._background).clamp_min_(0.1 * self.light)

    def expect(self, estimate: torch.Tensor) -> float:
        """Return the Poisson deviance of the image from the blur of an estimate.

        The next correction must be of that estimate.
        """
        self._expected = self._blur.A(estimate, background=self._background)
        expected = self._expected

        def deviance(planes: slice) -> float:
            part, image = expected[planes].clamp_min(self._floor), self.image[planes]
            terms = part - image + torch.xlogy(image, image / part)
            if self.mask is not None:
                terms = terms[self.mask[planes]]
            return float(terms.double().sum()) if terms.device.type == "cpu" else float(terms.sum())

        return 2 * sum(map_pieces(deviance, self._planes, expected.device))

    def deviance(self, estimate: torch.Tensor) -> float:
        """Return the Poisson deviance per voxel of the image from the blur of an estimate."""
        total = self.expect(estimate)
        self._expected = None  # that of another estimate
        return total / self._shown

    def corrected(
        self, estimate: torch.Tensor, smooth: torch.Tensor | None, extrapolation: float
    ) -> torch.Tensor:
        """Return an estimate corrected by this view, valid until its next correction.

        ``smooth`` is the factor of total variation; ``extrapolation`` as for
        :meth:`.SplitPhotons.error`.
        """
        expected, self._expected = self._expected, None
        if expected is None:
            expected = self._blur.A(estimate, background=self._background)
        halves = None if self._consensus is None else self._consensus.difference()
        ratio = self._ratio(expected, extrapolation, halves)
        if self._transfer is None:
            correction = self._blur.A_adjoint(ratio)
        else:
            correction = self._blur.filter(ratio, self._transfer)
        correction, normalise = correction.contiguous(), self._normalise
        if self._consensus is not None and halves is not None and normalise is not None:
            correction = self._consensus.agreed(correction, halves, normalise, self.mask)
            normalise = None
        factors = [f.view(-1) for f in (estimate, normalise, smooth) if f is not None]
        new = correction.view(-1)

        def correct(part: slice) -> None:
            values = new[part]
            for factor in factors:
                values.mul_(factor[part])
            values.clamp_min_(self._floor)

        map_pieces(correct, self._pieces, new.device)
        if self._sensitivity is not None:
            # Unmatched filters change the brightness: restore the photons of the image.
            sensitivity = self._sensitivity.view(-1)
            light = map_pieces(
                lambda p: torch.dot(new[p], sensitivity[p]), self._pieces, new.device
            )
            scale = self._signal / torch.stack(light).sum()
            map_pieces(lambda part: new[part].mul_(scale), self._pieces, new.device)
        return correction

    def _ratio(
        self, model: torch.Tensor, extrapolation: float, halves: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Replace the expected image by image / expected image, in place.

        The difference of the ``halves`` is divided by the expected image too.
        """
        if self.held_out is not None:
            self.error = self.held_out.error(model, extrapolation)

        def divide(planes: slice) -> None:
            part = model[planes]
            part.clamp_min_(self._floor)
            if halves is not None:
                halves[planes].div_(part)
            torch.div(self.image[planes], part, out=part)
            if self.mask is not None:
                # Masked voxels correct nothing: they are not in the matched projector's weights,
                # and count as equal to the expected image for filters, which have no weights.
                part.masked_fill_(~self.mask[planes], 0.0 if self._transfer is None else 1.0)
                if halves is not None:
                    halves[planes].masked_fill_(~self.mask[planes], 0.0)

        map_pieces(divide, self._planes, model.device)
        return model
