"""One Richardson-Lucy iteration and the state between iterations."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from napari_rln.forward import Convolution, pieces
from napari_rln.regularisation import total_variation_factor
from napari_rln.volume import VoxelUm

Start = Literal["flat", "image"]

# Smallest value of an estimate, as a share of the image's mean: a multiplicative update cannot
# leave 0, and denormal numbers are slow.
_FLOOR = 1e-6


class RichardsonLucy:
    """Richardson-Lucy with any back projector, accelerated after Biggs and Andrews.

    Biggs and Andrews (Applied Optics 36, 1766, 1997) continue the path of the estimates: the step
    is taken from ``x_k + a (x_k - x_{k-1})`` with ``a`` from the last two steps' likeness.

    Three estimates' worth of memory, reused in turn; pointwise work goes piece by piece through
    the cache. The work buffer of the forward model holds whatever is being computed.

    Parameters
    ----------
    blur
        The forward model.
    image
        Counts, shape ``blur.image_shape``, non-negative.
    background
        Constant light beside the object's, in counts.
    transfer
        Transfer function of an unmatched back projector; none for the matched one.
    accelerate
        Whether to predict.
    start
        From a flat estimate or from the image.
    tv
        Strength of total variation; 0 for none.
    voxel_um
        (z, y, x), for total variation.
    held_out
        Unseen counts of the same object; how the estimate before a step predicts them is kept in
        ``deviance`` and ``chi2``, per voxel, the deviance up to a constant.
    held_out_ratio
        Expected held-out counts over those of ``image``.
    momenta
        How far to continue the path after each step, as another run's ``momenta`` tell: so all
        parts of a volume are deconvolved alike. Found from the image itself when none.
    flat
        Value of a flat estimate, in counts less background; the image's mean when none.

    Attributes
    ----------
    momenta : list of torch.Tensor
        How far the path was continued after each step.
    """

    def __init__(
        self,
        blur: Convolution,
        image: torch.Tensor,
        *,
        background: float = 0.0,
        transfer: torch.Tensor | None = None,
        accelerate: bool = True,
        start: Start = "flat",
        tv: float = 0.0,
        voxel_um: VoxelUm = (1.0, 1.0, 1.0),
        held_out: torch.Tensor | None = None,
        held_out_ratio: float = 1.0,
        momenta: Sequence[float] | None = None,
        flat: float | None = None,
    ) -> None:
        self.momenta: list[torch.Tensor] = []
        self._told_momenta = momenta
        self.deviance = self.chi2 = float("nan")
        self._blur, self._image, self._background = blur, image, background
        self._transfer, self._tv, self._voxel_um = transfer, tv, voxel_um
        self._accelerate = accelerate
        self._held_out, self._held_out_ratio = held_out, held_out_ratio
        # In float32 a GPU sums in a tree, exact enough; not every GPU has float64.
        mean = float(image.mean())
        self._floor = _FLOOR * mean
        self._mean = max(mean - background, self._floor)
        self._signal = self._mean * image.numel()
        self._flat = self._mean if flat is None else flat
        arrives = blur.arriving()
        self._normalise = blur.normaliser(arrives) if transfer is None else None
        self._arrives = None if transfer is None else arrives
        del arrives
        self._pieces = pieces(math.prod(blur.estimate_shape), blur.device)
        rows = max(1, self._pieces[0].stop // (image.shape[1] * image.shape[2]))
        self._planes = [slice(z, z + rows) for z in range(0, image.shape[0], rows)]
        self._estimate = self._first(start)
        self._predicted = self._estimate.clone() if accelerate else self._estimate
        self._last_step: torch.Tensor | None = None
        self._last_square = torch.ones_like(self._estimate[0, 0, 0])

    def field_of_view(self) -> torch.Tensor:
        """Return a view of the estimate where the image is; the next step changes it."""
        return self._estimate[self._blur.window]

    def outside(self) -> torch.Tensor:
        """Return the light in the image that comes from beyond the field of view.

        A view of the work buffer, the shape of the image: it holds until the next step.
        """
        beyond = self._estimate.clone()
        beyond[self._blur.window] = 0
        return self._blur.A(beyond)

    def step(self, *, measure: bool = True) -> float:
        """Do one iteration; return the relative change of the estimate, nan if not to measure."""
        ratio = self._ratio(self._blur.A(self._predicted, background=self._background))
        if self._transfer is None:
            correction = self._blur.A_adjoint(ratio)
        else:
            correction = self._blur.filter(ratio, self._transfer)
        new = correction.contiguous().view(-1)
        self._correct(new)
        return self._advance(new, measure=measure)

    def _first(self, start: Start) -> torch.Tensor:
        estimate = self._image.new_full(self._blur.estimate_shape, self._flat)
        if start == "image":
            # Floored well above 0: a voxel that starts at 0 by chance would need long to leave it.
            field = (self._image - self._background).clamp_min_(0.1 * self._mean)
            estimate[self._blur.window] = field
        return estimate

    def _ratio(self, model: torch.Tensor) -> torch.Tensor:
        """Turn the expected image into image / expected image, in place."""
        deviance = squares = 0.0
        for planes in self._planes:
            part = model[planes]
            part.clamp_min_(self._floor)
            if self._held_out is not None:
                unseen, expected = self._held_out[planes], part * self._held_out_ratio
                deviance += float((expected - torch.xlogy(unseen, expected)).sum())
                squares += float(((unseen - expected).square_() / expected).sum())
            torch.div(self._image[planes], part, out=part)
        self.deviance, self.chi2 = 2 * deviance / model.numel(), squares / model.numel()
        return model

    def _correct(self, new: torch.Tensor) -> None:
        """Turn a correction into the new estimate, in place."""
        factors = [self._predicted.view(-1)]
        if self._normalise is not None:
            factors.append(self._normalise.view(-1))
        if self._tv:
            smooth = total_variation_factor(self._predicted, self._tv, self._voxel_um)
            factors.append(smooth.view(-1))
        for part in self._pieces:
            for factor in factors:
                new[part].mul_(factor[part])
            new[part].clamp_min_(self._floor)
        if self._arrives is not None:
            # Unmatched filters change the brightness: bring back the photons of the image.
            arrives = self._arrives.view(-1)
            detected = new.new_zeros(())
            for part in self._pieces:
                detected += torch.dot(new[part], arrives[part])
            for part in self._pieces:
                new[part].mul_(self._signal / detected)

    def _advance(self, new: torch.Tensor, *, measure: bool) -> float:
        """Move on to a new estimate and predict from it; return the relative change."""
        ahead = self._momentum(new) if self._accelerate else None
        # The last step has had its say; its memory takes the next prediction.
        following = self._last_step
        if self._accelerate and following is None:
            following = torch.empty_like(self._predicted)
        estimate = self._estimate.view(-1)
        change, norm = new.new_zeros(()), new.new_zeros(())
        for part in self._pieces:
            old, now = estimate[part], new[part]
            if measure or ahead is not None:
                moved = now - old
            if measure:
                change += torch.dot(moved, moved)
                norm += torch.dot(now, now)
            if ahead is not None and following is not None:
                values = following.view(-1)[part]
                torch.addcmul(now, moved, ahead, out=values)
                values.clamp_min_(self._floor)
            old.copy_(now)
        if following is not None:
            self._last_step, self._predicted = self._predicted, following
        return float((change / norm).sqrt()) if measure else math.nan

    def _momentum(self, new: torch.Tensor) -> torch.Tensor:
        """Replace the prediction by the step made from it; return how far to continue."""
        predicted = self._predicted.view(-1)
        last = None if self._last_step is None else self._last_step.view(-1)
        likeness, square = new.new_zeros(()), new.new_zeros(())
        for part in self._pieces:
            made = predicted[part]
            torch.sub(new[part], made, out=made)
            square += torch.dot(made, made)
            if last is not None:
                likeness += torch.dot(made, last[part])
        ahead = (likeness / self._last_square).clamp(0.0, 0.999)
        self._last_square = square
        if self._told_momenta is not None:
            ahead = ahead.new_tensor(self._told_momenta[len(self.momenta)])
        self.momenta.append(ahead)
        return ahead
