"""What is measured on a real image without truth, each against numbers known beforehand."""

import csv
import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln import cli
from napari_rln.cli.study_image_command import named_methods
from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import Calibration, Camera
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method, WholeResult
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.evaluate.agreement import AgreementSettings, agreement
from napari_rln.evaluate.bead_shape import bead_centre, bead_shape
from napari_rln.evaluate.figure_content import FigureSettings, figure_content
from napari_rln.evaluate.half_photons import correlate, half_photons, split_photons
from napari_rln.evaluate.reference import Reference, box_of, covered_by
from napari_rln.io.volumes import read, write
from napari_rln.study.leaderboard import rmse, solve_problem
from napari_rln.study.problems import PROBLEMS, find_files
from napari_rln.study.real_data import study_volume
from napari_rln.study.real_data_result import HeadlineSettings, RealStudySettings

VOXEL_UM = phantoms.VOXEL_UM
WHITE = Calibration(camera=Camera(offset=0.0, gain=1.0))


@dataclass(frozen=True, kw_only=True)
class Subtract(Method):
    """The image without its background: nothing is deconvolved, so all can be predicted."""

    kind: ClassVar[str] = "subtract"
    title: ClassVar[str] = "Subtracted"
    needs_psf: ClassVar[bool] = False
    files: ClassVar[tuple] = ()
    tiles: ClassVar[None] = None
    blocks: ClassVar[None] = None

    factor: float = 1.0
    fails: bool = False
    background: float | str = 0.0
    offset: float | str = 0.0
    gain: float | str = 1.0
    repair_image: bool = False
    negatives: str = "keep"
    device: str = "cpu"

    def check(self, image, psf, *, views=1):
        return

    def needed_bytes(self, shape, psf_shape):
        return 0

    def whole(self, observation):
        yield Report(phase="deconvolve", done=1, total=1, seconds=0.0)
        if self.fails:
            raise ComputeError("out of luck")
        light = observation.image.data - np.float32(observation.calibration.background)
        return WholeResult(np.float32(self.factor) * light, {"iterations": 7})


def volume(data, name="volume") -> Volume:
    return Volume.from_array(np.asarray(data, np.float32), VOXEL_UM, name=name)


# Halves of the photons


def test_halves_hold_each_photon_once_and_their_noise_is_independent():
    counts = np.random.default_rng(0).poisson(40.0, (24, 48, 48))
    halves = split_photons(volume(counts), WHITE, seed=1)
    np.testing.assert_array_equal(halves.first + halves.second, counts)
    for half in halves[:2]:
        assert half.mean() == pytest.approx(20, rel=0.01)
        assert half.var() == pytest.approx(20, rel=0.02)
    assert abs(np.corrcoef(halves.first.ravel(), halves.second.ravel())[0, 1]) < 0.015
    again = split_photons(volume(counts), WHITE, seed=1)
    np.testing.assert_array_equal(again.first, halves.first)
    assert not np.array_equal(split_photons(volume(counts), WHITE, seed=2).first, halves.first)


def test_halves_are_in_photons_whatever_the_camera():
    counts = np.random.default_rng(0).poisson(40.0, (24, 48, 48))
    camera = Camera(offset=100.0, gain=2.5)
    calibration = Calibration(camera=camera, background=100 + 2.5 * 10)
    halves = split_photons(volume(100 + 2.5 * counts), calibration, seed=1)
    assert halves.first.mean() == pytest.approx(20, rel=0.01)
    assert halves.calibration.background == pytest.approx(5)
    assert halves.calibration.camera == Camera(offset=0.0, gain=1.0)
    assert abs(np.corrcoef(halves.first.ravel(), halves.second.ravel())[0, 1]) < 0.015


def test_correlated_noise_is_independent_in_the_halves_too():
    counts = np.random.default_rng(0).poisson(100.0, (24, 64, 65)).astype(np.float32)
    smooth = (counts[..., 1:] + counts[..., :-1]) / 2
    coloured = replace(WHITE, spectrum=Spectrum(correlations=((), (), (0.5,))))
    halves = split_photons(volume(smooth), coloured, seed=1)
    assert halves.first.mean() == pytest.approx(50, rel=0.01)
    assert halves.first.var() == pytest.approx(25, rel=0.05)  # half of that of independent noise
    assert abs(np.corrcoef(halves.first.ravel(), halves.second.ravel())[0, 1]) < 0.03
    # Split photon by photon, both halves would contain the same noise.
    thinned = split_photons(volume(smooth), WHITE, seed=1)
    assert np.corrcoef(thinned.first.ravel(), thinned.second.ravel())[0, 1] < -0.2


