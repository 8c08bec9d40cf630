"""Computed PSFs against diffraction theory."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.diffraction import Optics, intensity
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.shape import fwhm_um

WATER = {"immersion_index": 1.33, "wavelength_um": 0.5}
CASES = [
    {"na": 1.45, "immersion_index": 1.512, "wavelength_um": 0.461},
    {"na": 0.8, "model": "scalar", **WATER},
    {"na": 1.2, "modality": "confocal", "excitation_um": 0.488, **WATER},
    {"na": 1.0, "modality": "two-photon", "excitation_um": 0.9, **WATER},
    {"na": 0.8, "modality": "light-sheet", "sheet_fwhm_um": 1.5, **WATER},
    {"na": 1.4, "sample_index": 1.33, "depth_um": 5.0, "wavelength_um": 0.5},
    {"modality": "gaussian"},
]


def psf(voxel_um=(0.1, 0.05, 0.05), size=(41, 31, 31), **settings):
    return compute_psf(MicroscopeSettings(size=size, **settings), voxel_um)


def widths(volume):
    return fwhm_um(volume.data, volume.voxel_um, tuple(n // 2 for n in volume.shape))


@pytest.mark.parametrize("settings", CASES, ids=lambda s: s.get("modality", "widefield"))
def test_sums_to_one_centred_and_laterally_symmetric(settings):
    made = psf((0.2, 0.1, 0.1), (31, 25, 25), **settings)
    data = made.data
    assert made.shape == (31, 25, 25)
    assert data.min() >= 0
    assert data.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(peak_centre(data), (15, 12, 12), atol=0.02)
    for mirrored in (data[:, ::-1], data[:, :, ::-1], data.swapaxes(1, 2)):
        np.testing.assert_allclose(data, mirrored, atol=1e-5 * data.max())
    if not settings.get("depth_um"):
        np.testing.assert_allclose(data, data[::-1], atol=1e-5 * data.max())


@pytest.mark.parametrize("na", [0.5, 0.8, 1.1])
def test_scalar_widefield_widths_match_theory(na):
    axial, lateral = theoretical_fwhm_um(na, 1.33, 0.5)
    made = psf((axial / 20, lateral / 12, lateral / 12), na=na, model="scalar", **WATER)
    np.testing.assert_allclose(widths(made), (axial, lateral, lateral), rtol=0.04)


def test_vectorial_agrees_with_scalar_at_low_aperture_and_is_wider_at_high():
    for na, low, high in ((0.4, 0.99, 1.02), (1.2, 1.05, 1.25)):
        step = 0.04 / na
        made = [psf((0.3, step, step), (1, 41, 41), na=na, model=m, **WATER) for m in
                ("vectorial", "scalar")]  # fmt: skip
        assert low < widths(made[0])[2] / widths(made[1])[2] < high


def test_point_pinhole_narrows_by_the_square_root_of_two_and_an_open_one_not_at_all():
    common = {"voxel_um": (0.05, 0.03, 0.03), "size": (31, 31, 31), "na": 1.0, "model": "scalar"}
    wide = psf(**common, **WATER)
    point = psf(**common, modality="confocal", excitation_um=0.5, pinhole_au=0.0, **WATER)
    open_ = psf(**common, modality="confocal", excitation_um=0.5, pinhole_au=5.0, **WATER)
    np.testing.assert_allclose(point.data, wide.data**2 / (wide.data**2).sum(), atol=5e-3 * 0.01)
    ratio = np.array(widths(wide)) / widths(point)
    np.testing.assert_allclose(ratio, math.sqrt(2), rtol=0.05)
    np.testing.assert_allclose(widths(open_), widths(wide), rtol=0.02)


def test_confocal_narrows_steadily_as_the_pinhole_closes():
    lateral = [
        widths(psf(na=1.2, modality="confocal", excitation_um=0.488, pinhole_au=p, **WATER))[2]
        for p in (0.3, 0.6, 1.0, 2.0)
    ]
    assert all(a < b for a, b in itertools.pairwise(lateral))


@pytest.mark.parametrize("pinhole_au", [1e-4, 0.5, 1.0, 6.0])
def test_confocal_is_excitation_times_emission_averaged_over_the_pinhole(pinhole_au):
    common = {"model": "scalar", "na": 1.0, "immersion_index": 1.33, "sample_index": 1.33}
    excitation, emission = (Optics(**common, depth_um=0.0, wavelength_um=w) for w in (0.45, 0.5))
    radii, pixel = np.arange(16) * 0.02, 0.002  # um
    made = compute_psf(
        MicroscopeSettings(size=(1, 321, 1), modality="confocal", excitation_um=0.45,
                           pinhole_au=pinhole_au, na=1.0, model="scalar", **WATER),
        (0.1, pixel, pixel),
    ).data[0, 160::10, 0][:16]  # fmt: skip
    ring = pinhole_au * 0.61 * 0.5 * (np.arange(200) + 0.5) / 200
    around = np.exp(2j * np.pi * (np.arange(100) + 0.5) / 100)
    seen = np.abs(radii[:, None, None] + ring[:, None] * around)
    light = CubicSpline(grid := np.linspace(0, seen.max(), 2000),
                        intensity(emission, np.zeros(1), grid)[0])(seen)  # fmt: skip
    passed = np.average(light.mean(axis=2), axis=1, weights=ring)
    expected = intensity(excitation, np.zeros(1), radii)[0] * passed
    np.testing.assert_allclose(made / made[0], expected / expected[0], atol=2e-4)


def test_two_photon_is_the_square_of_its_excitation():
    made = psf((0.2, 0.02, 0.02), na=0.8, modality="two-photon", excitation_um=0.9, **WATER)
    excitation = psf((0.2, 0.02, 0.02), na=0.8, immersion_index=1.33, wavelength_um=0.9).data
    square = excitation**2 / (excitation**2).sum(dtype=np.float64)
    np.testing.assert_allclose(made.data, square, atol=5e-3 * made.data.max())


def test_light_sheet_is_detection_times_the_sheet():
    sheet = psf(na=0.8, modality="light-sheet", sheet_fwhm_um=1.2, **WATER).data
    z_um = (np.arange(41) - 20) * 0.1
    profile = np.exp(-4 * math.log(2) * (z_um / 1.2) ** 2)[:, None, None]
    expected = psf(na=0.8, **WATER).data * profile
    np.testing.assert_allclose(sheet, expected / expected.sum(), atol=1e-6 * sheet.max())


def test_gaussian_has_the_widths_asked_for():
    made = psf(modality="gaussian", fwhm_um=(0.8, 0.3, 0.35))
    np.testing.assert_allclose(widths(made), (0.8, 0.3, 0.35), rtol=0.01)


def test_coarse_pixels_hold_the_sum_of_finer_ones():
    optics = {"na": 1.4, "wavelength_um": 0.5}
    coarse = psf((0.2, 0.12, 0.12), (9, 15, 15), **optics).data
    fine = psf((0.2, 0.04, 0.04), (9, 45, 45), **optics).data
    binned = fine.reshape(9, 15, 3, 15, 3).sum(axis=(2, 4))
    np.testing.assert_allclose(coarse, binned, atol=4e-3 * coarse.max())


def on_axis(drive_um, depth_um, na, immersion, sample, wavelength):
    """Intensity at a point below the coverslip for positions of the focus drive, by ray paths.

    A ray at pupil coordinate s = n sin(theta) passes depth / cos in the sample; moving the focus
    deeper by f takes f / cos out of the immersion layer. Scalar, isotropic source.
    """
    s = np.linspace(0, na, 4001)
    sample_path = depth_um * np.sqrt(sample**2 - s**2)
    immersion_path = drive_um[:, None] * np.sqrt(immersion**2 - s**2)
    field = np.exp(2j * np.pi / wavelength * (sample_path - immersion_path)) * s
    return np.abs(np.trapezoid(field, s, axis=1)) ** 2


@pytest.mark.parametrize(("immersion", "sample"), [(1.515, 1.33), (1.33, 1.45)])
def test_aberrated_tail_points_as_ray_paths_say(immersion, sample):
    depth, na, wavelength = 10.0, 1.25, 0.5
    made = psf((0.1, 0.02, 0.02), (81, 3, 3), na=na, model="scalar", immersion_index=immersion,
               sample_index=sample, depth_um=depth, wavelength_um=wavelength)  # fmt: skip
    profile = made.data[:, 1, 1] / made.data[:, 1, 1].max()
    focus = depth + made.record.facts["focal_shift_um"]
    drive = focus + (np.arange(81) - 40) * 0.1
    rays = on_axis(drive, depth, na, immersion, sample, wavelength)
    rays /= rays.max()
    assert np.abs(profile - rays).max() < 0.01
    assert np.abs(profile[::-1] - rays).max() > 0.1
    # Oil into water: marginal rays need the drive further in, so the tail lies at higher z.
    tail, head = profile[40 + 8 :].sum(), profile[: 40 - 7].sum()
    assert (tail > 1.5 * head) if immersion > sample else (head > 1.5 * tail)


def test_z_order_mirrors_the_stack():
    optics = {"na": 1.3, "sample_index": 1.33, "depth_um": 5.0, "size": (21, 15, 15)}
    away, towards = psf(**optics), psf(**optics, z_order="to coverslip")
    np.testing.assert_array_equal(towards.data, away.data[::-1])
    assert np.abs(away.data - away.data[::-1]).max() > 0.05 * away.data.max()


def test_without_mismatch_depth_changes_nothing():
    shallow, deep = psf(na=1.2, **WATER), psf(na=1.2, depth_um=50.0, **WATER)
    assert deep.record.facts["focal_shift_um"] == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(deep.data, shallow.data, atol=1e-3 * shallow.data.max())


def test_beyond_the_sample_index_aperture_is_lost_at_depth():
    optics = {"sample_index": 1.33, "depth_um": 3.0, "size": (1, 41, 41)}
    np.testing.assert_allclose(
        widths(psf(na=1.49, **optics))[2], widths(psf(na=1.33, **optics))[2], rtol=0.05
    )


@pytest.mark.parametrize("settings", CASES, ids=lambda s: s.get("modality", "widefield"))
def test_automatic_size_is_odd_capped_and_holds_the_share(settings):
    made = compute_psf(MicroscopeSettings(**settings, energy_fraction=0.9), (0.4, 0.06, 0.06))
    assert all(n % 2 == 1 and n <= 127 for n in made.shape)
    assert made.shape[1] == made.shape[2]
    assert made.record.facts["energy_fraction"] >= 0.9
    assert made.record.settings["size"] == list(made.shape)
    json.loads(Record.from_json(made.record.to_json()).to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wavelength_um": 461}, r"461.*0\.461"),
        ({"modality": "confocal", "excitation_um": 488.0}, r"488.*0\.488"),
        ({"wavelength_um": 20.0}, r"20.*0\.2.*2"),
        ({"na": 1.4, "immersion_index": 1.33}, r"1\.4.*`immersion_index`.*1\.33"),
        ({"modality": "confocal"}, "`excitation_um`"),
        ({"modality": "confocal", "excitation_um": 0.6, "wavelength_um": 0.5}, "shorter one"),
        ({"modality": "two-photon", "excitation_um": 0.4}, "longer one"),
        ({"size": (21, 30, 31)}, r"\(21, 30, 31\).*\(21, 31, 31\)"),
        ({"modality": "gaussian", "fwhm_um": (700.0, 250.0, 250.0)}, "`fwhm_um`.*700"),
    ],
)
def test_bad_settings_say_what_to_do(settings, message):
    with pytest.raises(RlnError, match=message):
        MicroscopeSettings(**settings)


def test_oblong_pixels_are_refused_for_optics_only():
    with pytest.raises(RlnError, match="square pixels"):
        psf((0.2, 0.1, 0.12))
    assert psf((0.2, 0.1, 0.12), modality="gaussian").shape == (41, 31, 31)


def test_a_widefield_psf_reaches_through_the_image_it_is_for():
    settings = MicroscopeSettings(na=0.8, immersion_index=1.0, wavelength_um=0.52)
    voxel_um = (0.5, 0.15, 0.15)
    short = compute_psf(settings, voxel_um).shape[0]
    assert compute_psf(settings, voxel_um, planes=40).shape[0] == 79 > short
    assert compute_psf(settings, voxel_um, planes=2).shape[0] == short
    fixed = dataclasses.replace(settings, size=(15, 31, 31))
    assert compute_psf(fixed, voxel_um, planes=40).shape == (15, 31, 31)
