import csv
import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from napari_rln.core import metrics
from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.evaluate.comparison import CompareSettings, compare

VOXEL_UM = (0.2, 0.1, 0.1)


@pytest.fixture(scope="module")
def truth() -> Volume:
    rng = np.random.default_rng(0)
    blobs = gaussian_filter((rng.random((20, 32, 36)) > 0.99).astype(np.float64), 0.7)
    return Volume.from_array(blobs * 2000, VOXEL_UM, name="truth")


@pytest.fixture(scope="module")
def psf() -> Volume:
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in (7, 7, 7)), indexing="ij")
    data = np.exp(-(z**2) / 4 - (y**2 + x**2) / 2)
    return Volume.from_array(data / data.sum(), VOXEL_UM, name="psf")


@pytest.fixture(scope="module")
def image(truth: Volume, psf: Volume) -> Volume:
    mean = np.maximum(fftconvolve(truth.data, psf.data, mode="same"), 0) + 10
    return Volume.from_array(np.random.default_rng(1).poisson(mean), VOXEL_UM, name="raw")


@pytest.fixture(scope="module")
def result(truth: Volume) -> Volume:
    facts = {"seconds": 1.5, "peak_mb": 20.0, "background": 10.0}
    return truth.with_data(truth.data, name="perfect", record=Record(method="rld", facts=facts))


def test_rows_are_the_image_then_the_results(image, result, truth, psf):
    table = compare(image, [result], truth=truth, psf=psf, settings=CompareSettings(gain=1.0))
    raw, perfect = table.rows
    assert (raw.name, perfect.name) == ("raw", "perfect")
    assert raw.seconds is None
    assert (perfect.seconds, perfect.peak_mb) == (1.5, 20)
    assert perfect.flux_ratio == pytest.approx(1, abs=0.02)
    assert perfect.chi2 == pytest.approx(1, abs=0.05)
    assert perfect.reblur_scale == pytest.approx(1, abs=0.02)
    assert raw.chi2 > 2
    assert perfect.volume.psnr_raw_db == np.inf
    assert perfect.xz.ssim == pytest.approx(1)
    assert raw.volume.psnr_db == pytest.approx(metrics.psnr(image.data, truth.data, fit=True))
    assert raw.volume.psnr_raw_db < raw.volume.psnr_db
    assert perfect.axial_um == pytest.approx(0.4)
    assert raw.axial_um > perfect.axial_um
    assert raw.lateral_um > perfect.lateral_um


def test_without_truth_or_psf_their_columns_are_absent(image, result):
    table = compare(image, [result])
    assert set(table.columns) == {"name", "seconds", "peak_mb"}
    assert table.rows[1].volume is None
    facts = result.record.facts | {"peak_mb": 0}  # nothing was measured
    little = result.with_data(result.data, record=Record(method="rln", facts=facts))
    assert "peak_mb" not in compare(image, [little]).columns


def test_planes_can_be_left_out(image, truth):
    columns = compare(image, [], truth=truth, settings=CompareSettings(planes=False)).columns
    assert "ssim" in columns
    assert not any(c.endswith(("_xy", "_xz", "_yz")) for c in columns)


def test_a_single_plane_has_no_axial_columns(image, truth):
    flat_image = image.with_data(image.data[9:10])
    flat_truth = truth.with_data(truth.data[9:10])
    columns = compare(flat_image, [], truth=flat_truth).columns
    assert {"psnr_db", "ssim", "lateral_um"} <= set(columns)
    assert not {"axial_um", "ssim_xz", "ssim_xy"} & set(columns)


def test_ssim_is_absent_from_planes_smaller_than_its_window(image, truth):
    thin_image, thin_truth = (v.with_data(v.data[6:14]) for v in (image, truth))
    columns = compare(thin_image, [], truth=thin_truth).columns
    assert {"ssim", "ssim_xy", "nrmse_xz"} <= set(columns)
    assert not {"ssim_xz", "ssim_yz"} & set(columns)


def test_noise_is_estimated_where_it_is_not_given(image, result, psf):
    table = compare(image, [result], psf=psf)
    assert table.rows[1].chi2 == pytest.approx(1, rel=0.3)


def test_a_noiseless_image_has_no_residual(truth, psf):
    flat = truth.with_data(np.full_like(truth.data, 100))
    assert "chi2" not in compare(flat, [], psf=psf).columns


def test_the_depth_of_a_psf_of_one_plane_does_not_count(image, psf):
    plane = image.with_data(image.data[9:10])
    thin = psf.with_data(psf.data[3:4], voxel_um=(0.1, 0.1, 0.1))
    assert "chi2" in compare(plane, [], psf=thin).columns


def test_csv_holds_the_table(tmp_path, image, result, truth):
    table = compare(image, [result], truth=truth)
    path = tmp_path / "table.csv"
    table.to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == table.columns
    assert rows[0]["seconds"] == ""
    assert float(rows[0]["nrmse"]) == table.rows[0].volume.nrmse
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_dictionary_is_strict_json(image, result, truth):
    table = compare(image, [result], truth=truth)
    back = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert back["rows"][1]["psnr_raw_db"] is None
    assert back["rows"][0]["pearson"] == pytest.approx(table.rows[0].volume.pearson)
    assert back["truth"] == "truth"


def test_disagreeing_inputs_are_named(image, result, truth, psf):
    cut = result.with_data(result.data[1:])
    with pytest.raises(RlnError, match=r"perfect.*\(19, 32, 36\).*raw"):
        compare(image, [cut])
    other = result.with_data(result.data, voxel_um=(0.3, 0.1, 0.1))
    with pytest.raises(RlnError, match=r"perfect.*\(0\.3, 0\.1, 0\.1\)"):
        compare(image, [other])
    with pytest.raises(RlnError, match=r"psf.*voxel size"):
        compare(image, [], psf=psf.with_data(psf.data, voxel_um=(0.1, 0.1, 0.1)))
    with pytest.raises(RlnError, match="truth is constant"):
        compare(image, [], truth=truth.with_data(np.ones_like(truth.data)))
    with pytest.raises(RlnError, match=r"`gain`.*-1"):
        CompareSettings(gain=-1.0)
