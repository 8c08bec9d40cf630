"""Each kind of file that is no PSF is refused everywhere; unusual PSFs are not."""

import numpy as np
import pytest
from scipy import ndimage

from napari_rln import samples
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.in_memory import deconvolve
from napari_rln.networks.network import Network
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import examine_psf, fit_psf, repair_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.placement import find_fault, split_axes
from napari_rln.psf.prepare import check_psf, prepare_psf
from napari_rln.train.training_set import training_set_of
from napari_rln.train.training_settings import TrainSettings

SHAPE = (21, 25, 25)
VOXEL = (0.2, 0.1, 0.1)


def gaussian(shape=SHAPE, centre=(10, 12, 12), sigma=(2.0, 1.5, 1.5)):
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - c) / s) ** 2)
        for n, c, s in zip(shape, centre, sigma, strict=True)
    )
    return z[:, None, None] * y[:, None] * x


def noise(shape=SHAPE):
    return np.random.default_rng(0).normal(100, 10, shape)


def two():
    return gaussian(centre=(10, 6, 12)) + 0.8 * gaussian(centre=(10, 18, 12))


def psf(data):
    return Volume.from_array(data / data.sum(), VOXEL, name="psf")


BROKEN = {
    "at the border": gaussian(centre=(0, 12, 12)),
    "this is noise": noise(),
    "2 separate spots": two(),
}


@pytest.mark.parametrize("why", BROKEN)
@pytest.mark.parametrize("mend", [True, False])
def test_what_is_no_psf_stops_a_run(why, mend):
    broken = psf(BROKEN[why])
    image = Volume.from_array(np.ones((24, 24, 24)), VOXEL, name="image")
    with pytest.raises(RlnError, match=why):
        fit_psf(broken, image, repair=mend)
    for method in (RichardsonLucy(), Network()):
        with pytest.raises(RlnError, match=why):
            deconvolve(image, broken, method)
    with pytest.raises(RlnError, match=why):
        training_set_of(TrainSettings(), psf=broken)
    report = examine_psf(broken)  # may be looked at
    assert [f.severity for f in report.findings if why in f.message] == ["error"]
    with pytest.raises(RlnError, match=why):
        repair_psf(broken, report)


