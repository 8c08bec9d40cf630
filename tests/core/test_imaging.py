"""Simulated images: the blur is scipy's, the noise Poisson's, and a record makes them again."""

from dataclasses import replace

import numpy as np
import phantoms
import pytest
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.simulate import imaging as module
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import (
    ImagingSettings,
    imaging_like,
    simulate_pair,
)
from napari_rln.simulate.structures import Drawing, StructureSettings

PSF = phantoms.comatic_psf((6, 13, 12))
SHAPE = (16, 24, 25)
BRIGHT = ImagingSettings(photons=(5e6, 5e6), background=(0.1, 0.1), read_noise=(0.0, 0.0))


@pytest.fixture
def objects(monkeypatch):
    """Have a random object drawn, light outside of the field of view too; return it when drawn."""
    drawn = []

    def draw(shape, settings, *, seed, z_ratio, field):
        data = np.random.default_rng(seed).random(shape).astype(np.float32) ** 4
        drawn.append((data, field))
        return Drawing(data=data, structures=("dots",))

    monkeypatch.setattr(module, "draw", draw)
    return drawn


def _blurred(drawn):
    """Return what arrives in the field of view: the sum of shifted PSFs."""
    data, _ = drawn[-1]
    full = fftconvolve(data.astype(float), PSF.data.astype(float))
    return full[tuple(slice(p - 1, p - 1 + n) for p, n in zip(PSF.shape, SHAPE, strict=True))]


def _expected(drawn, level, background):
    """Return the mean number of photons."""
    light = _blurred(drawn)
    return level * (light / np.percentile(light, 99.9) + background)


def test_the_image_is_scipys_convolution_of_the_object_and_its_surroundings(objects):
    pair = simulate_pair(PSF, None, BRIGHT, shape=SHAPE, seed=4)
    mean = _expected(objects, 5e6, 0.1)
    sigmas = (pair.image.data - mean) / np.sqrt(mean)
    assert np.abs(sigmas).max() < 6  # 3 thousandths of the value
    assert sigmas.std() == pytest.approx(1, abs=0.04)
    dark = fftconvolve(objects[-1][0][objects[-1][1]], PSF.data, mode="same")
    assert dark[0, 0, 0] < 0.7 * _blurred(objects)[0, 0, 0]  # the surroundings do matter


def test_the_truth_is_the_object_in_the_field_in_the_images_unit(objects):
    settings = replace(BRIGHT, gain=2.5, offset=7.0)
    pair = simulate_pair(PSF, None, settings, shape=SHAPE)
    data, field = objects[-1]
    scale = 2.5 * 5e6 / np.percentile(_blurred(objects), 99.9)
    np.testing.assert_allclose(pair.truth.data, scale * data[field], rtol=1e-4)
    assert pair.truth.shape == pair.image.shape == SHAPE
    assert pair.truth.voxel_um == pair.image.voxel_um == PSF.voxel_um


@pytest.mark.parametrize(("gain", "offset", "read"), [(1.0, 0.0, 0.0), (2.5, 100.0, 3.0)])
def test_the_variance_is_gain_times_the_mean_and_the_cameras(objects, gain, offset, read):
    settings = ImagingSettings(
        photons=(200.0, 200.0), background=(0.2, 0.2), read_noise=(read, read), gain=gain,
        offset=offset,
    )  # fmt: skip
    pair = simulate_pair(PSF, None, settings, shape=SHAPE, seed=1)
    mean = _expected(objects, 200, 0.2)
    apart = pair.image.data - (gain * mean + offset)
    sigmas = apart / (gain * np.sqrt(mean + read**2))
    assert sigmas.mean() == pytest.approx(0, abs=0.05)
    dim = mean < np.median(mean)
    for part in (dim, ~dim):
        assert sigmas[part].var() == pytest.approx(1, abs=0.08)
    facts = pair.image.record.facts
    assert facts["photons"] == pytest.approx(200)
    assert facts["background"] == pytest.approx(gain * 40 + offset)
    assert facts["read_noise"] == read


