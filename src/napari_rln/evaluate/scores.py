"""Agreement of a volume with the truth, on the whole and on its planes.

Scale and offset are fitted once per volume, not per plane, and the range is the whole truth's, so
that the planes share one scale. The mean over planes runs over those in which the truth is not
flat: those whose own range is at least 5 % of the volume's.
"""

from dataclasses import dataclass

import numpy as np

from napari_rln.core import metrics
from napari_rln.core.volume import Volume
from napari_rln.evaluate.sections import PLANES

_FLAT_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Agreement with the truth.

    Attributes
    ----------
    psnr_raw_db
        Peak signal-to-noise ratio of the values as they are; the peak is the truth's range.
    psnr_db
        The same after the fit of scale and offset.
    nrmse
        Relative error after the fit.
    ssim
        Structural similarity after the fit; None where the planes are smaller than its window.
    pearson
        Correlation coefficient.
    """

    psnr_raw_db: float
    psnr_db: float
    nrmse: float
    ssim: float | None
    pearson: float


def score(result: Volume, truth: Volume, plane: str | None = None) -> Scores | None:
    """Return how well a result agrees with the truth.

    Parameters
    ----------
    result, truth
        Volumes of one shape.
    plane
        ``"xy"``, ``"xz"`` or ``"yz"`` for the mean over those planes in which the truth is not
        flat; the whole volume if None.

    Returns
    -------
    Scores or None
        None if the truth is flat in every such plane, as where it varies along z alone.
    """
    # Fitted before any plane is cut, so that all planes share one scale and offset.
    fit = metrics.fitted(result.data, truth.data)
    peak = float(np.ptp(truth.data))
    arrays: tuple[metrics.Array, ...] = (result.data, fit, truth.data)
    if plane is None:
        triples = [arrays]
    else:
        across = (np.moveaxis(a, PLANES[plane], 0) for a in arrays)
        triples = [t for t in zip(*across, strict=True) if np.ptp(t[2]) >= _FLAT_SHARE * peak]
        if not triples:
            return None
    with_ssim = min(np.delete(truth.shape, PLANES[plane or "xy"])) >= metrics.SSIM_WINDOW
    every = [
        (
            metrics.psnr(raw, g, data_range=peak),
            metrics.psnr(x, g, data_range=peak),
            metrics.nrmse(x, g, fit=False),
            metrics.ssim(x, g, fit=False, data_range=peak) if with_ssim else np.nan,
            metrics.pearson(x, g),
        )
        for raw, x, g in triples
    ]
    psnr_raw_db, psnr_db, nrmse, ssim, pearson = (float(v) for v in np.mean(every, axis=0))
    return Scores(
        psnr_raw_db=psnr_raw_db,
        psnr_db=psnr_db,
        nrmse=nrmse,
        ssim=ssim if with_ssim else None,
        pearson=pearson,
    )
