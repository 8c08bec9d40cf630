"""PSFs measured from synthetic bead fields with a known, asymmetric truth, and from a real bead."""

import itertools

import numpy as np
import pytest
from numpy import fft

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.psf.beads import find_beads
from napari_rln.psf.measure import MeasureSettings, align, average, measure_psf
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.shape import fwhm_um

VOXEL_UM = (0.2, 0.1, 0.1)
SHAPE = (36, 64, 64)
SIZE = (21, 17, 17)
BACKGROUND = 20.0


def comatic_otf(shape=SHAPE):
    """Transfer function of a PSF with coma and spherical aberration, its peak on voxel 0.

    NA 0.9 at 0.6 um in water: band-limited on this grid, so that shifts by Fourier are exact.
    """
    k = np.hypot(*np.meshgrid(fft.fftfreq(shape[1], 0.1), fft.fftfreq(shape[2], 0.1),
                              indexing="ij"))  # fmt: skip
    rho = k * 0.6 / 0.9
    cos = fft.fftfreq(shape[2], 0.1)[None] * 0.6 / 0.9
    aberration = 0.2 * (3 * rho**3 - 2 * rho) * np.divide(cos, rho, where=rho > 0,
                                                           out=np.zeros_like(rho))  # fmt: skip
    aberration = aberration + 0.1 * (6 * rho**4 - 6 * rho**2 + 1)
    axial = np.sqrt(np.maximum((1.33 / 0.6) ** 2 - k**2, 0))
    z = fft.fftfreq(shape[0], 1 / shape[0]) * 0.2
    phase = aberration + axial * z[:, None, None]
    field = fft.ifft2(np.where(rho <= 1, np.exp(2j * np.pi * phase), 0))
    lateral = np.hypot(*np.meshgrid(*(fft.fftfreq(n, 1 / n) for n in shape[1:]), indexing="ij"))
    # An excitation profile confines the light to the crops, as in a confocal microscope.
    psf = np.abs(field) ** 2 * np.exp(-((lateral / 6) ** 2) - (z[:, None, None] / 1.2) ** 2)
    otf = fft.fftn(psf / psf.sum())
    middle = np.array(shape) // 2
    peak = np.array(peak_centre(fft.fftshift(psf))) - middle
    return otf * ramp(-peak, shape)


def ramp(shift, shape):
    """Fourier factor that moves an array by ``shift`` (z, y, x) voxels."""
    k = np.meshgrid(*(fft.fftfreq(n) for n in shape), indexing="ij")
    return np.exp(-2j * np.pi * sum(s * f for s, f in zip(shift, k, strict=True)))


def spot(otf, position, shape=SHAPE):
    return np.maximum(fft.ifftn(otf * ramp(position, shape)).real, 0)


def positions(rng):
    """Nine beads with room for a crop each, at random sub-voxel positions."""
    corners = itertools.product((12.5, 31.5, 50.5), repeat=2)
    return np.array([(17.5, y, x) for y, x in corners]) + rng.uniform(-0.5, 0.5, (9, 3))


