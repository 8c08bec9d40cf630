"""Each defect is made, found, repaired, and found no more; clean PSFs raise no warning."""

import json

import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import examine_psf, repair_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import check_psf

VOXEL = (0.2, 0.1, 0.1)
SHAPE = (21, 25, 25)
OPTICS = {"na": 1.2, "wavelength_um": 0.52, "immersion_index": 1.33}


def gaussian(centre=(10, 12, 12), sigma=(2.5, 1.5, 1.5), shape=SHAPE):
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - c) / s) ** 2)
        for n, c, s in zip(shape, centre, sigma, strict=True)
    )
    return z[:, None, None] * y[:, None] * x


def psf(data, voxel_um=VOXEL, *, unit=True):
    data = np.asarray(data, dtype=np.float64)
    return Volume.from_array(data / data.sum() if unit else data, voxel_um, name="psf")


def image(shape=(64, 64, 64), voxel_um=VOXEL):
    return Volume.from_array(np.ones(shape), voxel_um, name="image")


def checks(report, *severities):
    return {f.check for f in report.findings if not severities or f.severity in severities}


def hot():
    data = gaussian()
    data[3, 4, 5] = data[:, 20, 4] = 0.6
    return psf(data)


def noisy():
    rng = np.random.default_rng(0)
    return psf(gaussian() + rng.normal(0.2, 0.02, SHAPE), unit=False)


def negative():
    data = gaussian()
    data[5, 5, 5:9] = -0.01
    return psf(data)


@pytest.mark.parametrize(
    ("check", "defective", "other"),
    [
        ("hot pixels", hot(), None),
        ("background", psf(gaussian() + 0.01), None),
        ("background", psf(gaussian() - 0.002), None),
        ("noise", noisy(), None),
        ("negatives", negative(), None),
        ("sum", psf(3 * gaussian(), unit=False), None),
        ("centre", psf(gaussian(centre=(10, 12.4, 11.2))), None),
        ("centre", psf(gaussian(centre=(6.3, 14, 12))), None),
        ("voxel size", psf(gaussian()), image(voxel_um=(0.3, 0.12, 0.12))),
        ("size", psf(gaussian()), image(shape=(1, 64, 70))),
        ("crop", psf(gaussian(centre=(30, 30, 30), shape=(61, 61, 61))), None),
    ],
)
def test_a_defect_is_found_repaired_and_gone(check, defective, other):
    report = examine_psf(defective, image=other)
    finding = next(f for f in report.findings if f.check == check)
    assert finding.repair is not None
    mended = repair_psf(defective, report)
    check_psf(mended)
    after = examine_psf(mended, image=other)
    assert not [f for f in after.findings if f.repair is not None]
    assert not checks(after, "warning", "error") - checks(report)


def test_repair_does_no_more_than_the_findings_say():
    clean = psf(gaussian(centre=(9, 6, 6), shape=(19, 13, 13)))
    assert repair_psf(clean, examine_psf(clean)) is clean
    shifted = psf(gaussian(centre=(9, 6.4, 5.6), shape=(19, 13, 13)))
    mended = repair_psf(shifted, examine_psf(shifted))
    assert mended.record is not None
    assert mended.record.settings["centre"] == "peak"
    assert mended.record.settings["background"] == "none"
    assert mended.record.settings["hot_pixels"] is False
    assert mended.record.settings["noise_floor"] == 0
    assert mended.record.settings["energy_fraction"] == 1
    coarser = repair_psf(clean, examine_psf(clean), image_voxel_um=(0.4, 0.2, 0.2))
    assert coarser.voxel_um == (0.4, 0.2, 0.2)


def test_several_defects_at_once():
    rng = np.random.default_rng(1)
    data = 500 * gaussian(centre=(9.3, 13.7, 12.4)) + 100 + rng.normal(0, 5, SHAPE)
    data[4, 4, 4] = 4000
    raw = psf(data, unit=False)
    report = examine_psf(raw, image=image(voxel_um=(0.25, 0.12, 0.12)))
    assert checks(report, "warning") == {
        "hot pixels", "background", "noise", "sum", "centre", "voxel size",
    }  # fmt: skip
    mended = repair_psf(raw, report)
    after = examine_psf(mended, image=image(voxel_um=(0.25, 0.12, 0.12)))
    assert not checks(after, "warning", "error")
    assert np.allclose(after.facts.fwhm_um, report.facts.fwhm_um, rtol=0.12)


def test_clean_psfs_raise_no_warning():
    report = examine_psf(psf(gaussian()), image=image(), **OPTICS)
    assert not checks(report, "warning", "error")
    for na, index, shape, dz, dx in [
        (1.2, 1.33, (31, 31), 0.15, 0.07),
        (1.4, 1.518, (41, 63), 0.12, 0.06),
    ]:
        optics = MicroscopeSettings(
            na=na,
            immersion_index=index,
            wavelength_um=0.52,
            size=(shape[0], shape[1], shape[1]),
        )
        computed = compute_psf(optics, (dz, dx, dx))
        report = examine_psf(computed, na=na, wavelength_um=0.52, immersion_index=index)
        assert not checks(report, "warning", "error")
        assert not [f for f in report.findings if f.repair is not None]


