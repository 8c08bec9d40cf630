"""Scores of a volume against the ground truth, for the whole volume and for its planes.

Scale and offset are fitted once per volume, and the data range is that of the whole truth, so that
all planes have one scale. Means over planes exclude those in which the truth is nearly constant,
with a range below 5 % of that of the volume.
"""

from dataclasses import dataclass

import numpy as np

from napari_rln.core import metrics
from napari_rln.core.volume import Array, Volume
from napari_rln.evaluate.plane_sections import PLANES

_FLAT_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores against the ground truth.

    Attributes
    ----------
    psnr_raw_db
        Peak signal-to-noise ratio without a fit; the peak is the range of the truth.
    psnr_db
        Peak signal-to-noise ratio after the fit of scale and offset.
    nrmse
        Root-mean-square error after the fit, relative to the root-mean-square of the truth.
    ssim
        Structural similarity after the fit; None for planes smaller than its window.
    pearson
        Pearson correlation coefficient.
    """

    psnr_raw_db: float
    psnr_db: float
    nrmse: float
    ssim: float | None
    pearson: float


def score(result: Volume, truth: Volume, plane: str | None = None) -> Scores | None:
    """Return the scores of a result, in the whole volume or as the mean over planes.

    The planes, xy, xz or yz, are those in which the truth varies; None if there are none, as where
    it varies along z only.
    """
    # One fit for all planes.
    fit = metrics.fitted(result.data, truth.data)
    peak = float(np.ptp(truth.data))
    arrays: tuple[Array, ...] = (result.data, fit, truth.data)
    if plane is None:
        triples = [arrays]
    else:
        across = (np.moveaxis(a, PLANES[plane], 0) for a in arrays)
        triples = [t for t in zip(*across, strict=True) if np.ptp(t[2]) >= _FLAT_FRACTION * peak]
        if not triples:
            return None
    with_ssim = min(np.delete(truth.shape, PLANES[plane or "xy"])) >= metrics.SSIM_WINDOW
    values = [
        (
            metrics.psnr(raw, g, data_range=peak),
            metrics.psnr(x, g, data_range=peak),
            metrics.nrmse(x, g, fit=False),
            metrics.ssim(x, g, fit=False, data_range=peak) if with_ssim else np.nan,
            metrics.pearson(x, g),
        )
        for raw, x, g in triples
    ]
    psnr_raw_db, psnr_db, nrmse, ssim, pearson = (float(v) for v in np.mean(values, axis=0))
    return Scores(
        psnr_raw_db=psnr_raw_db,
        psnr_db=psnr_db,
        nrmse=nrmse,
        ssim=ssim if with_ssim else None,
        pearson=pearson,
    )