def test_an_image_without_photon_noise_has_no_halves():
    unknown = replace(WHITE, camera=Camera(gain_from="assumed"))
    with pytest.raises(RlnError, match=r"no photon noise.*`gain`"):
        split_photons(volume(np.ones((8, 8, 8))), unknown)


def test_the_correlation_of_halves_is_that_of_their_signal_and_noise():
    # White structure of variance v on a mean of m photons: v / (v + 2 m) at every frequency.
    rng = np.random.default_rng(3)
    mean, deviation = 60.0, 12.0
    rate = mean + deviation * rng.standard_normal((32, 48, 48)).clip(-3, 3)
    halves = split_photons(volume(rng.poisson(rate)), WHITE)
    lateral, axial = correlate(*(volume(half) for half in halves[:2]))
    expected = deviation**2 / (deviation**2 + 2 * mean)
    assert np.mean(lateral.correlation[3:]) == pytest.approx(expected, abs=0.03)
    assert np.mean(axial.correlation[1:]) == pytest.approx(expected, abs=0.03)
    assert lateral.resolution_um == pytest.approx(2 * VOXEL_UM[1])  # never falls below 1/7


def test_results_of_the_halves_add_up_to_that_of_the_image():
    image = phantoms.noisy_image(phantoms.spots((16, 32, 32), level=300.0), phantoms.gaussian_psf())
    found = half_photons(image, None, Subtract(background=10.0))
    total = found.results[0].data + found.results[1].data
    np.testing.assert_allclose(total, image.data - 10, atol=1e-3)
    assert found.results[0].record.facts["background"] == 5
    assert "gain was given" in found.cautions[0]


def test_noise_alone_does_not_repeat_and_more_photons_do():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots((16, 40, 40), level=1.0)
    method = RichardsonLucy(iterations=10, device="cpu", background=10.0, offset=0.0, gain=1.0)
    resolutions = []
    for level in (40.0, 4000.0):
        image = phantoms.noisy_image(level * truth, psf)
        resolutions.append(half_photons(image, psf, method).lateral_um)
    assert resolutions[0] > 1.3 * resolutions[1]
    thin = volume(np.random.default_rng(0).poisson(50.0, (4, 32, 32)))
    assert half_photons(thin, None, Subtract()).axial is None


# Agreement


@pytest.fixture(scope="module")
def light() -> Volume:
    return volume(phantoms.spots((16, 32, 32), level=500.0), "a")


def copies(light, count) -> list[Volume]:
    return [replace(light, name=name) for name in "abcde"[:count]]


def test_identical_methods_agree_everywhere(light):
    found = agreement(copies(light, 4))
    assert found.spread.data.max() == 0
    assert found.typical_spread == 0
    for alone in found.alone:
        assert (alone.added, alone.missing, alone.voxels) == (0, 0, 0)
        assert not alone.map.data.any()


def test_a_spot_that_one_method_adds_is_its_own_and_nobody_elses(light):
    results = copies(light, 4)
    spot = np.zeros_like(light.data)
    spot[4:6, 3:5, 3:5] = 400
    results[2] = results[2].with_data(light.data + spot)
    found = agreement(results)
    mine = found.alone[2]
    assert mine.name == "c"
    assert mine.added == pytest.approx(spot.sum() / light.data.sum(), rel=1e-5)
    assert mine.missing == 0
    np.testing.assert_array_equal(mine.map.data > 0, spot > 0)
    for other in (found.alone[i] for i in (0, 1, 3)):
        assert (other.added, other.missing, other.voxels) == (0, 0, 0)
    # Light that it lacks is counted as such.
    results[2] = results[2].with_data(light.data * (1 - (light.data > 300)))
    lacking = agreement(results).alone[2]
    lost = light.data[light.data > 300].sum() / light.data.sum()
    assert lacking.missing == pytest.approx(lost, rel=1e-5)
    assert lacking.added == 0
    assert lacking.map.data.min() < 0


