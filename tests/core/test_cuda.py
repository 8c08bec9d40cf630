"""The same numbers on a GPU as on the CPU, where there is one."""

import numpy as np
import phantoms
import pytest
import torch
from scipy import signal

from napari_rln.core.errors import ComputeError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.engine.in_memory import deconvolve

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def _image(psf):
    blurred = signal.fftconvolve(phantoms.spots(), psf.data, mode="same").clip(0) + 10
    return Volume.from_array(np.random.default_rng(0).poisson(blurred), psf.voxel_um)


@pytest.mark.parametrize("border", ["extended", "periodic", "reflect"])
@pytest.mark.parametrize("psf_shape", [(5, 7, 9), (4, 6, 8)])
def test_adjoint(border, psf_shape):
    psf = np.random.default_rng(0).random(psf_shape).astype(np.float32)
    cuda = torch.device("cuda")
    blur = Convolution(psf / psf.sum(), (12, 13, 11), border=border, device=cuda)
    x, y = torch.rand(blur.estimate_shape, device=cuda), torch.rand(12, 13, 11, device=cuda)
    forward = float((blur.A(x).double() * y).sum())
    backward = float((blur.A_adjoint(y).double() * x).sum())
    assert abs(forward - backward) < 1e-5 * abs(forward)


@pytest.mark.parametrize("back_projector", ["matched", "wiener-butterworth"])
@pytest.mark.parametrize("border", ["extended", "periodic", "reflect"])
def test_cuda_agrees_with_the_cpu(border, back_projector):
    psf = phantoms.comatic_psf()
    image = _image(psf)
    cpu, cuda = (
        deconvolve(
            image,
            psf,
            RichardsonLucy(
                iterations=10, border=border, back_projector=back_projector, device=device
            ),
        )
        for device in ("cpu", "cuda")
    )
    assert np.abs(cpu.data - cuda.data).max() < 2e-3 * cpu.data.max()
    assert cuda.record.facts["device"] == "cuda"


def test_automatic_stop_agrees_with_the_cpu():
    psf = phantoms.comatic_psf()
    image = _image(psf)
    cpu, cuda = (
        deconvolve(image, psf, RichardsonLucy(device=device)).record.facts["iterations"]
        for device in ("cpu", "cuda")
    )
    assert abs(cpu - cuda) <= 1


def test_out_of_memory_says_what_was_needed(monkeypatch):
    psf = phantoms.gaussian_psf()
    data = np.random.default_rng(0).poisson(20, (64, 256, 256)).astype(np.float32)
    image = Volume.from_array(data, psf.voxel_um)
    monkeypatch.setattr("napari_rln.core.device.free_bytes", lambda device: 10**15)
    settings = RichardsonLucy(iterations=1, device="cuda", background=0)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(64e6 / total)
    try:
        with pytest.raises(ComputeError, match=r"ran out of memory; about \d+\.\d+ GB were needed"):
            deconvolve(image, psf, settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
