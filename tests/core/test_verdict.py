"""Verdicts in words on the results of a comparison."""

import pytest

from napari_rln.evaluate.comparison import CompareSettings, Comparison, Row
from napari_rln.evaluate.verdict import verdicts


def comparison(**results):
    rows = [Row(name="raw", chi2=results.pop("raw"))]
    rows += [
        Row(name=name, chi2=chi2, reblur_scale=scale) for name, (chi2, scale) in results.items()
    ]
    return Comparison(rows=tuple(rows), settings=CompareSettings())


def texts(found):
    return {verdict.name: (verdict.text, verdict.quality) for verdict in found}


def test_a_result_within_the_noise_is_good_and_one_below_it_follows_the_noise():
    found = texts(verdicts(comparison(raw=40.0, a=(1.05, 1.0), b=(0.5, 1.0))))
    assert found["a"] == ("explains the image to within its noise (χ² 1.05)", "good")
    assert found["b"][0].startswith("follows the noise of the image: use fewer iterations")
    assert found["b"][1] == "fair"


def test_what_is_left_is_relative_to_the_raw_image_and_to_rld():
    bright = comparison(raw=1001.0, rld=(61.0, 1.0), net=(181.0, 1.0), near=(71.0, 1.0))
    found = texts(verdicts(bright, "rld"))
    assert found["rld"] == ("leaves 6 % of what the raw image leaves unexplained (χ² 61)", "fair")
    assert found["net"][0].startswith(
        "leaves 18 % of what the raw image leaves unexplained, rld leaves 6 %: it may have lost or "
        "invented structure, see its residual map"
    )
    assert found["net"][1] == "poor"
    assert "residual map" not in found["near"][0]  # hardly more than RLD leaves
    # All leave much: it is the PSF.
    alone = texts(verdicts(comparison(raw=1001.0, rld=(141.0, 1.0)), "rld"))
    assert alone["rld"][0].startswith(
        "leaves 14 % of what the raw image leaves unexplained: the PSF is probably not exact"
    )
    set_by_hand = comparison(raw=1001.0, rld=(141.0, 1.0))
    [found] = verdicts(set_by_hand, "rld", maybe_too_few=True)
    assert "unexplained: too few iterations, or the PSF is not exact" in found.text
    # One that leaves more than another with fewer iterations does not have too few.
    two = comparison(raw=1001.0, rld_10=(101.0, 1.0), rld_400=(121.0, 1.0))
    found = texts(verdicts(two, "rld_10", maybe_too_few=True))
    assert found["rld_400"] == (
        "leaves 12 % of what the raw image leaves unexplained, rld_10 leaves 10 % (χ² 121)", "poor"
    )  # fmt: skip


def test_nearly_all_and_nothing_explained():
    found = texts(verdicts(comparison(raw=351.0, a=(3.0, 1.0), b=(2000.0, 0.07))))
    assert "nearly to within its noise: leaves 0.6 % of what raw leaves" in found["a"][0]
    assert found["b"] == (
        "explains the image no better than the raw image does: do not rely on it (χ² 2,000)", "poor"
    )  # fmt: skip


@pytest.mark.parametrize(("scale", "words"), [(1.1, "10 % too dim"), (0.9, "10 % too bright")])
def test_a_wrong_brightness_is_mentioned(scale, words):
    [found] = verdicts(comparison(raw=40.0, a=(1.0, scale)))
    assert found.text.endswith(words)


def test_without_chi_squared_there_is_no_verdict():
    assert verdicts(Comparison(rows=(Row(name="raw"),), settings=CompareSettings())) == ()
    assert verdicts(comparison(raw=1.0, a=(1.0, 1.0))) == ()