def test_the_spread_is_the_robust_deviation_over_the_level():
    flat = [volume(np.full((8, 8, 8), value)) for value in (90.0, 95.0, 100.0, 105.0, 110.0)]
    found = agreement(flat)
    assert found.spread.data == pytest.approx(1.4826 * 5 / 100)
    assert found.typical_spread == pytest.approx(1.4826 * 5 / 100)
    # Where all are dark, the floor keeps small differences small.
    dark = [volume(np.where(np.arange(8) < 4, v.data, v.data / 1e4)) for v in flat]
    quiet = agreement(dark, settings=AgreementSettings(level_um=0.0, floor=10.0))
    assert quiet.spread.data[..., -1] == pytest.approx(1.4826 * 5e-4 / 10)


def test_brightness_counts_unless_it_is_fitted(light):
    results = [*copies(light, 3), light.with_data(1.5 * light.data + 20, name="bright")]
    assert agreement(results).alone[3].added > 0.3
    fitted = agreement(results, fit=True).alone[3]
    assert fitted.added == pytest.approx(0, abs=1e-6)


def test_two_methods_have_a_spread_but_none_is_alone(light):
    found = agreement([light, light.with_data(1.1 * light.data)])
    assert found.alone == ()
    assert found.typical_spread > 0
    with pytest.raises(RlnError, match="at least two"):
        agreement([light])
    with pytest.raises(RlnError, match="no light"):
        agreement([light.with_data(0 * light.data)] * 2)


# Reference


def test_likeness_to_a_reference_is_free_of_scale_and_offset():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((12, 24, 24))
    other = rng.standard_normal(truth.shape)
    reference = Reference.of(volume(700 + 50 * truth), np.s_[0:12, 2:22, 2:22], threshold=700.0)
    scores = reference.scores(volume(3 * truth + 4 * other - 5))
    assert scores["r"] == pytest.approx(0.6, abs=0.03)  # 3 / sqrt(3^2 + 4^2)
    assert scores["nrmse"] == pytest.approx(math.sqrt(1 - scores["r"] ** 2), rel=1e-4)
    assert reference.inside.mean() == pytest.approx(0.5, abs=0.02)
    assert scores["r_inside"] < scores["r"]  # of half of the range
    alike = reference.scores(volume(9 * truth))
    assert alike["r"] == pytest.approx(1)
    assert alike["reference_axial_um"] == pytest.approx(2 * VOXEL_UM[0])


def test_auto_separates_object_and_dark():
    data = np.random.default_rng(0).normal(100, 5, (12, 24, 24))
    data[4:8, 6:18, 6:18] += 900
    found = Reference.of(volume(data), np.s_[0:12, 0:24, 0:24])
    assert found.inside[4:8, 6:18, 6:18].all()
    assert found.inside.sum() < 1.02 * 4 * 12 * 12
    with pytest.raises(RlnError, match="no contrast"):
        Reference.of(volume(0 * data), np.s_[0:12, 0:24, 0:24])


def test_what_a_moved_reference_does_not_cover_is_left_out():
    reference = volume(np.ones((10, 20, 20)), "confocal")
    matrix = np.eye(4)  # from the image to the reference, between its voxels
    matrix[:3, 3] = np.multiply((1.6, 0, -2.6), VOXEL_UM)
    record = Record(method="register", facts={"matrix": matrix.tolist()})
    covered = covered_by(reference, replace(reference, record=record))
    expected = np.zeros(reference.shape, bool)
    expected[:8, :, 3:] = True
    np.testing.assert_array_equal(covered, expected)
    assert box_of(covered) == np.s_[0:8, 0:20, 3:20]
    with pytest.raises(RlnError, match="no part"):
        box_of(np.zeros((4, 4, 4), bool))


# Figure