def test_facts_of_a_gaussian():
    facts = examine_psf(psf(gaussian(centre=(10, 12.3, 12)))).facts
    assert facts.total == pytest.approx(1, abs=1e-6)
    assert np.allclose(facts.offset_voxels, (0, 0.3, 0), atol=0.01)
    assert np.allclose(facts.offset_um, (0, 0.03, 0), atol=0.001)
    assert np.allclose(facts.fwhm_voxels, 2.3548 * np.array((2.5, 1.5, 1.5)), rtol=0.01)
    assert np.allclose(facts.fwhm_um, 2.3548 * np.array((0.5, 0.15, 0.15)), rtol=0.01)
    assert max(facts.asymmetry) < 0.01
    assert facts.saturated_voxels == facts.hot_pixels == facts.negative_voxels == 0


def test_light_outside_the_file_is_estimated():
    # exp(-|z| / 8) cut at 20 planes on each side: exp(-20.5 / 8) of it is outside.
    z = np.exp(-np.abs(np.arange(41) - 20.0) / 8)
    data = z[:, None, None] * gaussian(centre=(0, 12, 12), shape=(1, 25, 25))
    report = examine_psf(psf(data))
    assert report.facts.cut_fraction[0] == pytest.approx(np.exp(-20.5 / 8), rel=0.05)
    assert "cut" in checks(report, "note")


def test_what_no_preparation_can_mend_is_said_without_a_repair():
    cut = examine_psf(psf(gaussian(sigma=(8, 1.5, 1.5))))
    assert "cut" in checks(cut, "warning")
    flat = examine_psf(psf(gaussian(sigma=(30, 1.5, 1.5))))
    assert "width" in checks(flat, "warning")
    border = examine_psf(psf(gaussian(centre=(0, 12, 12))))
    assert "centre" in checks(border, "error")
    plateau = examine_psf(psf(np.minimum(gaussian(), 0.6)))
    assert "saturation" in checks(plateau, "warning")
    assert plateau.facts.saturated_voxels == (gaussian() >= 0.6).sum()
    sharp = examine_psf(psf(gaussian(sigma=(2.5, 0.7, 0.7))))
    assert "sampling" in checks(sharp, "warning")
    tail = gaussian() + 0.5 * gaussian(centre=(10, 12, 17), sigma=(3, 2, 2))
    assert "asymmetry" in checks(examine_psf(psf(tail)), "note")
    plane = examine_psf(psf(gaussian(centre=(0, 12, 12), shape=(1, 25, 25))), image=image())
    assert "planes" in checks(plane, "warning")
    for report in (cut, flat, border, plateau, sharp, plane):
        assert all(
            f.repair is None
            for f in report.findings
            if f.check in ("cut", "width", "saturation", "sampling", "planes")
            or f.severity == "error"
        )


def test_sampling_and_width_against_the_optics():
    wide = psf(gaussian(), (0.5, 0.25, 0.25))
    report = examine_psf(wide, **OPTICS)
    angle = np.arcsin(1.2 / 1.33)
    assert report.facts.nyquist_um[0] == pytest.approx(0.52 / (2 * 1.33 * (1 - np.cos(angle))))
    assert report.facts.nyquist_um[1] == pytest.approx(0.52 / 4.8)
    assert "sampling" in checks(report, "warning")
    assert "resolution" in checks(report, "note")
    tiny = examine_psf(psf(gaussian(), (0.06, 0.03, 0.03)), **OPTICS)
    assert "resolution" in checks(tiny, "warning")
    plane = psf(gaussian(centre=(0, 12, 12), shape=(1, 25, 25)), (1.0, 0.1, 0.1))
    assert "sampling" not in checks(examine_psf(plane, **OPTICS))
    assert np.isnan(examine_psf(wide, na=1.2, wavelength_um=0.52).facts.nyquist_um[0])


def test_report_for_json_and_for_the_terminal():
    report = examine_psf(psf(gaussian(centre=(0, 12, 12), shape=(1, 25, 25))))
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read["facts"]["fwhm_um"][0] is None
    assert read["facts"]["shape"] == [1, 25, 25]
    assert read["findings"][0]["severity"] in ("ok", "note")
    rows = dict(report.rows())
    assert rows["size (z, y, x)"] == "1, 25, 25 voxels"
    assert "sampling limit" not in rows
    assert "expected lateral FWHM" in dict(examine_psf(psf(gaussian()), **OPTICS).rows())


def test_impossible_input_is_refused():
    good = psf(gaussian())
    with pytest.raises(RlnError, match="no peak"):
        examine_psf(psf(np.zeros(SHAPE), unit=False))
    with pytest.raises(RlnError, match=r"wavelength.*520"):
        examine_psf(good, na=1.2, wavelength_um=520)
    with pytest.raises(RlnError, match=r"1\.4.* 0 .*1\.33"):
        examine_psf(good, na=1.4, wavelength_um=0.52, immersion_index=1.33)
