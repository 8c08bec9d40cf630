"""
Train a network for one PSF
===========================

The universal network is adapted to the PSF of the shipped bead, and deconvolves it. Six
steps show how; an effect takes some minutes of training.
"""

from dataclasses import replace

import napari_rln as rln
from napari_rln import samples
from napari_rln.evaluate.figure import save_figure

image = samples.bead()
psf, findings = rln.psf.fit_psf(samples.bead_psf(), image)

settings, universal = rln.train.choose_settings("quick")
settings = replace(
    settings,
    steps=4,
    batch=2,
    examples=2,
    validate=1,
    validate_every=2,
    shape=(32, 48, 48),
    patch=32,
)

# %%
# It is trained on synthetic structures blurred with the PSF, and validated on held-out ones.

setting = rln.train.training_set_of(settings, psf=psf, initial_model=universal)
steps = rln.train.train_model_iter(setting, settings, name="bead")
while True:
    try:
        report = next(steps)
    except StopIteration as stop:
        model = stop.value
        break
    if report.quality is not None:
        print(f"step {report.step}: {report.quality.psnr_db:.2f} dB on a held-out volume")

model.save("bead.safetensors")

# %%
# The model is applied like the shipped ones.

result = rln.deconvolve(image, psf, rln.Network(model=model))
print(result.name, result.record.facts["chi2"])
rln.write(result, "bead-adapted.ome.tif")
save_figure(rln.figure([image, result]), "bead-adapted.png")
