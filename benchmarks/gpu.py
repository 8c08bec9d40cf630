"""Seconds per iteration and peak memory on a GPU: `python benchmarks/gpu.py`."""

import time

import numpy as np
import torch

from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration, View

DEVICE = torch.device("cuda")


def seconds(action, repeats: int = 20) -> float:
    """Return the time of one action, launches and waiting included."""
    for _ in range(3):
        action()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def main() -> None:
    """Print a table over volume sizes and variants, with the four transforms as the limit."""
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print("| image | variant | ms/iteration | four FFTs ms | ratio | peak MB | padded volumes |")
    print("|---|---|---|---|---|---|---|")
    axis = np.arange(31) - 15
    line = np.exp(-0.5 * (axis / 2.5) ** 2)
    psf = np.einsum("i,j,k->ijk", line, line, line).astype(np.float32)
    psf /= psf.sum()
    for shape in [(64, 256, 256), (128, 256, 256), (256, 512, 512), (256, 1024, 1024)]:
        for border, accelerate in [("periodic", False), ("extended", False), ("extended", True)]:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            image = torch.rand(shape, device=DEVICE) * 100 + 10
            blur = Convolution(psf, shape, border=border, device=DEVICE)
            run = RichardsonLucyIteration(View(blur=blur, image=image), accelerate=accelerate)
            step = seconds(lambda run=run: run.step(measure=False))
            peak = torch.cuda.max_memory_allocated() - image.nbytes
            work = blur.work_shape
            x = torch.rand(work, device=DEVICE)
            spectrum = torch.fft.rfftn(x)
            transforms = 2 * seconds(lambda x=x: torch.fft.rfftn(x)) + 2 * seconds(
                lambda s=spectrum, w=work: torch.fft.irfftn(s, s=w)
            )
            print(
                f"| {'x'.join(map(str, shape))} | {border}{' accelerated' * accelerate} | "
                f"{1e3 * step:.2f} | {1e3 * transforms:.2f} | {step / transforms:.2f} | "
                f"{peak / 1e6:.0f} | {peak / (4 * np.prod(work)):.1f} |"
            )
            del image, blur, run, x, spectrum


if __name__ == "__main__":
    main()
