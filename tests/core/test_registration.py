import functools
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_rln.core.errors import ComputeError, RlnError, RlnWarning
from napari_rln.core.metrics import pearson
from napari_rln.core.volume import Volume
from napari_rln.registration.register import RegistrationSettings, register, register_iter

SHAPE, VOXEL_UM = (20, 48, 48), (0.3, 0.2, 0.2)
SIZE_UM = np.multiply(SHAPE, VOXEL_UM)
SHIFT_UM = (0.8, 1.4, -1.9)
SHIFT_ONLY = RegistrationSettings(transform="translation")


def placement(shift_um=SHIFT_UM, turn=4.0, tilt=1.5, scale=(1.02, 0.98, 1.03)):
    """Return a matrix that turns, scales and moves about the centre of the image's field."""
    matrix, centre = np.eye(4), (SIZE_UM - VOXEL_UM) / 2
    turned = Rotation.from_euler("zx", [tilt, turn], degrees=True).as_matrix()  # of (z, y, x)
    matrix[:3, :3] = turned @ np.diag(scale)
    matrix[:3, 3] = centre + shift_um - matrix[:3, :3] @ centre
    return matrix


def blobs(shape, voxel_um, matrix, seed=0):
    """Return an object of soft blobs as seen through a matrix, without interpolation."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.indices(shape), -1) * voxel_um @ matrix[:3, :3].T + matrix[:3, 3]
    data = np.zeros(shape)
    for _ in range(100):
        squared = np.sum((grid - rng.uniform(-0.2, 1.2, 3) * SIZE_UM) ** 2, -1)
        data += rng.uniform(0.3, 1) * np.exp(-squared / 2 / rng.uniform(0.25, 0.7) ** 2)
    return data


def raw(matrix, seed=0) -> Volume:
    """Return a noisy image of the object on a camera's offset."""
    photons = np.random.default_rng(1).poisson(60 * blobs(SHAPE, VOXEL_UM, matrix, seed) + 20)
    return Volume.from_array(photons + 100, VOXEL_UM, name="raw")


@functools.cache
def confocal(shape=(26, 60, 56), voxel_um=(0.25, 0.17, 0.18), seed=0) -> Volume:
    """Return the object in its own coordinates, on other voxels and of another contrast."""
    data = contrast(blobs(shape, voxel_um, np.eye(4), seed))
    noisy = data + np.random.default_rng(2).normal(0, 60, shape)
    return Volume.from_array(noisy, voxel_um, name="confocal")


def contrast(data):
    return 3000 * data**0.7 + 500


LOW = np.float32(np.percentile(confocal().data, 1))


def error_um(result, matrix):
    """Return how far the found matrix misplaces the corners of the image's central half."""
    corners = np.stack(np.meshgrid(*[(0.25 * s, 0.75 * s) for s in SIZE_UM]), -1).reshape(-1, 3)
    corners = np.c_[corners, np.ones(8)]
    off = corners @ np.transpose(result.record.facts["matrix"]) - corners @ matrix.T
    return np.abs(off[:, :3]).max(0)


@pytest.fixture(scope="module")
def registered():
    """Return an image, the reports and the reference on it after all kinds of transform."""
    pytest.importorskip("SimpleITK")
    image, reports = raw(placement()), []
    steps = register_iter(confocal(), image)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            return image, reports, stop.value


def test_affine_placement_is_found_to_a_fraction_of_a_voxel(registered):
    _, _, result = registered
    assert (error_um(result, placement()) < np.divide(VOXEL_UM, 4)).all()


def test_registered_reference_agrees_with_the_truth_on_the_grid_of_the_image(registered):
    image, _, result = registered
    assert (result.shape, result.voxel_um) == (image.shape, image.voxel_um)
    truth = contrast(blobs(SHAPE, VOXEL_UM, placement()))
    seen = result.data != LOW
    assert pearson(result.data[seen], truth[seen]) > 0.98
    np.testing.assert_allclose(np.median(result.data[seen] / truth[seen]), 1, atol=0.02)


def test_beyond_the_reference_is_its_low_level(registered):
    _, _, result = registered
    covered = result.record.facts["overlap"]
    assert np.mean(result.data == LOW) == pytest.approx(1 - covered, abs=0.02)


def test_record_tells_how(registered):
    image, _, result = registered
    record = result.record
    assert result.name == "confocal · registered"
    assert record.method == "register"
    assert record.settings == {"transform": "affine", "seed": 0}
    assert record.inputs == {"image": image.hash, "reference": confocal().hash}
    facts = record.facts
    np.testing.assert_allclose(facts["shift_um"], SHIFT_UM, atol=0.05)
    assert facts["transform"] == "affine"
    assert abs(facts["similarity_before"]) < 0.4
    assert facts["similarity_after"] > 0.85
    assert facts["similarity_by_chance"] < facts["similarity_after"]
    assert 0.5 < facts["overlap"] < 0.8
    assert record.from_json(record.to_json()) == record


