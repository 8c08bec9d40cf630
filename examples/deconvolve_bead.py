"""
Deconvolve the shipped bead
===========================

A hollow bead in a widefield microscope: its PSF is repaired, the iterations are followed, and the
result is drawn beside the image.
"""

import napari_rln as rln
from napari_rln import samples
from napari_rln.evaluate.figure import save_figure

# %%
# The PSF is the published one; its faults are found and repaired.

image = samples.bead()
psf, findings = rln.psf.fit_psf(samples.bead_psf(), image)
for finding in findings:
    print(finding.severity, finding.message)

# %%
# :func:`napari_rln.deconvolve_iter` yields reports with the current estimate, and returns the
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
# The result carries a record of how it was made, in the file too.

rln.write(result, "bead-rld.ome.tif")
save_figure(rln.figure([image, result]), "bead.png")

# %%
# Blurred again, it explains the image within its noise where ``chi2`` is near 1.

for name, value in rln.compare(image, [result], psf=psf).rows[-1].cells().items():
    print(f"{name}: {value}")
