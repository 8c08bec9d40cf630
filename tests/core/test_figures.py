import matplotlib.pyplot as plt
import numpy as np
import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.evaluate.figure import figure, save_figure
from napari_rln.evaluate.figure_content import FigureSettings


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return phantoms.spot_columns()[0]


@pytest.fixture(scope="module")
def truth() -> Volume:
    return phantoms.spot_columns()[1]


def pictures(fig):
    return [ax for ax in fig.axes if ax.images]


def width_um(ax):
    """Return the width of the picture in axes, of which they may show a part."""
    left, right, *_ = ax.images[0].get_extent()
    return right - left


def texts(fig):
    """Return every text outside the pictures but the numbers on axes."""
    yield from fig.texts
    for ax in fig.axes:
        yield from (ax.title, ax.yaxis.label, ax.xaxis.label)
        if ax.get_legend():
            yield from ax.get_legend().get_texts()


def test_drawing_has_every_panel_in_its_true_proportions(volumes, truth):
    fig = figure(volumes, truth=truth, settings=FigureSettings(yz=True))
    shown = pictures(fig)
    assert len(shown) == 4 * 5  # xy, xz, yz and two magnified, for each of four volumes
    width, height = fig.get_size_inches()
    for ax in shown:
        box = ax.get_position()
        across, down = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
        assert box.width * width / (box.height * height) == pytest.approx(across / down)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= 1
        assert box.y1 <= 1
    whole = [ax for ax in shown if np.ptp(ax.get_xlim()) == pytest.approx(width_um(ax))]
    assert len(whole) == 4 * 3
    scales = [ax.get_position().width * width / np.ptp(ax.get_xlim()) for ax in whole]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-4)
    plots = [ax for ax in fig.axes if ax.get_xlabel()]
    assert [len(ax.lines) for ax in plots] == [4, 4]
    assert not plt.get_fignums()  # nothing of pyplot's global state was touched


@pytest.mark.parametrize("count", [1, 2, 3])
def test_axes_and_texts_do_not_overlap(volumes, truth, count):
    fig = figure(
        [
            v.with_data(v.data, name=f"a rather long name for volume {i}")
            for i, v in enumerate(volumes[:count])
        ],
        truth=truth,
        settings=FigureSettings(title="A title"),
    )
    fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    written = [text for text in texts(fig) if text.get_text()]
    places = [text.get_window_extent(renderer) for text in written]
    boxes = [ax.get_window_extent(renderer) for ax in fig.axes if ax.images or ax.lines]
    for i, (text, place) in enumerate(zip(written, places, strict=True)):
        assert not any(place.overlaps(other) for other in [*places[:i], *boxes]), text
        assert place.x0 >= 0
        assert place.x1 <= fig.bbox.x1
        assert place.y0 >= 0
        assert place.y1 <= fig.bbox.y1
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_scale_bars_fit_what_they_measure(volumes):
    fig = figure(volumes)
    fig.canvas.draw()
    bars = [bar for ax in fig.axes for bar in ax.artists]
    assert [bar.info.length_px for bar in bars] == [1, 0.2]  # of 6 um, and of an inset of 1 um
    assert [bar.info.value for bar in bars] == [1, 0.2]
    assert {bar.info.units for bar in bars} == {"um"}


def test_inset_and_profile_can_be_left_out(volumes):
    settings = FigureSettings(inset_um=0.0, profile=False)
    fig = figure(volumes, settings=settings)
    assert len(fig.axes) == len(pictures(fig)) == 3 * 2


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_a_figure_is_saved_whole(tmp_path, volumes, ending, magic):
    path = tmp_path / f"figure.{ending}"
    save_figure(figure(volumes[:2], settings=FigureSettings(dpi=60)), path)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_a_single_plane_has_no_axial_rows(volumes):
    flat = [v.with_data(v.data[6:7]) for v in volumes]
    fig = figure(flat, settings=FigureSettings(yz=True))
    assert len(pictures(fig)) == 3 * 2
    assert len([ax for ax in fig.axes if ax.get_xlabel()]) == 1


def test_a_flat_volume_can_be_shown(volumes):
    empty = volumes[1].with_data(np.zeros_like(volumes[1].data))
    fig = figure([volumes[0], empty])
    fig.canvas.draw()
    assert len(pictures(fig)) == 2 * 4


def test_an_unknown_ending_is_named(tmp_path, volumes):
    with pytest.raises(RlnError, match=r"\.png"):
        save_figure(figure(volumes[:1]), tmp_path / "figure.bmp")
