"""What a comparison says about each result, in words.

Chi squared alone is hard to read: on a bright image an error of the PSF of one per cent makes it
hundreds. So what a result leaves unexplained is given as a fraction of what the raw image leaves
unexplained, taken as its own result, and is compared with what Richardson-Lucy deconvolution
leaves, which can fit all that the PSF allows.
"""

from dataclasses import dataclass
from typing import Literal

from napari_rln.evaluate.comparison import Comparison, Row

Quality = Literal["good", "fair", "poor"]

_WITHIN_NOISE = 1.2  # chi squared of a result that agrees with its image
_FITS_NOISE = 0.8  # chi squared below which noise is fitted
_NEARLY, _MUCH = 0.02, 0.1  # fractions of what the raw image leaves unexplained
_MORE_THAN_RLD = 1.5  # factor from which a method may have lost or invented structure
_BRIGHTNESS = 0.05  # relative error of the brightness that is mentioned


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison says about one result.

    Attributes
    ----------
    name
        Name of the result.
    text
        A clause with the numbers behind it, such as "explains the image to within its noise".
    quality
        Whether it gives no, some or much reason to doubt the result.
    unexplained
        What it leaves unexplained, as a fraction of what the raw image does.
    """

    name: str
    text: str
    quality: Quality
    unexplained: float


def verdicts(
    comparison: Comparison, rld: str | None = None, *, maybe_too_few: bool = False
) -> tuple[Verdict, ...]:
    """Return the verdicts on the results of a comparison, in the order of its rows.

    Parameters
    ----------
    comparison
        The raw image first, with chi squared, which needs the PSF; else there are no verdicts.
    rld
        Name of the result of Richardson-Lucy deconvolution with which the others are compared.
    maybe_too_few
        Whether more iterations might explain more, as they were not ended by the automatic stop:
        then nothing follows for the PSF.
    """
    raw, *results = comparison.rows
    if raw.chi2 is None or raw.chi2 <= 1:  # a raw image that leaves nothing to explain
        return ()
    left = {row.name: (row.chi2 - 1) / (raw.chi2 - 1) for row in results if row.chi2 is not None}
    best = (rld, left[rld]) if rld is not None and rld in left else None
    return tuple(
        _verdict(row, left[row.name], None if row.name == rld else best, maybe_too_few)
        for row in results
        if row.name in left
    )


def _verdict(
    row: Row, unexplained: float, rld: tuple[str, float] | None, maybe_too_few: bool
) -> Verdict:
    """Return the verdict on a result; ``rld`` is name and share of RLD's, if it is another."""
    assert row.chi2 is not None
    quality: Quality = "good"
    share = _percent(unexplained)
    if row.chi2 < _FITS_NOISE:
        text, quality = "follows the noise of the image: use fewer iterations", "fair"
    elif row.chi2 <= _WITHIN_NOISE:
        text = "explains the image to within its noise"
    elif unexplained >= 1:
        text = "explains the image no better than the raw image does: do not rely on it"
        quality = "poor"
    elif unexplained <= _NEARLY:
        text = f"explains the image nearly to within its noise: leaves {share} of what raw leaves"
    else:
        text = f"leaves {share} of what the raw image leaves unexplained"
        quality = "poor" if unexplained > _MUCH else "fair"
        if rld is not None:
            text += f", {rld[0]} leaves {_percent(rld[1])}"
        if rld is not None and unexplained > _MORE_THAN_RLD * rld[1]:
            text += ": it may have lost or invented structure, see its residual map"
        elif unexplained > _MUCH and not maybe_too_few:
            text += ": the PSF is probably not exact"
        elif unexplained > _MUCH and rld is None:
            text += ": too few iterations, or the PSF is not exact"
    text += f" (\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO} {_number(row.chi2)})"
    scale = row.reblur_scale
    if scale is not None and abs(scale - 1) > _BRIGHTNESS and unexplained < 1:
        text += f"; {_percent(abs(1 - scale))} too {'dim' if scale > 1 else 'bright'}"
    return Verdict(name=row.name, text=text, quality=quality, unexplained=unexplained)


def _number(chi2: float) -> str:
    return f"{chi2:,.0f}" if chi2 >= 1000 else f"{chi2:.3g}"


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    if percent < 0.1:
        return "less than 0.1 %"
    return f"{percent:.1f} %" if percent < 1 else f"{percent:.0f} %"