def test_each_column_may_have_its_own_scale_and_arrows_lie_in_their_plane():
    volumes, truth = phantoms.spot_columns()
    look = FigureSettings(contrast="own", position=(6, 20, 30), arrows=((1.95, 1.0, 2.0),))
    view = figure_content(volumes, truth=truth, settings=look)
    shown = view.columns[1].pictures
    values = np.concatenate([shown["xy"].ravel(), shown["xz"].ravel()])
    assert view.columns[1].limits == pytest.approx(tuple(np.percentile(values, [0.2, 99.8])))
    assert view.columns[1].limits != view.columns[2].limits
    assert view.arrows == {"xy": ((2.0, 1.0),), "xz": ()}  # 1 um beside the axial plane
    with pytest.raises(RlnError, match=r"`arrows`.*outside"):
        figure_content(volumes, settings=FigureSettings(arrows=((9.0, 1.0, 1.0),)))


# The whole study


@pytest.fixture(scope="module")
def scene():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots((16, 32, 32), level=300.0)
    return phantoms.noisy_image(truth, psf), psf, volume(truth, "confocal")


METHODS = {
    "RLD 2": RichardsonLucy(iterations=2, device="cpu", background=10.0, offset=0.0, gain=1.0),
    "RLD 5": RichardsonLucy(iterations=5, device="cpu", background=10.0, offset=0.0, gain=1.0),
    "none": Subtract(background=10.0),
}
SETTINGS = RealStudySettings(background=10.0, offset=0.0, gain=1.0)


def test_a_study_of_a_volume(scene, tmp_path):
    image, psf, truth = scene
    other = volume(2.0 * truth.data + 77, "program")
    study = study_volume(
        image, psf, METHODS, reference=truth, others=[other],
        settings=replace(SETTINGS, halves=True, inside=50.0),
    )  # fmt: skip
    rows = {row["name"]: row for row in study.rows}
    assert list(rows) == ["image", "RLD 2", "RLD 5", "none", "program"]
    assert [row["kind"] for row in study.rows] == ["image", *["method"] * 3, "other"]
    assert rows["RLD 5"]["iterations"] == 5
    assert rows["RLD 5"]["r"] > rows["RLD 2"]["r"] > rows["image"]["r"]
    assert rows["none"]["r"] == pytest.approx(rows["image"]["r"])
    assert rows["RLD 5"]["chi2"] == pytest.approx(1, abs=0.3)
    assert rows["image"]["chi2"] > 1.5
    # The other program shows the truth, in its own unit.
    assert rows["program"]["r"] == pytest.approx(1)
    assert rows["program"]["reblur_scale"] < 0.8
    assert any("program" in note for note in study.notes)
    assert rows["none"]["alone_missing"] > rows["RLD 5"]["alone_missing"]
    # Nothing is deconvolved: halves of the image and of its result are the same.
    for key in ("halves_lateral_um", "halves_axial_um"):
        assert rows["none"][key] == pytest.approx(rows["image"][key], rel=0.02)
        assert rows["RLD 5"][key] is not None
    assert set(study.halves) == set(METHODS)
    assert "error" not in study.columns

    files = study.save(tmp_path, look=HeadlineSettings(dpi=60))
    assert all(file.is_file() for file in files)
    assert sorted(file.name for file in files) == [
        "agreement.ome.tif", "figure.png", "image-study.json", "result-none.ome.tif",
        "result-rld-2.ome.tif", "result-rld-5.ome.tif", "table.csv",
    ]  # fmt: skip
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [float(row["r"]) for row in written] == [row["r"] for row in study.rows]
    assert written[0]["seconds"] == ""
    described = json.loads((tmp_path / "image-study.json").read_text(encoding="utf-8"))
    assert described["notes"] == list(study.notes)
    maps = tifffile.imread(tmp_path / "agreement.ome.tif")
    assert maps.shape == (1 + 4, *image.shape)
    np.testing.assert_array_equal(maps[0], study.agreement.spread.data)
    assert read(tmp_path / "result-rld-2.ome.tif").record.facts["iterations"] == 2


