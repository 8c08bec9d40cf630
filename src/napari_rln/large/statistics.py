"""What is known of a whole volume before its first tile."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What was found; JSON types only.

    Attributes
    ----------
    hash
        Of the samples, by which an image is known again.
    sampled
        Voxels that were looked at.
    background
        Image units.
    mean
        The same, background included.
    gain, intercept
        Noise where there is most structure, see :class:`napari_rln.noise.Noise`.
    iterations
        Of the classical deconvolution; 0 where there is none.
    momenta
        Of its acceleration; none where it is not accelerated.
    offset, scale
        Of the map to the network's range; 0 and 1 where there is no network.
    telling
        (start, stop) along z, y and x of what the noise and the stop were found in.
    """

    hash: str
    sampled: int
    background: float
    mean: float
    gain: float = 0.0
    intercept: float = 0.0
    iterations: int = 0
    momenta: list[float] | None = None
    offset: float = 0.0
    scale: float = 1.0
    telling: list[list[int]]
