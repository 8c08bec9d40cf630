import numpy as np
import phantoms
import pytest
from scipy.ndimage import gaussian_filter

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.evaluate.figure_content import FigureSettings, figure_content
from napari_rln.evaluate.plane_sections import round_length
from napari_rln.evaluate.profiles import profile_between

VOXEL_UM = (0.3, 0.1, 0.1)
SPOT = (6, 20, 30)


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return phantoms.spot_columns()[0]


@pytest.fixture(scope="module")
def truth() -> Volume:
    return phantoms.spot_columns()[1]


def test_planes_cross_in_the_brightest_structure_of_the_first_result(volumes):
    view = figure_content(volumes)
    np.testing.assert_allclose(
        view.position_um, [(p + 0.5) * d for p, d in zip(SPOT, VOXEL_UM, strict=True)]
    )
    assert view.extent_um == pytest.approx((3.6, 4.0, 6.0))
    column = view.columns[1]
    np.testing.assert_array_equal(column.pictures["xy"], volumes[1].data[SPOT[0]])
    np.testing.assert_array_equal(column.pictures["xz"], volumes[1].data[:, SPOT[1]])
    assert list(column.pictures) == ["xy", "xz"]


def test_a_hot_voxel_or_a_bright_border_is_not_taken_for_structure(volumes):
    data = volumes[1].data.copy()
    data[3, 10, 12] += 320
    data[:, 0] += 2000
    view = figure_content([volumes[0], volumes[1].with_data(data)])
    np.testing.assert_allclose(
        view.position_um, [(p + 0.5) * d for p, d in zip(SPOT, VOXEL_UM, strict=True)]
    )


def test_results_share_one_scale_and_raw_and_truth_have_their_own(volumes, truth):
    raw, first, second, true = figure_content(volumes, truth=truth).columns
    assert first.limits == second.limits
    assert len({raw.limits, first.limits, true.limits}) == 3
    assert [c.role for c in (raw, first, second, true)] == ["raw", "result", "result", "truth"]
    shown = np.concatenate([second.pictures["xy"].ravel(), second.pictures["xz"].ravel()])
    assert second.limits[1] == pytest.approx(np.percentile(shown, 99.8))


@pytest.mark.parametrize("position", [(0, 0, 0), (11, 39, 59), (5, 3, 58)])
def test_the_inset_stays_inside_and_holds_the_position(volumes, position):
    view = figure_content(volumes, settings=FigureSettings(position=position, inset_um=1.4))
    for (start, stop), at, extent in zip(
        view.inset_um, view.position_um, view.extent_um, strict=True
    ):
        assert stop - start == pytest.approx(1.4)
        assert -1e-9 <= start <= at <= stop <= extent + 1e-9


def test_the_inset_of_a_thin_stack_is_as_thick_as_the_stack(volumes):
    thin = [v.with_data(v.data[5:7]) for v in volumes]
    view = figure_content(thin, settings=FigureSettings(inset_um=2.0))
    assert view.inset_um[0] == pytest.approx((0, 0.6))
    assert view.inset_um[2][1] - view.inset_um[2][0] == pytest.approx(2)


@pytest.mark.parametrize(
    ("longest", "expected"),
    [(1.0, 1), (1.99, 1), (2.0, 2), (4.9, 2), (5.1, 5), (9.99, 5), (0.0451, 0.02), (730, 500)],
)
def test_scale_bars_have_round_lengths(longest, expected):
    assert round_length(longest) == expected


def test_fwhm_of_a_gaussian_is_exact(volumes):
    for column, sigma_um in zip(figure_content(volumes).columns[1:], (0.3, 0.2), strict=True):
        expected = 2 * np.sqrt(2 * np.log(2)) * sigma_um
        assert column.profiles["x"].fwhm_um == pytest.approx(expected, rel=0.02)
        assert column.profiles["z"].fwhm_um == pytest.approx(expected, rel=0.1)
        assert column.profiles["x"].value.max() == 1
        assert column.profiles["x"].offset_um[np.argmax(column.profiles["x"].value)] == 0