@pytest.mark.parametrize("n", [20, 21])
@pytest.mark.parametrize("sigma", [0.4, 1.5, 3.0])
@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_an_origin_in_the_corner_is_rolled_to_the_middle(n, sigma, shift):
    shape = (n, n + 3, n + 4)
    centre = [m // 2 + shift for m in shape]
    clean = gaussian(shape, centre, (1.5 * sigma, sigma, sigma))
    noisy = 1000 * clean + np.random.default_rng(1).normal(100, 5, shape)
    for data in (clean, noisy):
        assert split_axes(data) == ()
        assert split_axes(np.fft.ifftshift(data)) == (0, 1, 2)
        assert split_axes(np.fft.ifftshift(data, axes=(1, 2))) == (1, 2)
        assert split_axes(np.fft.ifftshift(data[n // 2 :][:1])) == (1, 2)


def test_a_psf_with_its_origin_in_the_corner_is_used_as_the_rolled_one():
    whole = psf(gaussian(centre=(10.3, 12, 11.8)))
    cornered = psf(np.fft.ifftshift(whole.data))
    ready, findings = fit_psf(cornered)
    assert [(f.check, f.repair) for f in findings if f.severity == "error"] == [
        ("centre", "centre=peak")
    ]
    np.testing.assert_allclose(ready.data, fit_psf(whole)[0].data, atol=1e-7)
    prepared = prepare_psf(cornered)
    assert prepared.record is not None
    assert prepared.record.facts["rolled"] == ["z", "y", "x"]
    for refuse in (check_psf, lambda given: fit_psf(given, repair=False)):
        with pytest.raises(RlnError, match=r"split between .* Repair it \(centre=peak\)"):
            refuse(cornered)
    check_psf(ready)
    point = np.zeros((9, 9, 9))
    point[0, 0, 0] = 1
    assert split_axes(point) == (0, 1, 2)


@pytest.mark.parametrize(
    "centre", [(0, 12, 12), (20, 12, 12), (10, 0, 12), (10, 12, 24), (0, 0, 12), (0, 0, 0)]
)
def test_a_cut_peak_is_not_taken_for_a_split_one(centre):
    for data in (gaussian(centre=centre), 1000 * gaussian(centre=centre) + noise()):
        assert split_axes(data) == ()
        fault = find_fault(data)
        assert fault is not None
        assert "at the border" in fault.message


@pytest.mark.parametrize("shape", [(31, 31, 31), (1, 41, 41), (5, 64, 64)])
def test_noise_of_any_kind_is_no_psf(shape):
    rng = np.random.default_rng(2)
    for data in (
        noise(shape),
        rng.poisson(3, shape),
        rng.poisson(0.03, shape),
        ndimage.gaussian_filter(noise(shape), 1.5),
    ):
        fault = find_fault(data)
        assert fault is not None
        assert fault.check == "peak"


def test_several_spots_are_told_above_each_other_and_in_noise():
    tall = (41, 25, 25)
    above = gaussian(tall) + 0.8 * gaussian(tall, (30, 12, 12))
    wide = (31, 41, 41)
    beads = gaussian(wide, (10, 12, 12)) + 0.7 * gaussian(wide, (20, 29, 30))
    for data in (above, 1000 * beads + noise(wide)):
        fault = find_fault(data)
        assert fault is not None
        assert "2 separate spots" in fault.message


def aberrated():
    optics = MicroscopeSettings(
        na=1.4, sample_index=1.33, depth_um=20, model="scalar", size=(63, 31, 31)
    )
    return compute_psf(optics, (0.2, 0.1, 0.1)).data


UNUSUAL = {
    "off centre": gaussian((31, 31, 31), (7, 15, 15)) + 0.1 * gaussian((31, 31, 31), (26, 15, 15)),
    "near a corner": gaussian(centre=(2, 3, 21)),
    "even, between voxels": gaussian((20, 24, 26), (9.5, 11.5, 12.5)),
    "sharp and between voxels": gaussian((20, 24, 26), (9.5, 11.5, 12.5), (0.5, 0.4, 0.4)),
    "one plane": gaussian((1, 25, 25), (0, 12, 12)),
    "two planes": gaussian((2, 25, 25), (0.5, 12, 12)),
    "three planes": gaussian((3, 25, 25), (1, 12, 12)),
    "alike in every plane": np.repeat(gaussian((1, 25, 25), (0, 12, 12)), 9, axis=0),
    "hardly fading along z": 1000 * gaussian((11, 25, 25), (5, 12, 12), (30, 1.5, 1.5))
    + noise((11, 25, 25)),
    "wider than its file": gaussian((31, 31, 31), (15, 15, 15), (12, 8, 8)),
    "a disk": (np.hypot(*(np.indices((25, 25)) - 12)) < 6)[None],
    "a tail": gaussian() + 0.5 * gaussian(centre=(10, 12, 17), sigma=(3, 2, 2)),
    "dim": 100 * gaussian((31, 33, 33), (15.3, 16.2, 15.8), (2.2, 1.6, 1.6))
    + 2 * noise((31, 33, 33)),
    "aberrated": aberrated(),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_psf_is_not_refused(kind):
    assert find_fault(UNUSUAL[kind]) is None


@pytest.mark.parametrize(
    "data",
    [
        np.ones((1, 1, 1)),
        np.pad(np.ones((1, 1, 1)), 6),
        np.pad(np.full((1, 1), 7.0), 6)[None],
        gaussian((9, 9, 9), (4, 4, 4), (0.15, 0.15, 0.15)),
    ],
    ids=["a voxel", "a point", "a point in a plane", "a narrow spot"],
)
def test_a_psf_of_one_voxel_has_nothing_to_deconvolve(data):
    fault = find_fault(data)
    assert fault is not None
    assert "in one voxel" in fault.message


@pytest.mark.parametrize("shape", [SHAPE, (20, 24, 26)])
def test_every_whole_voxel_off_the_border_is_a_place_for_a_peak(shape):
    for step in (1, 4, 7):
        assert find_fault(gaussian(shape, (step, step + 1, shape[2] - 2 - step))) is None


@pytest.mark.parametrize("psf", [samples.bead_psf, samples.nucleus_psf])
def test_psfs_of_other_programs_and_computed_ones_are_not_refused(psf):
    assert find_fault(psf().data) is None


def test_a_measured_bead_over_haze_is_not_refused():
    bead = np.random.default_rng(0).poisson(90 + 2000 * gaussian(centre=(11.3, 12.4, 10.6)))
    assert find_fault(bead.astype(np.float32)) is None
