"""Memory and time of preparing a PSF for an image: `python benchmarks/psf_memory.py`.

Each case is a process of its own. Memory is its peak beyond that before the preparation.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

# Side of the PSF, voxels; its voxel size, and the image's, micrometres.
CASES = [(64, 0.4, 0.1), (100, 0.2, 0.1), (200, 0.1, 0.1), (200, 0.1, 0.2), (257, 1.0, 1.0)]


def measure(size: int, own_um: float, image_um: float) -> str:
    """Return a row of the table, measured in this process."""
    from napari_rln.core.machine import peak_bytes, used_bytes
    from napari_rln.core.volume import Volume, shape_on
    from napari_rln.psf.examine import fit_psf
    from napari_rln.psf.prepare import check_psf
    from napari_rln.psf.resampling import preparation_bytes

    random = np.random.default_rng(0)
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / 1.5) ** 2)
    data = np.empty((size, size, size), np.float32)
    for plane, light in zip(data, line, strict=True):  # little memory, so that the peak is later
        plane[:] = random.poisson(1000 * light * line[:, None] * line + 5)
    psf = Volume.from_array(data, (own_um,) * 3)
    image = Volume.from_array(np.ones((32, 32, 32), np.float32), (image_um,) * 3)
    before, began = used_bytes(), time.perf_counter()
    ready, _ = fit_psf(psf, image)
    check_psf(ready)
    taken, seconds = peak_bytes() - before, time.perf_counter() - began
    foretold = preparation_bytes(psf.shape, shape_on(psf, image.voxel_um))
    return (
        f"| {size}^3 of {own_um:g} um | {ready.shape[0]}^3 of {image_um:g} um "
        f"| {foretold / 1e9:.2f}, {taken / 1e9:.2f} | {seconds:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=int, help="number of the case to measure in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(measure(*CASES[options.case]))
        return
    print("| PSF | prepared | memory GB: predicted, measured | s |\n" + "| --- " * 4 + "|")
    for number in range(len(CASES)):
        words = [sys.executable, __file__, "--case", str(number)]
        print(subprocess.run(words, capture_output=True, text=True, check=True).stdout, end="")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