def test_reports_count_up_through_the_kinds_of_transform(registered):
    _, reports, result = registered
    assert [report.done for report in reports] == list(range(1, reports[0].total + 1))
    assert list(dict.fromkeys(r.phase for r in reports)) == ["translation", "rigid", "affine"]
    assert reports[-1].similarity == result.record.facts["similarity_after"]


def test_shift_of_two_fifths_of_the_field_is_found_and_nothing_else():
    pytest.importorskip("SimpleITK")
    matrix = placement((0.3, -0.5, 0.4 * SIZE_UM[2]), 0, 0, (1, 1, 1))
    result = register(confocal((22, 56, 54)), raw(matrix), SHIFT_ONLY)
    assert (error_um(result, matrix) < np.divide(VOXEL_UM, 4)).all()
    np.testing.assert_allclose(np.array(result.record.facts["matrix"])[:3, :3], np.eye(3))


def test_large_turn_of_a_coarser_reference_is_found_without_scaling_it():
    pytest.importorskip("SimpleITK")
    matrix = placement(turn=14, scale=(1, 1, 1))
    reference = confocal((14, 48, 44), (0.5, 0.22, 0.25))
    result = register(reference, raw(matrix), RegistrationSettings(transform="rigid"))
    assert (error_um(result, matrix) < np.divide(VOXEL_UM, 2)).all()
    linear = np.array(result.record.facts["matrix"])[:3, :3]
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-6)


def test_same_seed_gives_the_same_result():
    pytest.importorskip("SimpleITK")
    image = raw(placement())
    first, second = (register(confocal(), image, SHIFT_ONLY) for _ in range(2))
    assert first.record.facts["matrix"] == second.record.facts["matrix"]
    np.testing.assert_array_equal(first.data, second.data)


def test_unrelated_noise_is_refused():
    pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    a, b = (Volume.from_array(rng.normal(size=SHAPE), VOXEL_UM, name=name) for name in "ab")
    with pytest.raises(RlnError, match=r"\ba and b\b"):
        register(a, b)


@pytest.mark.filterwarnings("error::napari_rln.core.errors.RlnWarning")
def test_unrelated_objects_are_refused_or_doubted():
    pytest.importorskip("SimpleITK")
    with pytest.raises((RlnError, RlnWarning), match=r"do not match|by chance"):
        register(confocal(seed=1), raw(placement()))


def test_own_mirror_image_is_placed_but_doubted():
    pytest.importorskip("SimpleITK")

    def ball(centre_um, seed):
        grid = np.stack(np.indices(SHAPE), -1) * VOXEL_UM
        radius = np.linalg.norm(grid - centre_um, axis=-1)
        photons = np.random.default_rng(seed).poisson(100 / (1 + np.exp((radius - 1.5) / 0.2)) + 10)
        return Volume.from_array(photons, VOXEL_UM, name=f"ball {seed}")

    with pytest.warns(RlnWarning, match="by chance"):
        result = register(ball((3.0, 5.0, 4.0), 0), ball((2.6, 4.0, 5.3), 1), SHIFT_ONLY)
    np.testing.assert_allclose(result.record.facts["shift_um"], (0.4, 1.0, -1.3), atol=0.05)


def test_closing_early_is_quiet():
    pytest.importorskip("SimpleITK")
    steps = register_iter(confocal(), raw(placement()))
    for _ in range(8):  # as far as into SimpleITK's part
        report = next(steps)
    steps.close()
    assert 0 < report.done < report.total


def flat(shape=SHAPE, voxel_um=VOXEL_UM) -> Volume:
    return Volume.from_array(np.ones(shape), voxel_um, name="flat")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (flat(), "flat is constant"),
        (flat((1, 48, 48)), "at least 2 voxels along every axis"),
        (confocal((8, 8, 8), (0.25, 0.01, 0.2)), r"confocal.*0\.08 um.*along y.*raw 9\.6 um"),
    ],
)
def test_what_cannot_be_registered_is_refused(reference, message):
    pytest.importorskip("SimpleITK")
    with pytest.raises(RlnError, match=message):
        register(reference, raw(placement()))


def test_missing_simpleitk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(RlnError, match=r"pip install 'napari-rln\[registration\]'"):
        register(confocal(), raw(placement()))


def test_failing_simpleitk_is_a_failed_computation(monkeypatch):
    sitk = pytest.importorskip("SimpleITK")

    def fail(*_):
        raise RuntimeError("sitk::ERROR: no memory")

    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", fail)
    with pytest.raises(ComputeError, match="no memory"):
        register(confocal(), raw(placement()))


def test_settings_are_checked():
    with pytest.raises(RlnError, match=r"`transform`.*elastic"):
        RegistrationSettings(transform="elastic")  # type: ignore[arg-type]
    with pytest.raises(RlnError, match=r"`seed`.*-1"):
        RegistrationSettings(seed=-1)