def test_ranges_are_drawn_from_per_volume():
    settings = ImagingSettings(photons=(10, 1000), background=(0.05, 0.5), read_noise=(1, 3))
    facts = [
        simulate_pair(PSF, None, settings, shape=(8, 8, 8), seed=seed).image.record.facts
        for seed in range(16)
    ]
    photons = np.array([fact["photons"] for fact in facts])
    assert photons.min() >= 10
    assert photons.max() <= 1000
    assert 1.2 < np.log10(photons).mean() < 2.8
    assert len(set(photons)) == 16
    shares = [fact["background"] / fact["photons"] for fact in facts]
    assert 0.05 <= min(shares) < max(shares) <= 0.5
    assert min(fact["read_noise"] for fact in facts) >= 1


def test_an_image_is_never_negative():
    settings = ImagingSettings(photons=(3, 3), background=(0.01, 0.01), read_noise=(3, 3))
    assert simulate_pair(PSF, None, settings, shape=SHAPE).image.data.min() == 0


def test_a_field_with_nothing_to_see_is_background(monkeypatch):
    monkeypatch.setattr(
        module, "draw", lambda shape, *_, **__: Drawing(data=np.zeros(shape, "f4"), structures=())
    )
    settings = ImagingSettings(photons=(100, 100), background=(0.5, 0.5), read_noise=(0, 0))
    pair = simulate_pair(PSF, None, settings, shape=SHAPE)
    assert pair.image.data.mean() == pytest.approx(50, rel=0.01)
    assert not pair.truth.data.any()


@pytest.mark.parametrize("seed", [3, (1, 2, 3)])
def test_a_pair_is_made_again_from_its_records_json(seed):
    structures = StructureSettings(structures=("dots", "haze"), density=2.0)
    imaging = ImagingSettings(photons=(50, 90), gain=1.7, offset=20)
    pair = simulate_pair(PSF, structures, imaging, shape=SHAPE, seed=seed)
    for volume in (pair.image, pair.truth):
        again = phantoms.simulated_again(Record.from_json(volume.record.to_json()), PSF)
        np.testing.assert_array_equal(again.image.data, pair.image.data)
        np.testing.assert_array_equal(again.truth.data, pair.truth.data)