def test_only_the_box_is_shown_and_compared(scene):
    image, psf, truth = scene
    settings = replace(SETTINGS, box=((2, 14), (4, 28), (0, 30)))
    study = study_volume(image, psf, {"none": METHODS["none"]}, reference=truth, settings=settings)
    part = np.s_[2:14, 4:28, 0:30]
    expected = np.corrcoef(image.data[part].ravel(), truth.data[part].ravel())[0, 1]
    assert study.rows[0]["r"] == pytest.approx(expected)
    assert study.agreement is None  # of a single method
    look = HeadlineSettings(position=(8, 16, 16), arrows=((1.7, 1.65, 1.65),), dpi=60)
    first = study.headline(look).axes[0]
    assert first.images[0].get_array().shape == (24, 30)
    (arrow,) = (text for text in first.texts if hasattr(text, "arrow_patch"))
    assert arrow.xy == pytest.approx((1.65, 1.65 - 4 * VOXEL_UM[1]))


def test_a_method_that_fails_is_reported_and_the_others_go_on(scene):
    image, psf, _ = scene
    methods = {"bad": Subtract(fails=True), "RLD 2": METHODS["RLD 2"]}
    with pytest.warns(UserWarning, match="bad: out of luck"):
        study = study_volume(image, psf, methods, settings=SETTINGS)
    assert [row["error"] for row in study.rows] == [None, "out of luck", None]
    assert [result.name for result in study.results] == ["RLD 2"]
    assert "error" in study.columns


def test_mistakes_are_named_before_the_work(scene):
    image, psf, truth = scene
    with pytest.raises(RlnError, match="no method"):
        study_volume(image, psf, {})
    with pytest.raises(RlnError, match="'none' names two"):
        study_volume(image, psf, METHODS, others=[replace(truth, name="none")])
    with pytest.raises(RlnError, match="punctuation"):
        study_volume(image, psf, {"RLD 2": METHODS["RLD 2"], "RLD-2": METHODS["RLD 5"]})
    with pytest.raises(RlnError, match="confocal is"):
        study_volume(image, psf, METHODS, reference=truth.with_data(truth.data[1:]))
    too_large = RealStudySettings(box=((0, 99), (0, 9), (0, 9)))
    with pytest.raises(RlnError, match=r"`box` is 0:99 along z"):
        study_volume(image, psf, METHODS, settings=too_large)
    with pytest.raises(RlnError, match="`box` has 5:5"):
        RealStudySettings(box=((5, 5), (0, 9), (0, 9)))
    with pytest.raises(RlnError, match="needs the PSF"):
        study_volume(image, None, METHODS)


# Public problems


def pose(folder, names, arrays) -> None:
    """Write files of a problem: stacks, or folders of planes for names without an ending."""
    for name, array in zip(names, arrays, strict=True):
        data = np.asarray(array, np.float32)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tif"):
            tifffile.imwrite(path, data, photometric="minisblack")
            continue
        path.mkdir()
        for z, plane in enumerate(data):
            tifffile.imwrite(path / f"Z{z:03d}.tif", plane)


@pytest.fixture
def tubes(tmp_path, scene):
    """Microtubules of the expected layout: the error of the raw image is the published one."""
    image, psf, truth = scene
    light = truth.data.astype(np.float64)
    raw = image.data.astype(np.float64)
    factor = 580.0 / rmse(raw, light)
    folder = tmp_path / "microtubules"
    names = ("input.tif", "psf.tif", "sub/ground-truth.tif")
    pose(folder, names, (factor * raw, psf.data, factor * light))
    return folder, factor


