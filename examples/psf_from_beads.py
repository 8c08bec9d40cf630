"""
Measure a PSF from beads
========================

The stack of beads is simulated, so that the measured PSF can be compared with the true one.
"""

import numpy as np
from scipy.signal import fftconvolve

import napari_rln as rln
from napari_rln.evaluate.figure import save_figure

voxel_um = (0.2, 0.1, 0.1)
optics = rln.psf.MicroscopeSettings(
    na=1.2, immersion_index=1.33, wavelength_um=0.52, size=(15, 21, 21)
)
true = rln.psf.compute_psf(optics, voxel_um)

rng = np.random.default_rng(0)
beads = np.zeros((32, 96, 96), np.float32)
for y, x in np.mgrid[16:96:32, 16:96:32].reshape(2, -1).T + rng.integers(-3, 4, (9, 2)):
    beads[16, y, x] = 2000 / true.data.max()
stack = rng.poisson(fftconvolve(beads, true.data, mode="same").clip(0) + 20)

# %%
# Beads are found, those too close to another or to the border are excluded, and the
# others averaged.

measured = rln.psf.measure_psf(
    rln.Volume.from_array(stack, voxel_um), rln.psf.MeasureSettings(size=true.shape)
)
for name, value in measured.record.facts.items():
    print(f"{name}: {value}")
rln.write(measured, "measured-psf.ome.tif")

# %%
# Comparison with the true one:

print("correlation with the true PSF:", np.corrcoef(measured.data.ravel(), true.data.ravel())[0, 1])
save_figure(rln.figure([true, measured]), "psf.png")
