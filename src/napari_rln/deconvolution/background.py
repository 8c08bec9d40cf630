"""Background level of an image: haze, autofluorescence and the camera offset."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_rln.core.volume import Array, Float64Array, FloatArray, Mask
from napari_rln.deconvolution.noise import Noise, estimate_noise
from napari_rln.deconvolution.noise_residuals import chunks_of, masks_of
from napari_rln.deconvolution.unmeasured_voxels import constant_planes, filled, find_levels

_EMPTY = 1.5  # highest ratio of variance to noise variance of an empty region


@dataclass(frozen=True, kw_only=True)
class Background:
    """Background level of an image, camera offset included.

    Attributes
    ----------
    level
        Image units.
    uncertainty
        Possible error of the level, image units.
    certain
        Whether the darkest regions are empty to within the noise.
    reason
        Explanation of ``certain``, one sentence.
    """

    level: float
    uncertainty: float
    certain: bool
    reason: str


def estimate_background(
    *images: FloatArray,
    mask: Mask | Sequence[Mask] | None = None,
    noise: Noise | None = None,
    zero: float | None = None,
) -> Background:
    """Return the level of the darkest regions of an image, and whether they are empty.

    The level is the 0.5th percentile of means over blocks of up to 4 x 8 x 8 voxels: low enough to
    spare dim structures, averaged enough not to follow the noise. Where the darkest blocks vary
    more than their noise, they hold structure. The background is then interpolated between them and
    the level without light, weighted by the fraction of their variance that is noise, and is
    uncertain.

    Parameters
    ----------
    *images
        (Z, Y, X), the image, or samples of it.
    mask
        Bool, of the shape of the image, or one per sample: valid voxels. Fill values and absent
        planes are excluded in any case.
    noise
        Noise of the image; estimated when none.
    zero
        Level without light, such as the camera offset; that of the noise when none.

    Notes
    -----
    Without photon noise the level of the darkest regions is returned, and is uncertain.
    """
    noise = estimate_noise(*images, mask=mask) if noise is None else noise
    zero = noise.zero if zero is None else zero
    parts = [
        _blocks(image, mask) for image, mask in zip(images, _measured(images, mask), strict=True)
    ]
    means, variances, counts = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    if not means.size:
        return Background(
            level=zero, uncertainty=math.inf, certain=False, reason="no voxel is valid"
        )
    level = float(np.percentile(means, 0.5))
    dark = means <= np.percentile(means, 5)
    scatter = math.sqrt(float(np.median(variances[dark] / counts[dark])))
    if not noise.gain > 0:
        return Background(
            level=level,
            uncertainty=scatter,
            certain=False,
            reason="without noise it is unknown whether the darkest regions are empty",
        )
    excess = float(np.median(variances[dark] / noise.variance(means[dark])))
    if excess <= _EMPTY:
        return Background(
            level=max(level, zero),
            uncertainty=scatter,
            certain=True,
            reason="the darkest regions vary no more than their noise",
        )
    between = max(level - zero, 0.0)
    noise_fraction = _EMPTY / excess
    return Background(
        level=zero + noise_fraction * between,
        uncertainty=max(noise_fraction, 1 - noise_fraction) * between + noise.zero_uncertainty,
        certain=False,
        reason=(
            f"the darkest regions, at {level:.6g}, vary {math.sqrt(excess):.1f} times as much as "
            f"their noise and contain structure; the level without light is {zero:.6g}"
        ),
    )


def _measured(
    images: Sequence[FloatArray], mask: Mask | Sequence[Mask] | None
) -> list[Mask | None]:
    """Return masks of the measured voxels of images, none where all are."""
    chunks = [image[where] for image in images for where in chunks_of(image)]
    levels = replace(find_levels(*chunks), saturation=None)
    measured: list[Mask | None] = []
    for image, shown in zip(images, masks_of(images, mask), strict=True):
        absent = list(constant_planes(image))
        unknown = bool(np.isnan(image.sum(dtype=np.float64)))
        if shown is None and levels.fill is None and not absent and not unknown:
            measured.append(None)
            continue
        known = ~filled(image, levels)
        known[absent] = False
        measured.append(known if shown is None else known & shown)
    return measured


def _blocks(
    image: FloatArray, mask: Mask | None
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return mean, variance and voxel count of blocks with at least half of their voxels valid."""
    sizes = tuple(min(n, block) for n, block in zip(image.shape, (4, 8, 8), strict=True))
    whole = tuple(slice(n - n % s) for n, s in zip(image.shape, sizes, strict=True))
    z, y, x = (n // s for n, s in zip(image.shape, sizes, strict=True))

    def total(values: Array) -> Float64Array:
        blocks = values[whole].reshape(z, sizes[0], y, sizes[1], x, sizes[2])
        sums: Float64Array = blocks.sum((1, 3, 5), dtype=np.float64).ravel()
        return sums

    size = math.prod(sizes)
    level = image.dtype.type(np.nanmedian(image[::4, ::8, ::8]))  # keeps sums of squares exact
    above = image - level
    if mask is not None:
        above = np.where(mask, above, 0)
    count = np.full(z * y * x, float(size)) if mask is None else total(mask)
    use = count >= size / 2
    count = count[use]
    mean = total(above)[use] / count
    variance = np.maximum(total(above**2)[use] / count - mean**2, 0)
    return mean + float(level), variance * count / np.maximum(count - 1, 1), count
