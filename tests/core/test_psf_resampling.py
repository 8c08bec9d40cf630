"""Memory and cancelling of the preparation of a PSF on voxels coarser than the image's."""

import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import phantoms
import pytest

from napari_rln import cli
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import checkpoint, interruptible
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.psf_memory import check_psf_memory
from napari_rln.io.volumes import write
from napari_rln.psf import pieces
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.prepare import prepare_psf


def coarse(size=64, voxel_um=0.4):
    """Return a PSF with the noise of its photons, on coarse voxels."""
    places = np.arange(size) - size // 2
    line = np.exp(-0.5 * (places / 1.5) ** 2)
    data = 1000 * line[:, None, None] * line[:, None] * line
    data = np.random.default_rng(0).poisson(data + 5)
    return Volume.from_array(data, (voxel_um,) * 3, name="psf")


IMAGE = Volume.from_array(np.full((16, 24, 24), 100.0), (0.1, 0.1, 0.1), name="image")

_TAKEN = """
import sys
sys.path.insert(0, sys.argv[1])
from test_psf_resampling import IMAGE, coarse
from napari_rln.core.machine import peak_bytes, used_bytes
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.prepare import check_psf
from napari_rln.psf.resampling import preparation_bytes
fit_psf(coarse(17), IMAGE)  # loads the libraries
psf = coarse(48)
before = used_bytes()
ready, _ = fit_psf(psf, IMAGE)
check_psf(ready)
print(peak_bytes() - before, preparation_bytes(psf.shape, ready.shape))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_the_forecast_is_what_the_preparation_takes():
    found = subprocess.run(
        [sys.executable, "-c", _TAKEN, str(phantoms.__file__).rsplit("/", 1)[0]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    taken, foretold = map(float, found.stdout.split())
    assert 0.6 * foretold < taken < 1.05 * foretold


def test_a_run_without_the_memory_for_its_psf_ends_before_it_reads(tmp_path, capsys, monkeypatch):
    write(IMAGE, tmp_path / "image.ome.tif")
    write(coarse(), tmp_path / "psf.ome.tif")
    # Tests before this one may have taken any memory.
    monkeypatch.setattr("napari_rln.core.machine.used_bytes", lambda: 5 * 10**8)
    for name in ("read", "fit_psf"):
        monkeypatch.setattr(f"napari_rln.engine.run.{name}", lambda *_, **__: pytest.fail("began"))
    words = ["rld", tmp_path / "image.ome.tif", "--psf", tmp_path / "psf.ome.tif"]
    words += ["-o", tmp_path / "result.tif", "--memory-gb", 1.5]
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in words])
    message = capsys.readouterr().err
    assert "64 x 64 x 64 voxels of 0.4 x 0.4 x 0.4 um" in message
    assert "0.1 x 0.1 x 0.1 um (z, y, x), on which the PSF takes 256 x 256 x 256 voxels" in message
    assert "crop the PSF" in message


@pytest.mark.parametrize("prepare", [fit_psf, prepare_psf])
def test_what_is_not_free_is_not_taken(monkeypatch, prepare):
    monkeypatch.setattr("napari_rln.psf.resampling.available_bytes", lambda: 10**9)
    given = {"image_voxel_um": IMAGE.voxel_um} if prepare is prepare_psf else {"image": IMAGE}
    with monkeypatch.context() as patched:
        for name in ("examine.find_fault", "prepare._clean"):
            patched.setattr(f"napari_rln.psf.{name}", lambda *_: pytest.fail("began"))
        error = re.escape("at least 1.28 GB of memory; 1.00 GB are left")
        with pytest.raises(RlnError, match=error):
            prepare(coarse(), **given)
    prepare(coarse(17, 0.2), **given)


def test_the_transforms_of_the_smallest_tile_count(monkeypatch):
    psf = SimpleNamespace(shape=(64, 64, 64), voxel_um=(0.4, 0.4, 0.4), name="psf")
    method = RichardsonLucy(device="cpu")
    most = replace(method, precision="float64", tv=0.01, consensus=True)
    monkeypatch.setattr("napari_rln.psf.resampling.available_bytes", lambda: 2 * 10**9)
    check_psf_memory(psf, IMAGE, method)
    needed = most.tiles.memory_bytes((1, 1, 1), (256, 256, 256))
    with pytest.raises(RlnError, match=f"at least {needed / 1e9:.2f} GB"):
        check_psf_memory(psf, IMAGE, most)
    plane = Volume.from_array(np.ones((1, 24, 24)), IMAGE.voxel_um)
    check_psf_memory(psf, plane, most)  # takes one plane of the PSF


def test_a_psf_off_its_middle_is_held_against_its_own_size(monkeypatch):
    off = coarse(33, 0.2)
    off = off.with_data(np.roll(off.data, (12, 12, 12), (0, 1, 2)))  # takes almost twice per axis
    monkeypatch.setattr("napari_rln.psf.resampling.available_bytes", lambda: 10**8)
    with pytest.raises(RlnError, match="113 x 113 x 113 voxels"):
        fit_psf(off, IMAGE)


def test_pieces_make_no_difference(monkeypatch):
    psf = coarse(24, 0.17)
    whole, findings = fit_psf(psf, IMAGE)
    for name in ("pedestal", "resampling", "shape"):
        monkeypatch.setattr(f"napari_rln.psf.{name}.PIECE", 1000)
    in_parts, same_findings = fit_psf(psf, IMAGE)
    np.testing.assert_allclose(in_parts.data, whole.data, rtol=1e-6, atol=1e-12)
    assert [f.check for f in findings] == [f.check for f in same_findings]
    assert pieces.PIECE > 1000


def test_a_preparation_is_cancelled_before_its_end():
    ended = []
    steps = interruptible(lambda: ended.append(fit_psf(coarse(), IMAGE)))
    began = time.monotonic()
    while time.monotonic() - began < 1:
        next(steps)
    steps.close()
    assert not ended
    assert not [thread for thread in threading.enumerate() if "interruptible" in thread.name]


def test_an_interruptible_function_returns_and_raises_like_a_call():
    def result_of(compute):
        steps = interruptible(compute)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value

    def failing():
        raise TimeoutError("of its own")

    assert result_of(lambda: (checkpoint(), time.sleep(0.3), 5)[-1]) == 5
    with pytest.raises(TimeoutError, match="of its own"):
        result_of(failing)
    checkpoint()  # nothing happens outside
