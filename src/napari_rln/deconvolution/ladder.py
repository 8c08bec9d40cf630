"""A ladder of estimates, and from it the number of iterations that suits an image best.

Richardson-Lucy iterations sharpen, and from some number on amplify noise. That number depends on
the photons, the PSF and the object. It is predicted from the estimates after a few numbers of
iterations: by how much they still change, how far the changes correlate between neighbouring
voxels, as structure does and noise does not, and how well they explain the image, which a PSF that
is not quite right keeps them from. The prediction is a polynomial that was fitted to
simulated images, whose best number is known. It needs no trial deconvolution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Float64Array, FloatArray
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.stopping import EXPLAINED, structured_crop

COUNTS = (6, 12, 24, 48)
"""Numbers of iterations of the estimates from which the prediction is made."""

MOST = 96
"""Largest number of iterations."""

AROUND: tuple[float, ...] = (0.5, 1.0)
"""Factors on the best number of iterations, of the candidates of a refinement."""

STATISTICS = 18
"""Number of statistics."""

_LEAST_BACKGROUND, _LEAST_MEAN, _LEAST_CHANGE, _LEAST_DEVIANCE = 0.1, 1e-3, 1e-9, 1e-3


@dataclass(frozen=True)
class StopPrediction:
    """Prediction of the best number of iterations.

    Attributes
    ----------
    weights
        Weights of the :func:`statistics`, of their squares, and a constant, which add up to the
        number's logarithm.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != 2 * STATISTICS + 1 or not np.isfinite(self.weights).all():
            raise RlnError(f"a stop is predicted by {2 * STATISTICS + 1} finite weights.")

    def __call__(self, found: Float64Array) -> float:
        """Return the number of iterations, not whole, from the statistics."""
        logarithm = float(np.dot(self.weights, [*found, *found**2, 1.0]))
        return float(np.exp(np.clip(logarithm, np.log(COUNTS[0]), np.log(MOST))))


@dataclass(frozen=True)
class Ladder:
    """Estimates after several numbers of iterations, around the predicted best one.

    Attributes
    ----------
    stop
        Prediction of the best number.
    beyond
        Factor on the best number, of the last estimate.
    """

    stop: StopPrediction
    beyond: float

    @property
    def estimates(self) -> int:
        """Number of estimates of :meth:`around`."""
        return len(AROUND) + 1

    def predict(self, view: PreparedView, run: RichardsonLucyIteration) -> float:
        """Return the best number of iterations of a view, after the last of :data:`COUNTS`.

        From the part with most structure, as with a trial. Without photon noise it is the largest.
        """
        assert view.psf is not None
        camera = view.calibration.camera
        if not camera.counts_photons:
            return MOST / self.beyond
        part = structured_crop(view.image.data, view.psf.shape)
        photons = np.float32(1 / camera.gain)
        light = (view.image.data[part] - np.float32(view.calibration.background)) * photons
        estimates = {count: run.kept[count][part] * photons for count in COUNTS}
        deviances = [run.deviances[count] for count in COUNTS]
        return self.best(light, estimates, deviances, view.calibration.background_photons)

    def best(
        self,
        light: FloatArray,
        estimates: Mapping[int, FloatArray],
        deviances: Sequence[float],
        background: float,
    ) -> float:
        """Return the best number of iterations of an image, from its estimates, in photons.

        Image and estimates by number of iterations, (Z, Y, X), are without background; the
        deviances are those of the estimates after :data:`COUNTS`, per voxel.
        """
        scale = brightness(estimates[COUNTS[1]])
        unit = np.float32(scale)
        shown = [estimates[count] / unit for count in COUNTS]
        found = statistics(light / unit, shown, deviances, scale, background)
        return self.limited(self.stop(found), deviances[-1])

    def limited(self, best: float, deviance: float) -> float:
        """Return a best number of iterations within the limits, for the last deviance.

        Where noise does not explain the image, the PSF is not quite right: further iterations
        would fit its error, and there are none beyond :data:`COUNTS`.
        """
        most = COUNTS[-1] if deviance > EXPLAINED else MOST
        return min(best, most / self.beyond)

    def iterations(self, best: float) -> int:
        """Return the number of iterations to run for the estimates around a best number.

        The next of :data:`COUNTS`, between which estimates are interpolated, or more than these.
        """
        most = self.beyond * best
        return next((count for count in COUNTS if count >= most), round(most))

    def around(self, estimates: Mapping[int, FloatArray], best: float) -> FloatArray:
        """Return the estimates around the best number of iterations, (n, Z, Y, X).

        After half of it, it, and ``beyond`` times it. ``estimates`` are (Z, Y, X), by number of
        iterations.
        """
        counts = sorted(estimates)
        kept = [estimates[count] for count in counts]
        return np.stack([between(kept, counts, best * f) for f in (*AROUND, self.beyond)])


