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


# What cannot be


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