def test_a_leaderboard_beside_published_numbers(tubes, tmp_path, scene):
    folder, factor = tubes
    image, _, truth = scene
    background = 10.0 * factor
    methods = {
        "none": Subtract(background=background, gain=factor),
        "RLD 10": replace(METHODS["RLD 2"], iterations=10, background=background, gain=factor),
        "bad": Subtract(fails=True),
    }
    with pytest.warns(UserWarning, match="out of luck"):
        board = solve_problem("epfl-microtubules", folder, methods)
    raw, plain, deconvolved, failed = board.rows
    assert raw["rmse"] == pytest.approx(580, rel=1e-4)
    assert board.measure == "rmse"
    assert plain["rmse"] == pytest.approx(factor * rmse(image.data - 10, truth.data), rel=1e-4)
    assert deconvolved["rmse"] < plain["rmse"]
    assert failed["rmse"] is None
    assert failed["error"] == "out of luck"
    names = [name for _, name, _ in board.ranking]
    assert set(names) >= {"RLD 10", "none", "deconwolf", "Soulez"}
    assert "bad" not in names
    assert [error for error, *_ in board.ranking] == sorted(e for e, *_ in board.ranking)
    assert "can be compared" in " ".join(board.notes)
    board.to_csv(tmp_path / "board.csv")
    with (tmp_path / "board.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    published = PROBLEMS["epfl-microtubules"].published
    assert len(rows) == 4 + len(published)
    assert {r["name"]: r["published_high"] for r in rows if r["source"]}["Huygens"] == "463.0"


def test_numbers_of_other_data_are_not_compared(tubes):
    folder, _ = tubes
    for name in ("input.tif", "sub/ground-truth.tif"):
        tifffile.imwrite(folder / name, 3 * tifffile.imread(folder / name))
    board = solve_problem("epfl-microtubules", folder, {"none": Subtract()})
    assert board.measure is None
    assert "cannot be compared" in " ".join(board.notes)
    assert all(source for *_, source in board.ranking)  # published ones only


def test_errors_after_a_fit():
    truth = np.random.default_rng(0).random((4, 5, 6)) * 100
    assert rmse(truth + 7, truth) == pytest.approx(7)
    assert rmse(2 * truth, truth, "rmse_scaled") == pytest.approx(0, abs=1e-9)
    assert rmse(2 * truth + 7, truth, "rmse_scaled") > 1
    assert rmse(2 * truth + 7, truth, "rmse_fitted") == pytest.approx(0, abs=1e-9)


def test_bars_are_read_from_folders_of_planes(tmp_path, scene):
    image, psf, truth = scene
    names = ("Bars-G10-P15", "PSF-Bars", "Bars")
    pose(tmp_path, names, (image.data, psf.data, truth.data))
    board = solve_problem("epfl-bars", tmp_path, {"none": Subtract(background=10.0)})
    assert [row["image"] for row in board.rows] == ["Bars-G10-P15"] * 2
    assert board.rows[0]["rmse"] == pytest.approx(rmse(image.data, truth.data), rel=1e-5)
    assert board.published == ()
    assert "at hand" in board.notes[0]


def test_a_bead_has_widths_and_a_contrast_but_no_error(tmp_path):
    z, y, x = np.indices((40, 60, 60))
    shape = PROBLEMS["epfl-beads"].voxel_um
    r = np.sqrt(
        ((z - 20) * shape[0]) ** 2 + ((y - 30) * shape[1]) ** 2 + ((x - 31) * shape[2]) ** 2
    )
    shell = 10 + 1000 * np.exp(-(((r - 1.0) / 0.15) ** 2))
    bead = Volume.from_array(shell, shape, name="bead")
    centre = bead_centre(bead)
    assert centre == (20, 30, 31)
    found = bead_shape(bead, centre)
    outer = 2 * (1.0 + 0.15 * math.sqrt(math.log(2)))
    for width in (found.width_z_um, found.width_y_um, found.width_x_um):
        assert width == pytest.approx(outer, abs=0.03)
    assert found.contrast == pytest.approx(1 - 10 / shell.max())
    half_lost = bead.with_data(np.where(z < 20, 0.3 * shell, shell))  # its upper pole is dim
    assert bead_shape(half_lost, centre).width_z_um is None
    assert bead_shape(half_lost, centre).width_x_um == pytest.approx(outer, abs=0.03)
    noisy = np.random.default_rng(0).poisson(shell)
    kernel = np.pad(phantoms.gaussian_psf().data, 8)
    pose(tmp_path, ("Bead.tif", "PSF-Bead.tif"), (noisy, kernel))
    board = solve_problem("epfl-beads", tmp_path, {"none": Subtract(background=10.0)})
    assert board.rows[1]["width_x_um"] == pytest.approx(outer, abs=0.1)
    assert board.rows[1]["contrast"] > board.rows[0]["contrast"]
    assert all(row["rmse"] is None for row in board.rows)
    assert "no ground truth" in " ".join(board.notes)


def test_missing_and_ambiguous_files_are_named(tubes, tmp_path):
    folder, _ = tubes
    (folder / "psf.tif").rename(folder / "away.dat")
    with pytest.raises(RlnError, match=r"no psf\.tif, the PSF.*'Microtubules'.*EPFL"):
        find_files("epfl-microtubules", folder)
    (folder / "away.dat").rename(folder / "psf.tif")
    (folder / "again").mkdir()
    (folder / "again" / "PSF.tif").write_bytes(b"")
    with pytest.raises(RlnError, match=r"several psf\.tif"):
        find_files("epfl-microtubules", folder)
    with pytest.raises(RlnError, match=r"no image Bars-G10-P15-stack\.tif"):
        find_files("epfl-bars", folder)
    with pytest.raises(RlnError, match="no folder"):
        find_files("epfl-beads", tmp_path / "nowhere")
    with pytest.raises(RlnError, match="no problem 'epfl-cells'"):
        solve_problem("epfl-cells", folder, {"none": Subtract()})


# Commands


def run(*tokens) -> int:
    return cli.run([str(token) for token in tokens])


@pytest.fixture
def files(scene, tmp_path):
    image, psf, truth = scene
    program = truth.with_data(2 * truth.data, name="program")
    for name, one in (("raw", image), ("psf", psf), ("confocal", truth), ("program", program)):
        write(one, tmp_path / f"{name}.ome.tif")
    return {name: tmp_path / f"{name}.ome.tif" for name in ("raw", "psf", "confocal", "program")}


def test_study_image_from_files(files, tmp_path, capsys):
    out = tmp_path / "study"
    tokens = (
        "study-image", files["raw"], "--psf", files["psf"], "--methods", "rld-5", "rld-9",
        "--other", files["program"], "--reference", files["confocal"], "--inside", "50",
        "--box", "0:16", "2:30", "2:30", "--arrows", "1.6", "1.0", "1.2", "--dpi", "60", "-o", out,
    )  # fmt: skip
    assert run(*tokens, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == ["raw", "RLD 5", "RLD 9", "program"]
    assert report["box"] == [[0, 16], [2, 30], [2, 30]]
    assert report["rows"][2]["iterations"] == 9
    assert "exceeds 50 (as given)" in " ".join(report["notes"])
    assert (out / "figure.png").stat().st_size > 5_000
    assert run(*tokens) == 1
    assert "already exists" in capsys.readouterr().err
    assert run(*tokens, "--overwrite") == 0
    assert "Likeness to the reference" in capsys.readouterr().out


def test_a_public_problem_from_a_folder(tubes, tmp_path, capsys):
    folder, _ = tubes
    tokens = ("study", "--problem", "epfl-microtubules", "--data", folder, "--methods", "rld-3")
    assert run(*tokens, "-o", tmp_path / "board") == 0
    said = capsys.readouterr().out
    assert "Soulez" in said
    assert "458 to 463" in said
    assert "Ranking by the error without a fit" in said
    assert (tmp_path / "board" / "leaderboard.csv").is_file()
    assert run("study", "--problem", "epfl-bars", "--data", folder) == 1
    assert "has no image" in capsys.readouterr().err


def test_words_name_methods(tmp_path):
    named = named_methods(("rld", "rld-25", "rld-wb", "rld-tv", "rln:universal"), "cpu")
    assert list(named) == ["RLD auto", "RLD 25", "WB auto", "RL-TV auto", "RLN universal"]
    assert named["RLD 25"].iterations == 25
    assert named["WB auto"].back_projector == "wiener-butterworth"
    assert {method.device for method in named.values()} == {"cpu"}
    more = named_methods(("rld-plain-periodic-2000", "rld-consensus-50", "wiener", "rln"))
    assert list(more) == ["plain periodic RLD 2000", "RLGC 50", "Wiener", "RLN"]
    plain = more["plain periodic RLD 2000"]
    assert (plain.iterations, plain.border, plain.acceleration) == (2000, "periodic", "none")
    assert more["RLGC 50"].consensus
    for word in ("rld-0x", "rld-tv-wb", "rldtv"):
        with pytest.raises(RlnError, match=f"{word}, which is no method; give rld, rld-plain"):
            named_methods((word,))
    with pytest.raises(RlnError, match="nonsense, which is no method"):
        named_methods(("nonsense",))
    with pytest.raises(RlnError, match="rld twice"):
        named_methods(("rld", "rld"))