def test_no_fwhm_of_a_cut_or_a_double_peak(volumes):
    position = (SPOT[0], SPOT[1], SPOT[2])
    double = (
        volumes[0].data + np.roll(volumes[2].data, 3, axis=2) + np.roll(volumes[2].data, -3, axis=2)
    )
    settings = FigureSettings(position=position)
    two = figure_content([volumes[0].with_data(double)], settings=settings)
    assert two.columns[0].profiles["x"].fwhm_um is None
    cut = figure_content(
        [v.with_data(v.data[:, :, 30:]) for v in volumes[:1]],
        settings=FigureSettings(position=(SPOT[0], SPOT[1], 0)),
    )
    assert cut.columns[0].profiles["x"].fwhm_um is None


def test_projection_and_slab(volumes):
    data = volumes[1].data
    whole = figure_content(volumes, settings=FigureSettings(projection="max", yz=True)).columns[1]
    np.testing.assert_array_equal(whole.pictures["xy"], data.max(0))
    np.testing.assert_array_equal(whole.pictures["yz"], data.max(2))
    slab = figure_content(volumes, settings=FigureSettings(slab_um=0.6)).columns[1]
    np.testing.assert_allclose(slab.pictures["xy"], data[5:8].mean(0), rtol=1e-6)
    np.testing.assert_allclose(slab.pictures["xz"], data[:, 17:24].mean(1), rtol=1e-6)


def test_noise_does_not_move_the_planes_far(volumes):
    noise = np.random.default_rng(0).normal(0, 5, volumes[1].shape)
    noisy = volumes[1].with_data(gaussian_filter(volumes[1].data + noise, 0.3))
    at = np.array(figure_content([volumes[0], noisy]).position_um) / VOXEL_UM - 0.5
    np.testing.assert_allclose(at, SPOT, atol=1.01)


def test_a_single_plane_has_no_axial_pictures(volumes):
    flat = [v.with_data(v.data[6:7]) for v in volumes]
    view = figure_content(flat, settings=FigureSettings(yz=True))
    assert all([*c.pictures, *c.profiles] == ["xy", "x"] for c in view.columns)


def test_a_flat_volume_has_limits(volumes):
    empty = volumes[1].with_data(np.zeros_like(volumes[1].data))
    low, high = figure_content([volumes[0], empty]).columns[1].limits
    assert low < high


def test_bad_input_is_named(volumes):
    with pytest.raises(RlnError, match="no volume"):
        figure_content([])
    with pytest.raises(RlnError, match=r"RL 10.*\(11, 40, 60\)"):
        figure_content([volumes[0], volumes[1].with_data(volumes[1].data[1:])])
    with pytest.raises(RlnError, match=r"\(12, 0, 0\)"):
        figure_content(volumes, settings=FigureSettings(position=(12, 0, 0)))
    with pytest.raises(RlnError, match=r"colormap.*nosuch"):
        FigureSettings(colormap="nosuch")
    with pytest.raises(RlnError, match=r"`gamma`.*0\.0"):
        FigureSettings(gamma=0.0)


def test_a_profile_between_two_points_measures_the_width_of_a_tilted_sheet():
    z, _, x = np.meshgrid(*(np.arange(n) for n in (40, 20, 60)), indexing="ij")
    # A Gaussian sheet, 0.5 um wide, whose normal lies between z and x.
    off = (0.3 * (z - 20) + 0.1 * (x - 30)) / np.sqrt(2)
    data = np.exp(-np.square(off / 0.5) * 4 * np.log(2)).astype(np.float32)
    centre = np.array([20 * 0.3, 10 * 0.1, 30 * 0.1])
    normal = np.array([1, 0, 1]) / np.sqrt(2)
    found = profile_between(data, VOXEL_UM, centre - 2 * normal, centre + 2 * normal)
    assert found.fwhm_um == pytest.approx(0.5, rel=0.03)
    assert found.offset_um[0] == 0
    assert found.offset_um[-1] == pytest.approx(4)
    assert found.offset_um[np.argmax(found.value)] == pytest.approx(2, abs=0.05)


def test_a_line_without_length_is_refused():
    with pytest.raises(RlnError, match="length 0"):
        profile_between(np.ones((2, 2, 2), np.float32), VOXEL_UM, (0, 0, 0), (0, 0, 0))
