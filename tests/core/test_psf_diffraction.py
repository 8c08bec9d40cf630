"""Diffraction integrals against direct sums over the aperture, theory and another program."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import special

from napari_rln.psf import diffraction
from napari_rln.psf.diffraction import Optics, intensity

CASES = {  # NA, immersion, sample, depth in um
    "air 0.5": (0.5, 1.0, 1.0, 0.0),
    "water 1.2": (1.2, 1.33, 1.33, 0.0),
    "oil 1.4": (1.4, 1.515, 1.515, 0.0),
    "oil into water": (1.45, 1.515, 1.33, 5.0),
    "water into tissue": (1.2, 1.33, 1.45, 10.0),
}
RADII_UM = np.arange(31) * 0.05
OFFSETS_UM = np.linspace(-3, 3, 21)


def optics(case="oil 1.4", model="vectorial"):
    na, immersion, sample, depth = CASES[case]
    return Optics(model=model, na=na, wavelength_um=0.5, immersion_index=immersion,
                  sample_index=sample, depth_um=depth)  # fmt: skip


def around_focus(o):
    """Positions of the drive on both sides of where paraxial rays meet."""
    return o.depth_um * o.immersion_index / o.sample_index + OFFSETS_UM


def scaled_error(found, expected):
    """Greatest difference over the peak, the arbitrary units fitted."""
    scale = (found * expected).sum() / (found * found).sum()
    return np.abs(scale * found - expected).max() / expected.max()


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_psfmodels_on_both_sides_of_the_focus(case, model):
    psfmodels = pytest.importorskip("psfmodels", reason="no wheels from Python 3.12 on")
    o = optics(case, model)
    compute = {"scalar": psfmodels.scalar_psf, "vectorial": psfmodels.vectorial_psf}[model]
    focus, glass = around_focus(o), max(1.515, o.immersion_index)
    layers = {"NA": o.na, "ni": o.immersion_index, "ni0": o.immersion_index, "ng": glass,
              "ng0": glass, "ns": o.sample_index, "sf": 1}  # fmt: skip
    drive = focus - o.depth_um * (o.immersion_index / o.sample_index - 1)  # as psfmodels counts
    stack = compute(drive, 61, 0.05, o.depth_um, 0.5, layers, normalize=False)
    # Off this line psfmodels interpolates linearly. Beyond the sample index its rule steps over
    # the kink where light turns evanescent; the direct sums below side with us.
    expected, tolerance = stack[:, 30, 30:], 1e-2 if o.na > o.sample_index else 3e-4
    found = intensity(o, focus, RADII_UM)
    assert scaled_error(found, expected) < tolerance
    if o.depth_um:
        assert scaled_error(found[::-1], expected) > 0.1


def direct_sum(o, focus, radii, count=60001):
    """Return the light by the midpoint rule over the angle in the immersion, layer by layer."""
    top = math.asin(o.na / o.immersion_index)
    angle = (np.arange(count) + 0.5) * top / count
    s = o.immersion_index * np.sin(angle)
    cos = [np.emath.sqrt(1 - (s / n) ** 2) for n in (o.immersion_index, 1.515, o.sample_index)]
    k = 2 * np.pi / o.wavelength_um
    path = o.depth_um * o.sample_index * cos[2] - focus * o.immersion_index * cos[0]
    wave = np.exp(1j * k * path) * np.sin(angle) * top / count
    bessel = [special.jv(order, k * s * radii[:, None]) for order in (0, 1, 2)]
    if o.model == "scalar":
        return np.abs(bessel[0] @ (wave * cos[0])) ** 2
    ts, tp = 1.0, 1.0
    n = (o.immersion_index, 1.515, o.sample_index)
    for i, j in ((0, 1), (1, 2)):
        ts = ts * 2 * n[i] * cos[i] / (n[i] * cos[i] + n[j] * cos[j])
        tp = tp * 2 * n[i] * cos[i] / (n[j] * cos[i] + n[i] * cos[j])
    wave = wave * np.sqrt(cos[0])
    fields = (ts + tp * cos[2], tp * s / o.sample_index, ts - tp * cos[2])
    parts = [np.abs(b @ (wave * f)) ** 2 for b, f in zip(bessel, fields, strict=True)]
    return parts[0] + 2 * parts[1] + parts[2]


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
@pytest.mark.parametrize("depth_um", [0.0, 0.2, 5.0])
def test_evanescent_light_counts_as_a_direct_sum_says(depth_um, model):
    o = dataclasses.replace(optics("oil into water", model), depth_um=depth_um)
    focus, radii = 1.2 * depth_um + np.array([-0.4, 0.0, 0.7]), np.array([0.0, 0.1, 0.35])
    found = intensity(o, focus, radii)
    expected = np.array([direct_sum(o, f, radii) for f in focus])
    assert scaled_error(found, expected) < 2e-5  # that of the direct sum, at its kink
    without = intensity(dataclasses.replace(o, na=1.33), focus, radii)
    assert (scaled_error(without, expected) > 0.05) == (depth_um < 1)


@pytest.mark.parametrize("radius_um", [1.5, 40.0])
@pytest.mark.parametrize("case", CASES)
def test_more_nodes_change_nothing(monkeypatch, case, radius_um):
    o, radii = optics(case), np.linspace(0, radius_um, 31)
    focus = around_focus(o)[::5] * (10 if o.depth_um == 0 else 1)
    found = intensity(o, focus, radii)
    monkeypatch.setattr(diffraction, "_RESERVE", 150)
    more = intensity(o, focus, radii)
    np.testing.assert_allclose(found, more, rtol=0, atol=1e-8 * more.max())


def test_scalar_focal_plane_is_the_airy_pattern():
    o = optics("air 0.5", "scalar")
    x = np.maximum(2 * np.pi * o.na / o.wavelength_um * RADII_UM, 1e-9)
    airy = (2 * special.j1(x) / x) ** 2
    found = intensity(o, np.zeros(1), RADII_UM)
    np.testing.assert_allclose(found[0] / found[0, 0], airy, atol=1e-12)


def test_a_mirrored_drive_mirrors_the_light_of_matched_layers():
    o = optics("oil 1.4")
    found = intensity(o, OFFSETS_UM, RADII_UM)
    np.testing.assert_allclose(found, found[::-1], rtol=1e-9)
