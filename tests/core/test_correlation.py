import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.evaluate.fourier_shell import ShellCurve, fourier_shell_correlation


def test_lateral_and_axial_resolution_of_a_band_limited_volume():
    rng = np.random.default_rng(2)
    voxel_um = (0.2, 0.1, 0.1)
    truth = rng.normal(size=(48, 64, 64))
    fz, fy, fx = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(truth.shape, voxel_um, strict=True)), indexing="ij"
    )
    kept = (np.hypot(fy, fx) < 1 / 0.4) & (abs(fz) < 1 / 0.8)
    signal = np.fft.ifftn(np.fft.fftn(truth) * kept).real
    result = signal + rng.normal(0, 1e-2, truth.shape)
    lateral = fourier_shell_correlation(result, truth, voxel_um, "lateral")
    axial = fourier_shell_correlation(result, truth, voxel_um, "axial")
    # The window smears the band's edge by about one shell.
    assert axial.resolution_um == pytest.approx(0.8, rel=0.1)
    assert lateral.resolution_um == pytest.approx(0.4, rel=0.1)
    assert (lateral.correlation <= 1 + 1e-12).all()


def test_resolution_without_a_fall_is_the_nyquist_limit():
    truth = np.random.default_rng(0).normal(size=(24, 40, 48))
    curve = fourier_shell_correlation(truth, 2 * truth + 1, (0.3, 0.1, 0.1), "axial")
    assert curve.resolution_um == pytest.approx(0.6)
    np.testing.assert_allclose(curve.correlation, 1)


def test_too_few_planes_are_named():
    thin = np.ones((2, 40, 48))
    with pytest.raises(RlnError, match=r"4 voxels.*\(2, 40, 48\)"):
        fourier_shell_correlation(thin, thin, (1, 1, 1), "axial")


def curve(*correlation, nyquist=5.0):
    """Return a curve at 1, 2, ... cycles per micrometre."""
    frequency = np.arange(1.0, 1 + len(correlation))
    return ShellCurve(
        frequency_per_um=frequency, correlation=np.array(correlation), nyquist_per_um=nyquist
    )


def test_resolution_is_where_the_line_between_two_shells_crosses_a_seventh():
    # From 6/7 at 2 to 0 at 3: 5/6 of the way.
    assert curve(1, 6 / 7, 0, 0).resolution_um == pytest.approx(1 / (2 + 5 / 6))
    # From 1 at 1 to -1 at 2: 3/7 of the way.
    assert curve(1, -1).resolution_um == pytest.approx(1 / (1 + 3 / 7))


def test_resolution_is_that_of_the_first_crossing():
    assert curve(6 / 7, 0, 1, 0).resolution_um == pytest.approx(1 / (1 + 5 / 6))


def test_a_seventh_is_no_fall_and_less_is():
    assert curve(1, 1 / 7, 1 / 7, nyquist=4.0).resolution_um == pytest.approx(1 / 4)
    assert curve(1, 1 / 7 - 1e-9, 1 / 7).resolution_um == pytest.approx(1 / 2)


def test_without_any_agreement_the_resolution_is_the_first_shells_period():
    assert curve(0.1, 1, 1).resolution_um == 1.0


@pytest.mark.parametrize(("direction", "count", "step"), [("axial", 4, 1 / 2.4), ("lateral", 5, 1)])
def test_every_shell_is_what_a_loop_over_frequencies_gives(direction, count, step):
    rng = np.random.default_rng(5)
    voxel_um, shape = (0.3, 0.1, 0.05), (8, 10, 24)
    x, g = rng.normal(size=shape), rng.normal(3, 1, shape)
    x += g
    window = 1.0
    for axis, n in enumerate(shape):
        along = np.sin(np.pi * np.arange(n) / n) ** 2
        window = window * along.reshape([n if a == axis else 1 for a in range(3)])
    a, b = (np.fft.fftn((v - v.mean()) * window) for v in (x, g))
    frequencies = [np.fft.fftfreq(n, d) for n, d in zip(shape, voxel_um, strict=True)]
    shells = {}
    for place in np.ndindex(*shape):
        if place[2] > shape[2] // 2:
            continue  # the other half space
        fz, fy, fx = (f[i] for f, i in zip(frequencies, place, strict=True))
        component = abs(fz) if direction == "axial" else np.hypot(fy, fx)
        if 0 < component <= (0.5 / 0.3 if direction == "axial" else 0.5 / 0.1):
            sums = shells.setdefault(round(component / step), np.zeros(5))
            u, v = a[place], b[place]
            sums += [(u * v.conjugate()).real, abs(u) ** 2, abs(v) ** 2, component, 1]
    found = fourier_shell_correlation(x, g, voxel_um, direction)
    assert found.nyquist_per_um == pytest.approx(0.5 / 0.3 if direction == "axial" else 5)
    assert len(shells) == found.correlation.size == count
    for i, shell in enumerate(sorted(shells)):
        common, of_x, of_g, total, number = shells[shell]
        assert found.correlation[i] == pytest.approx(common / np.sqrt(of_x * of_g), rel=1e-5)
        assert found.frequency_per_um[i] == pytest.approx(total / number)


def test_a_result_that_holds_nothing_agrees_with_nothing():
    truth = np.random.default_rng(0).normal(size=(8, 16, 16))
    found = fourier_shell_correlation(np.zeros_like(truth), truth, (1, 1, 1), "lateral")
    assert not found.correlation.any()
