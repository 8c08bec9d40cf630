"""Commands without a PSF: computed for each channel from what the image's file states."""

import json

import microscope_files as files
import numpy as np
import phantoms
import pytest
from scipy import signal

from napari_rln import cli
from napari_rln.engine.job import Job
from napari_rln.io.image import open_contents
from napari_rln.io.volumes import read
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.from_optics import GivenOptics
from napari_rln.psf.microscope import MicroscopeSettings

SHAPE = (8, 24, 24)


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def _psf(emission_um):
    settings = MicroscopeSettings(
        na=1.4, immersion_index=1.515, wavelength_um=emission_um,
        excitation_um=0.405 if emission_um < 0.5 else 0.488,
    )  # fmt: skip
    return compute_psf(settings, files.VOXEL_UM, planes=SHAPE[0])


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Return a CZI of two channels that does not state its immersion."""
    path = tmp_path_factory.mktemp("cells") / "cells.czi"
    truth, rng = phantoms.spots(SHAPE, level=900.0), np.random.default_rng(0)
    blurred = [signal.fftconvolve(truth, _psf(um).data, mode="same") for um in (0.465, 0.509)]
    data = rng.poisson(np.clip(blurred, 0, None) + 10).astype(np.uint16)
    files.write_czi(path, files.czi_planes(data[None]), files.czi_xml(index=None, immersion=""))
    return path


def test_every_channel_is_deconvolved_with_its_own_psf(image, tmp_path, capsys):
    out = tmp_path / "out.ome.tif"
    assert _run("rld", image, "-o", out, "--iterations", 2) == 0
    said = capsys.readouterr().out
    assert "stated by the file: widefield, NA 1.4, emission 465 nm, excitation 405 nm" in said
    assert said.count("assumed: oil immersion, as usual at NA 1.4") == 2
    records = open_contents(out).record.facts["channels"]
    for record, emission_um in zip(records, (0.465, 0.509), strict=True):
        assert record["inputs"]["psf"] == _psf(emission_um).hash
        sources = record["facts"]["psf"]["facts"]["optics"]
        assert sources["stated"]["wavelength_um"] == emission_um
        assert sources["assumed"] == ["oil immersion, as usual at NA 1.4"]


def test_what_is_given_counts_and_is_recorded_in_parts_too(image, tmp_path, capsys):
    out = tmp_path / "out.ome.zarr"
    given = ("--channel", 1, "--immersion-index", 1.518, "--wavelength-um", 0.45, 0.53)
    assert _run("rld", image, "-o", out, "--iterations", 2, *given) == 0
    assert "given: immersion index 1.518, emission 530 nm" in capsys.readouterr().out
    sources = open_contents(out).record.facts["psf"]["facts"]["optics"]
    assert sources["given"] == {"immersion_index": 1.518, "wavelength_um": 0.53}


def test_too_little_is_an_error_before_anything_is_written(image, tmp_path, capsys):
    bare, out = tmp_path / "bare.czi", tmp_path / "out.ome.tif"
    files.write_czi(bare, files.czi_planes(np.ones((1, 2, *SHAPE), np.uint16)),
                    files.czi_xml(na=None))  # fmt: skip
    assert _run("wiener", bare, "-o", out) == cli.CANNOT_BE_USED
    said = capsys.readouterr().err
    assert "bare.czi, channel 0 (DAPI)" in said
    assert "numerical aperture (--na)" in said
    assert not out.exists()
    assert _run("rld", image, "-o", out, "--psf", image, "--na", 1.3) == cli.CANNOT_BE_USED
    assert "--na would be of a PSF computed" in capsys.readouterr().err


def test_a_batch_computes_the_psf_of_every_image(image, tmp_path, capsys):
    assert _run("batch", "rld", image.parent, "-o", tmp_path / "b", "--iterations", 1) == 0
    assert capsys.readouterr().out.count("assumed: oil immersion") == 2
    for channel, emission_um in enumerate((0.465, 0.509)):
        record = open_contents(tmp_path / "b" / f"cells-c{channel}-rld.ome.tif").record
        assert record.inputs["psf"] == _psf(emission_um).hash


def test_a_psf_for_an_image_takes_its_optics(image, tmp_path, capsys):
    out = tmp_path / "psf.tif"
    assert _run("psf", "compute", "--image", image, "-o", out) == cli.CANNOT_BE_USED
    assert "or choose a --channel" in capsys.readouterr().err
    assert _run("psf", "compute", "--image", image, "--channel", 0, "-o", out) == 0
    np.testing.assert_allclose(read(out).data, _psf(0.465).data, atol=1e-6)
    assert read(out).record.facts["optics"]["stated"]["na"] == 1.4


def test_info_says_what_a_file_states_and_what_would_be_assumed(image, capsys):
    assert _run("info", image, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sizes"] == {"t": 1, "c": 2, "z": 8, "y": 24, "x": 24}
    assert report["channels"][1]["stated"]["wavelength_um"] == 0.509
    assert report["channels"][1]["assumed"] == ["oil immersion, as usual at NA 1.4"]


def test_a_job_without_psfs_goes_through_json(image, tmp_path):
    job = Job.from_json(
        {
            "napari-rln job": 1, "image": {"path": str(image)}, "optics": {"na": 1.3},
            "output": {"path": str(tmp_path / "o.ome.tif")},
        }
    )  # fmt: skip
    assert job.optics == GivenOptics(na=1.3)
    assert Job.from_json(job.as_json()) == job