def field(otf, where, rng, photons=150000.0):
    mean = BACKGROUND + sum(spot(otf, p) * photons * rng.uniform(0.5, 1.5) for p in where)
    return Volume.from_array(rng.poisson(mean), VOXEL_UM, name="beads")


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def truth(otf, size=SIZE):
    middle = np.array(SHAPE) // 2
    whole = spot(otf, middle)
    box = tuple(slice(m - n // 2, m + n // 2 + 1) for m, n in zip(middle, size, strict=True))
    return whole[box] / whole[box].sum()


def found(image, settings):
    return find_beads(
        image,
        size=settings.size,
        minimum_snr=settings.minimum_snr,
        saturation=settings.saturation,
    )


def mirrored(psf, axes):
    return np.flip(psf, axes)


@pytest.fixture(scope="module")
def otf():
    return comatic_otf()


@pytest.fixture(scope="module")
def halves(otf):
    """Two fields of nine beads each, with their positions, and the PSF measured on the first."""
    rng = np.random.default_rng(5)
    where = [positions(rng) for _ in range(2)]
    images = [field(otf, p, rng) for p in where]
    return where, images, measure_psf(images[0], MeasureSettings(size=SIZE))


def test_measured_psf_is_the_true_one_and_not_its_mirror_image(otf, halves):
    psf, true = halves[2].data, truth(otf)
    assert psf.shape == SIZE
    assert psf.min() >= 0
    assert psf.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(peak_centre(psf), np.array(SIZE) // 2, atol=0.02)
    assert correlation(psf, true) > 0.998
    for axes in ((0,), (2,), (0, 1, 2)):
        assert correlation(mirrored(psf, axes), true) < 0.985


def test_widths_are_not_blurred_by_averaging(otf, halves):
    expected = fwhm_um(truth(otf), VOXEL_UM)
    np.testing.assert_allclose(halves[2].record.facts["fwhm_um"], expected, rtol=0.03)


def test_beads_are_placed_to_a_twentieth_of_a_voxel(halves):
    where, images, _ = halves
    settings = MeasureSettings(size=SIZE)
    beads = align(images[0], found(images[0], settings), settings)
    assert beads.used.sum() == 9
    nearest = np.abs(beads.positions[:, None] - where[0]).sum(axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(9))
    np.testing.assert_allclose(beads.positions, where[0][nearest], atol=0.05)


def richardson_lucy(image, psf, iterations=20):
    """Periodic Richardson-Lucy with a known background; returns estimate and final chi square."""
    kernel = np.zeros(image.shape)
    kernel[tuple(slice(0, n) for n in psf.shape)] = psf
    otf = fft.rfftn(np.roll(kernel, [-(n // 2) for n in psf.shape], axis=(0, 1, 2)))
    estimate = np.full(image.shape, max(image.mean() - BACKGROUND, 1.0))
    for _ in range(iterations):
        blurred = (
            fft.irfftn(fft.rfftn(estimate) * otf, image.shape, axes=(0, 1, 2)).clip(0) + BACKGROUND
        )
        estimate *= fft.irfftn(
            fft.rfftn(image / blurred) * otf.conj(), image.shape, axes=(0, 1, 2)
        ).clip(0)
    blurred = (
        fft.irfftn(fft.rfftn(estimate) * otf, image.shape, axes=(0, 1, 2)).clip(0) + BACKGROUND
    )
    return estimate, float(((image - blurred) ** 2 / blurred).mean())


def concentration(estimate, where):
    """Share of the light within 1 voxel of where the beads are, and its mean distance from them."""
    light, drift = 0.0, []
    for position in where:
        grid = np.indices(estimate.shape) - position[:, None, None, None]
        near = (np.abs(grid) <= 3).all(axis=0)
        drift.append((grid[:, near] * estimate[near]).sum(axis=1) / estimate[near].sum())
        light += estimate[(np.abs(grid) <= 1).all(axis=0)].sum()
    return light / estimate.sum(), np.abs(np.mean(drift, axis=0)).max()


def test_other_half_deconvolves_as_with_the_true_psf_and_worse_with_mirror_images(otf, halves):
    where, images, psf = halves
    image = images[1].data.astype(np.float64)
    estimate, residual = richardson_lucy(image, psf.data)
    sharp, drift = concentration(estimate, where[1])
    best, best_residual = richardson_lucy(image, truth(otf))
    assert residual < 1.05 * best_residual
    assert sharp > 0.97 * concentration(best, where[1])[0]
    assert drift < 0.07
    for axes in ((0,), (2,), (0, 1, 2)):
        wrong, wrong_residual = richardson_lucy(image, mirrored(psf.data, axes))
        wrong_sharp, wrong_drift = concentration(wrong, where[1])
        assert wrong_residual > 1.3 * residual
        assert wrong_sharp < 0.9 * sharp
        assert wrong_drift > 2 * drift


def test_each_fault_is_recognised_and_the_rest_used(otf):
    rng = np.random.default_rng(2)
    where = positions(rng)
    weights = np.full(9, 150000.0)
    weights[0], weights[8] = 4e5, 7000.0
    weights[3] = 6e4
    mean = BACKGROUND + sum(spot(otf, p) * w for p, w in zip(where, weights, strict=True))
    mean += spot(otf, where[2] + [0, 0, 6.0]) * 1.5e5  # a neighbour
    mean += spot(otf, where[3] + [0, 0, 1.8]) * 6e4  # a doublet
    mean += spot(otf, (17.5, 20.0, 1.5)) * 1.5e5  # at the border
    counts = np.minimum(rng.poisson(mean), 1600)
    counts[17, 22, 41] += 2000  # a hot pixel
    image = Volume.from_array(counts, VOXEL_UM, name="faulty")
    settings = MeasureSettings(size=SIZE, minimum_snr=25.0)
    beads = align(image, found(image, settings), settings)
    names = {
        tuple(p): beads.status[int(np.abs(beads.positions - p).sum(axis=1).argmin())] for p in where
    }
    assert list(names.values()) == [
        "saturated",
        "used",
        "clustered",
        "unlike",
        *["used"] * 4,
        "too dim",
    ]
    made = average(image, beads, settings)
    assert made.record.facts["beads_used"] == 5
    assert made.record.facts["beads_rejected"]["cut"] >= 1
    assert correlation(made.data, truth(otf)) > 0.99


def test_automatic_size_holds_the_psf(otf, halves):
    made = measure_psf(halves[1][0], MeasureSettings())
    assert all(n % 2 == 1 for n in made.shape)
    np.testing.assert_allclose(made.record.facts["fwhm_um"], fwhm_um(truth(otf), VOXEL_UM),
                               rtol=0.03)  # fmt: skip


def test_noise_does_not_become_a_halo(otf):
    rng = np.random.default_rng(3)
    made = measure_psf(field(otf, positions(rng)[:1], rng, 100000), MeasureSettings(size=SIZE))
    assert made.record.facts["beads_used"] == 1
    assert "fwhm_sd_um" not in made.record.facts
    assert correlation(made.data, truth(otf)) > 0.98
    border = np.ones(SIZE, dtype=bool)
    border[3:-3, 3:-3, 3:-3] = False
    assert made.data[border].sum() < 1.3 * truth(otf)[border].sum() + 0.02


def test_chosen_beads_are_those_found_however_roughly_they_are_pointed_at(halves):
    where, images, psf = halves
    settings = MeasureSettings(size=SIZE)
    rough = np.rint(where[0] + np.random.default_rng(6).uniform([-3, -2, -2], [3, 2, 2], (9, 3)))
    rough[4:7, 0] = np.nan
    chosen = measure_psf(images[0], settings, positions=[*rough, rough[0]])
    np.testing.assert_allclose(chosen.data, psf.data, atol=1e-3 * psf.data.max())
    np.testing.assert_allclose(
        np.sort(chosen.record.facts["beads_at"], axis=0), np.sort(where[0], axis=0), atol=0.06
    )
    fewer = measure_psf(images[0], MeasureSettings(), positions=where[0][:4]).record
    assert fewer.facts["beads_used"] == 4
    assert fewer.settings["size"] == list(find_beads(images[0], size=None, minimum_snr=10.0,
                                                     saturation=None).size)  # fmt: skip


def test_a_chosen_bead_is_used_though_dim_but_not_where_it_is_cut(otf):
    rng = np.random.default_rng(7)
    at, dim, cut = (17.3, 20.2, 20.4), (17.4, 44.1, 40.7), (17.0, 40.0, 3.0)
    mean = BACKGROUND + spot(otf, at) * 2e5 + spot(otf, dim) * 1.5e4 + spot(otf, cut) * 2e5
    image = Volume.from_array(rng.poisson(mean), VOXEL_UM, name="beads")
    settings = MeasureSettings(size=SIZE, minimum_snr=60.0)
    assert measure_psf(image, settings).record.facts["beads_rejected"]["too dim"] == 1
    facts = measure_psf(image, settings, positions=[at, dim, cut]).record.facts
    assert facts["beads_used"] == 2
    assert facts["beads_rejected"] == {"cut": 1}


def test_no_bead_and_no_usable_bead_are_errors(otf):
    rng = np.random.default_rng(4)
    noise = Volume.from_array(rng.poisson(50, SHAPE), VOXEL_UM, name="noise")
    with pytest.raises(RlnError, match=r"no bead|is usable"):
        measure_psf(noise, MeasureSettings())
    flat = Volume.from_array(np.full(SHAPE, 7.0), VOXEL_UM, name="flat")
    with pytest.raises(RlnError, match=r"flat.*no bead"):
        measure_psf(flat, MeasureSettings())
    single = field(otf, positions(rng)[:1], rng)
    with pytest.raises(RlnError, match=r"1 cut.*smaller `size`"):
        measure_psf(single, MeasureSettings(size=(51, 51, 51)))
    with pytest.raises(RlnError, match="no bead"):
        measure_psf(single, MeasureSettings(), positions=np.zeros((0, 3)))
    with pytest.raises(RlnError, match=r"\(17\.0, 64\.0, 3\.0\).*\(36, 64, 64\)"):
        measure_psf(single, MeasureSettings(), positions=[(17, 64, 3)])
    with pytest.raises(RlnError, match=r"\(21, 16, 17\).*\(21, 17, 17\)"):
        MeasureSettings(size=(21, 16, 17))
