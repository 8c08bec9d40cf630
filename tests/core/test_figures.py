import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.evaluate.figure import figure, save_figure
from napari_rln.evaluate.figure_content import Display, FigureSettings
from napari_rln.evaluate.figure_text import fit_text


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


LONG = "HeLa_cells_widefield_60x_NA1.2_488nm_position-003.ome.tif"
GREENS = np.linspace(0, 1, 256)[:, None] * np.array([0, 1, 0, 0]) + [0, 0, 0, 1]


def test_colours_and_limits_are_those_given(volumes):
    displays = [Display((0.0, 50.0), 1.0, GREENS), Display((10.0, 90.0), 0.5, "magma")]
    fig = figure(volumes[:2], displays=displays)
    green, magma = (ax.images[0] for ax in pictures(fig)[::4])
    assert green.get_clim() == (0, 50)
    np.testing.assert_allclose(green.cmap(1.0), (0, 1, 0, 1))
    assert (magma.get_clim(), magma.norm.gamma, magma.cmap.name) == ((10, 90), 0.5, "magma")
    (note,) = [text.get_text() for text in fig.texts if "range" in text.get_text()]
    assert "0.0 to 50.0, 10.0 to 90.0 (gamma 0.5), in the order of the columns" in note


def test_the_line_is_drawn_where_it_lies_and_its_profile_replaces_those_along_the_axes(volumes):
    z, y, x = 6.5 * 0.3, 20.5 * 0.1, 30.5 * 0.1  # middle of the spot
    fig = figure(volumes, line=((z, y, x - 2), (z, y + 0.1, x + 2)))
    first, second = pictures(fig)[0], pictures(fig)[4]
    lines = [line for line in first.lines if len(set(line.get_xdata())) == 2]
    np.testing.assert_allclose(lines[0].get_xydata(), [(x - 2, y), (x + 2, y + 0.1)])
    assert not second.lines
    (plot,) = [ax for ax in fig.axes if ax.get_xlabel()]
    assert [line.get_xdata()[-1] for line in plot.lines] == pytest.approx([np.hypot(4, 0.1)] * 3)
    aside = figure(volumes, line=((z + 1, y, x - 2), (z + 1, y, x + 2)))  # not in the plane shown
    assert not [line for line in pictures(aside)[0].lines if len(set(line.get_xdata())) == 2 and
                line.get_xdata()[0] == x - 2]  # fmt: skip
    with pytest.raises(RlnError, match="length 0"):
        figure(volumes, line=((z, y, x), (z, y, x)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FigureSettings(), "One plane."),
        (FigureSettings(slab_um=0.6), "Slab 0.6 µm, mean (planes: 3 in xy, 7 in xz)."),
        (FigureSettings(projection="max"), "Maximum projection (planes: 12 in xy, 40 in xz)."),
        (FigureSettings(projection="max", slab_um=0.6), "Slab 0.6 µm, maximum projection"),
    ],
)
def test_thickness_and_kind_of_the_slab_are_stated(volumes, settings, words):
    assert any(words in text.get_text() for text in figure(volumes, settings=settings).texts)


def test_a_name_is_wrapped_and_only_its_middle_left_out():
    whole = fit_text(LONG, 2, 7.5, 3)
    assert whole.replace("\n", "") == LONG
    assert "1.2" in whole  # a number is not divided
    short = fit_text(f"{LONG} · RLD 40 iterations", 1, 7.5, 2)
    assert short.startswith("HeLa")
    assert short.endswith("iterations")
    assert "\N{HORIZONTAL ELLIPSIS}" in short
    assert len(short.split("\n")) == 2


def test_text_stays_text_and_dollars_stay_dollars(tmp_path, volumes):
    named = [v.with_data(v.data, name=f"a$b$ {i}") for i, v in enumerate(volumes)]
    kinds = ("svg.fonttype", "pdf.fonttype")
    before = [matplotlib.rcParams[kind] for kind in kinds]
    fig = figure(named)
    save_figure(fig, tmp_path / "figure.svg")
    save_figure(fig, tmp_path / "figure.pdf")
    assert [matplotlib.rcParams[kind] for kind in kinds] == before
    svg = (tmp_path / "figure.svg").read_text()
    assert len(re.findall(r"<text[^>]*>a\$b\$ 0<", svg)) == 2  # title and table
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf


def test_a_missing_folder_is_named(tmp_path, volumes):
    with pytest.raises(RlnError, match="no folder"):
        save_figure(figure(volumes[:1]), tmp_path / "none" / "figure.png")