def between(
    estimates: Sequence[FloatArray], counts: Sequence[int], iterations: float
) -> FloatArray:
    """Return the estimate after a number of iterations, (Z, Y, X).

    It is interpolated, linearly in the logarithm of the number, from the estimates, (Z, Y, X) each,
    after ``counts`` iterations, rising; outside of these it is the first or the last.
    """
    place = float(np.interp(np.log(iterations), np.log(counts), np.arange(len(counts))))
    lower = int(place)
    upper, weight = min(lower + 1, len(counts) - 1), np.float32(place - lower)
    mixed: FloatArray = (1 - weight) * estimates[lower] + weight * estimates[upper]
    return mixed


def statistics(
    light: FloatArray,
    estimates: Sequence[FloatArray],
    deviances: Sequence[float],
    photons: float,
    background: float,
) -> Float64Array:
    """Return the statistics of an image and of its estimates after :data:`COUNTS` iterations.

    Image and estimates, (Z, Y, X), are without background and in a unit of so many photons; the
    background is in photons, and the deviances are those of the estimates, per voxel.
    """
    mean = max(float(light.mean(dtype=np.float64)) * photons, _LEAST_MEAN)
    found = [np.log(photons), np.log(background + _LEAST_BACKGROUND), np.log(mean)]
    changes = [later - earlier for earlier, later in pairwise(estimates)]
    first = _root_mean_square(estimates[0])
    found += [np.log(max(_root_mean_square(c), _LEAST_CHANGE) / first) for c in changes]
    found += [_neighbour_correlation(change, axis) for change in changes for axis in range(3)]
    found += [np.log(max(deviance, _LEAST_DEVIANCE)) for deviance in deviances[1:]]
    return np.array(found)


def _root_mean_square(data: FloatArray) -> float:
    return float(np.sqrt(np.square(data, dtype=np.float64).mean()))


def _neighbour_correlation(data: FloatArray, axis: int) -> float:
    """Return the correlation of voxels with their neighbours along an axis; 0 for a single one."""
    planes = np.moveaxis(data, axis, 0)
    now, before = planes[1:].ravel(), planes[:-1].ravel()
    return float(np.dot(now, before) / max(float(np.dot(now, now)), 1e-12))


STOP = StopPrediction((
    0.33014, 0.105006, -0.165535, 0.0226581, 0.00404641, 0.198512,
    0.350973, 2.02164, -1.48465, -0.260612, 1.34466, -0.106053,
    0.187927, 0.333163, -0.0725014, 0.0166762, -0.0969742, -0.0825409,
    -0.0106734, -0.00992455, 0.0215457, -0.123473, -0.0520928, 0.07379,
    -0.073701, -1.9458, 1.52558, 0.199594, -1.25699, 0.0684327,
    0.149059, 0.786471, 0.481005, -0.0584509, 0.125214, -0.0761234,
    1.03975,
))  # fmt: skip
"""Prediction fitted to simulated images (``benchmarks/stop_prediction.py``)."""