def test_seeds_give_other_objects_and_other_noise():
    first, second = (simulate_pair(PSF, shape=(8, 8, 8), seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.truth.data, second.truth.data)


# Imitating an image


@pytest.mark.parametrize(
    ("gain", "offset", "read"),
    [(1.0, 0.0, 0.0), (4.0, 0.0, 0.0), (2.0, 100.0, 0.0), (1.0, 0.0, 5.0)],
)
def test_settings_like_an_image_are_those_that_it_was_made_with(gain, offset, read):
    settings = ImagingSettings(
        photons=(300.0, 300.0), background=(0.2, 0.2), read_noise=(read, read), gain=gain,
        offset=offset,
    )  # fmt: skip
    structures = StructureSettings(structures=("spheres", "dots"), at_once=0)
    psf = phantoms.gaussian_psf((15, 15, 15), (1.8, 1.8, 1.8))
    image = simulate_pair(psf, structures, settings, shape=(32, 48, 48), seed=2).image
    found = imaging_like(image)
    assert found.gain == pytest.approx(gain, rel=0.1)
    photons = np.sqrt(found.photons[0] * found.photons[1])
    assert photons == pytest.approx(300, rel=0.25)
    background = np.sqrt(found.background[0] * found.background[1]) * photons
    # Image units; offset and background are told apart only through the noise.
    level = found.gain * background + found.offset
    assert level == pytest.approx(gain * 60 + offset, rel=0.1)
    if read:
        assert found.read_noise[0] == pytest.approx(read, rel=0.3)
    else:
        assert background == pytest.approx(60, rel=0.3)


def test_images_that_tell_no_light_are_not_imitated():
    smooth = Volume.from_array(np.full((8, 16, 16), 5.0), PSF.voxel_um, name="smooth")
    with pytest.raises(RlnError, match=r"smooth.*noise.*`photons`"):
        imaging_like(smooth)


# Conditions in the field

NONE = FieldConditions(
    uneven=0, bleached=0, empty=0, pattern=0, hot=0, hot_pixels=0, saturated=0, interpolated=0,
    no_offset=1, high_offset=0, gain=(1, 1), detectors=(0, 0, 0, 1), bits=(0, 0, 1),
)  # fmt: skip
DIM = ImagingSettings(photons=(300, 300), background=(0.3, 0.3), read_noise=(0, 0))


def _under(settings=DIM, *, seed=2, **changes):
    """Return a pair under conditions, the pair without any, and the drawn conditions."""
    conditions = replace(NONE, **changes)
    pair = simulate_pair(PSF, None, settings, shape=SHAPE, seed=seed, conditions=conditions)
    without = simulate_pair(PSF, None, settings, shape=SHAPE, seed=seed)
    return pair, without, pair.image.record.facts["conditions"]


def test_no_condition_changes_nothing(objects):
    pair, without, _ = _under()
    np.testing.assert_array_equal(pair.image.data, without.image.data)
    np.testing.assert_array_equal(pair.truth.data, without.truth.data)
    assert pair.image.record.facts.items() >= without.image.record.facts.items()


@pytest.mark.parametrize("seed", [3, (1, 2)])
def test_a_pair_under_conditions_is_made_again_from_its_records_json(seed):
    pair = simulate_pair(PSF, shape=SHAPE, seed=seed, psf_b=PSF, conditions=FieldConditions())
    again = phantoms.simulated_again(Record.from_json(pair.image.record.to_json()), PSF, PSF)
    for made, volume in ((again.image, pair.image), (again.truth, pair.truth)):
        np.testing.assert_array_equal(made.data, volume.data)
    np.testing.assert_array_equal(again.second.data, pair.second.data)


def test_images_are_whole_numbers_within_their_bits_and_about_half_have_no_defect():
    rng, shares = np.random.default_rng(0), []
    for _ in range(300):
        drawn = FieldConditions().draw(rng, 900.0)
        defects = (
            drawn.unevenness, drawn.bleaching, drawn.empty, drawn.pixel_gain, drawn.hot,
            drawn.hot_pixels, drawn.saturation, *drawn.shift,
        )  # fmt: skip
        shares.append(any(defects))
        assert drawn.gain * 900 + drawn.offset < 2**drawn.bits
    assert 0.4 < np.mean(shares) < 0.65
    for seed in range(12):
        image = simulate_pair(PSF, shape=(8, 8, 8), seed=seed, conditions=FieldConditions()).image
        np.testing.assert_array_equal(image.data, np.rint(image.data))
        bits = image.record.facts["conditions"]["bits"]
        assert 0 <= image.data.min() <= image.data.max() < 2**bits


@pytest.mark.parametrize(
    ("changes", "excess", "read"),
    [
        ({"detectors": (1, 0, 0, 0), "read_noise": (5, 5)}, 1.0, 5.0),
        ({"detectors": (0, 1, 0, 0)}, 2.0, 0.0),
        ({"detectors": (0, 0, 1, 0), "multiplied": 0}, 1.0, 0.0),
        ({"detectors": (0, 0, 1, 0), "multiplied": 1, "excess": (1.4, 1.4)}, 1.4, 0.0),
    ],
    ids=["sCMOS", "EMCCD", "counting", "multiplying"],
)
def test_each_detector_has_its_noise(objects, changes, excess, read):
    pair, _, drawn = _under(no_offset=0, offset=(100, 100), gain=(4, 4), **changes)
    mean = _expected(objects, 300, 0.3)
    assert (drawn["gain"], drawn["offset"]) == (pytest.approx(4), 100)
    sigmas = (pair.image.data - 4 * mean - 100) / (4 * np.sqrt(excess * mean + read**2))
    assert sigmas.mean() == pytest.approx(0, abs=0.05)
    assert sigmas.var() == pytest.approx(1, abs=0.06)


def test_the_truth_is_in_image_units_without_offset(objects):
    pair, without, _ = _under(no_offset=0, offset=(100, 100), gain=(4, 4))
    np.testing.assert_allclose(pair.truth.data, 4 * without.truth.data, rtol=1e-5)
    np.testing.assert_array_equal(pair.image.data, 4 * without.image.data + 100)
    assert pair.image.record.facts["background"] == pytest.approx(4 * 90 + 100)


def test_an_image_brighter_than_its_bits_gets_a_lower_gain(objects):
    pair, without, drawn = _under(bits=(1, 0, 0), gain=(20, 20))
    assert drawn["gain"] < 1
    assert 150 < pair.image.data.max() <= 255
    np.testing.assert_allclose(pair.truth.data, drawn["gain"] * without.truth.data, rtol=1e-5)


def test_pixels_of_a_pattern_differ_alike_in_all_planes(monkeypatch):
    monkeypatch.setattr(
        module, "draw", lambda shape, *_, **__: Drawing(data=np.zeros(shape, "f4"), structures=())
    )
    settings = replace(DIM, photons=(1e4, 1e4), background=(1, 1))
    camera = {"detectors": (1, 0, 0, 0), "read_noise": (1, 1)}
    plain, _, _ = _under(settings, **camera)
    pair, _, drawn = _under(settings, pattern=1, **camera)
    variances = [one.image.data.mean(0).var() for one in (plain, pair)]
    added = (1e4 * drawn["pixel_gain"]) ** 2 + drawn["pixel_offset"] ** 2
    assert variances[1] - variances[0] == pytest.approx(added, rel=0.2)


def test_an_uneven_background_keeps_its_mean_and_spares_the_truth(objects):
    pair, without, _ = _under(BRIGHT, bits=(0, 0, 1), uneven=1, unevenness=(0.5, 0.5))
    gain = pair.image.record.facts["conditions"]["gain"]
    np.testing.assert_allclose(pair.truth.data, gain * without.truth.data, rtol=1e-5)
    added = (pair.image.data / gain - without.image.data) / 5e5  # relative to the background
    assert added.mean() == pytest.approx(0, abs=0.01)
    assert np.abs(added).max() == pytest.approx(0.5, abs=0.06)
    assert np.abs(np.diff(added, axis=1)).mean() < 0.06


def test_bleaching_dims_image_and_truth_plane_by_plane(objects):
    pairs = [_under(bleached=1, bleaching=(0.4, 0.4), seed=seed) for seed in range(6)]
    assert {drawn["bleaching"] for *_, drawn in pairs} == {0.4, -0.4}
    for pair, without, drawn in pairs:
        expected = 0.6 ** np.linspace(0, 1, SHAPE[0])
        expected = expected if drawn["bleaching"] > 0 else expected[::-1]
        for got, whole, accuracy in (
            (pair.truth, without.truth, 1e-4),
            (pair.image, without.image, 0.03),
        ):
            sums = [volume.data.sum((1, 2)) for volume in (got, whole)]
            np.testing.assert_allclose(sums[0] / sums[1], expected, rtol=accuracy)


def test_an_empty_background_has_one_value(monkeypatch):
    monkeypatch.setattr(
        module, "draw", lambda shape, *_, **__: Drawing(data=np.zeros(shape, "f4"), structures=())
    )
    pair, _, _ = _under(empty=1, detectors=(1, 0, 0, 0), no_offset=0, offset=(30, 30), pattern=1)
    assert np.unique(pair.image.data) == [30]
    assert pair.image.record.facts["background"] == 30


def test_hot_voxels_and_hot_pixels_are_as_many_as_drawn(objects):
    pair, without, _ = _under(hot=1, hot_fraction=(0.01, 0.01))
    hot = pair.image.data != without.image.data
    assert hot.mean() == pytest.approx(0.01, rel=0.4)
    assert (pair.image.data > without.image.data)[hot].all()
    pair, without, _ = _under(hot_pixels=1, hot_fraction=(0.01, 0.01))
    hot = pair.image.data != without.image.data
    assert 1 <= hot[0].sum() <= 18
    np.testing.assert_array_equal(hot, np.broadcast_to(hot[:1], hot.shape))


def test_saturation_clips_the_image_and_not_the_truth(objects):
    pair, without, _ = _under(saturated=1, saturation=(0.7, 0.7), no_offset=0, offset=(50, 50))
    level = np.rint(0.7 * np.percentile(without.image.data, 99.9))
    np.testing.assert_array_equal(pair.image.data, np.minimum(without.image.data, level) + 50)
    np.testing.assert_array_equal(pair.truth.data, without.truth.data)


def test_an_interpolated_image_remains_aligned_with_its_truth():
    smooth = StructureSettings(structures=("spheres",), smooth_voxels=3.0)
    settings = replace(DIM, photons=(2e4, 2e4))
    conditions = replace(NONE, interpolated=1, shift=(0.5, 0.5))
    point = Volume.from_array(np.ones((1, 1, 1)), (1, 1, 1))
    pair, without = (
        simulate_pair(point, smooth, settings, shape=(24, 32, 32), seed=1, conditions=given)
        for given in (conditions, None)
    )
    shift = pair.image.record.facts["conditions"]["shift"]
    assert set(np.abs(shift)) == {0.0, 0.5}
    noise = [one.image.data - one.truth.data for one in (pair, without)]
    inside = np.s_[2:-2, 2:-2, 2:-2]
    assert noise[0][inside].std() < noise[1][inside].std()  # what interpolation does to noise
    moved = np.abs(pair.truth.data - without.image.data)[inside].mean()
    assert np.abs(noise[0] - noise[0].mean())[inside].mean() < moved
    assert pair.truth.data.min() >= 0


# What cannot be


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hot": 1.5}, "`hot` is 1.5"),
        ({"empty": -0.1}, "`empty` is -0.1"),
        ({"bleaching": (0.1, 1.0)}, r"`bleaching` is \(0\.1, 1\.0\).*0\.99"),
        ({"gain": (0.0, 1.0)}, "`gain` is"),
        ({"saturation": (0.9, 0.6)}, "`saturation` is"),
        ({"shift": (0.0, np.nan)}, "`shift` is"),
        ({"detectors": (1.0, 0.0)}, "`detectors` is .* 4 relative frequencies"),
        ({"bits": (0.0, 0.0, 0.0)}, "`bits` is"),
    ],
)
def test_conditions_that_cannot_be_are_refused(given, said):
    with pytest.raises(RlnError, match=said):
        FieldConditions(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"photons": (9.0, 3.0)}, r"`photons` is \(9\.0, 3\.0\)"),
        ({"photons": (0.0, 3.0)}, r"`photons` is .*0\.001"),
        ({"photons": (1.0, np.inf)}, "`photons` is"),
        ({"photons": (np.nan, 3.0)}, "`photons` is"),
        ({"background": (0.0, 0.1)}, "`background` is"),
        ({"background": (-0.1, 0.1)}, "`background` is"),
        ({"read_noise": (-1.0, 0.0)}, "`read_noise` is"),
        ({"gain": 0.0}, "`gain` is 0"),
        ({"gain": np.nan}, "`gain` is nan"),
        ({"offset": -1.0}, "`offset` is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, said):
    with pytest.raises(RlnError, match=said):
        ImagingSettings(**given)


def test_shapes_and_seeds_that_cannot_be_are_refused():
    with pytest.raises(RlnError, match="at least one voxel"):
        simulate_pair(PSF, shape=(8, 0, 8))
    with pytest.raises(RlnError, match="must not be negative"):
        simulate_pair(PSF, shape=(8, 8, 8), seed=-1)
