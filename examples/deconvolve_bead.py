"""Deconvolve the shipped bead, watching it, and draw raw against deconvolved."""

import napari_rln as rln
from napari_rln import samples
from napari_rln.evaluate.figure import save_figure

image = samples.bead()
psf, findings = rln.psf.fit_psf(samples.bead_psf(), image)
for finding in findings:
    print(finding.severity, finding.what)

steps = rln.deconvolve_iter(image, psf, rln.RichardsonLucy(iterations=20, report_every=5))
while True:
    try:
        report = next(steps)
    except StopIteration as stop:
        result = stop.value
        break
    brightest = report.estimate().max()  # a copy: (Z, Y, X) float32
    print(f"iteration {report.done}: changed by {report.relative_change:.1%}, {brightest:.0f}")

rln.write_volume(result, "bead-rld.ome.tif")
save_figure(rln.figure([image, result]), "bead.png")
print(rln.compare(image, [result], psf=psf).rows[-1].cells())
