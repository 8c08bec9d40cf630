"""
Deconvolve the shipped bead
===========================

A hollow bead in a widefield microscope: its PSF is made fit, the iterations are watched, and the
result is drawn beside the image.
"""

import napari_rln as rln
from napari_rln import samples
from napari_rln.evaluate.figure import save_figure

# %%
# The PSF comes as it was published. What is wrong with it is found and repaired.

image = samples.bead()
psf, findings = rln.psf.fit_psf(samples.bead_psf(), image)
for finding in findings:
    print(finding.severity, finding.message)

# %%
# :func:`napari_rln.deconvolve_iter` yields reports with the estimate so far, and returns the
# result.

steps = rln.deconvolve_iter(image, psf, rln.RichardsonLucy(iterations=20, report_every=5))
while True:
    try:
        report = next(steps)
    except StopIteration as stop:
        result = stop.value
        break
    brightest = report.estimate().max()  # a copy: (Z, Y, X) float32
    print(f"iteration {report.done}: changed by {report.relative_change:.1%}, {brightest:.0f}")

# %%
# The result carries how it was made, in the file too.

rln.write(result, "bead-rld.ome.tif")
save_figure(rln.figure([image, result]), "bead.png")

# %%
# Blurred again, it explains the image within its noise where ``chi2`` is near 1.

for name, value in rln.compare(image, [result], psf=psf).rows[-1].cells().items():
    print(f"{name}: {value}")
