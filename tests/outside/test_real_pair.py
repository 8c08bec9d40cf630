"""The study of a real image: a nucleus taken by a widefield and by a confocal microscope."""

import numpy as np
import pytest

from napari_rln import samples
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.evaluate.reference import covered_by
from napari_rln.io.volumes import read
from napari_rln.psf.compute import compute_psf
from napari_rln.registration.register import RegistrationSettings, register
from napari_rln.study.real_data import study_volume
from napari_rln.study.real_data_result import RealStudySettings

CORNER = (6, 28, 22)  # of a crop (30, 72, 80) with the whole nucleus
SHIFT = (-2, 0, 4)  # voxels from the confocal image to the widefield one, known


@pytest.mark.filterwarnings("ignore::napari_rln.core.errors.RlnWarning")
def test_a_nucleus_is_nearer_to_its_confocal_image_at_the_automatic_stop(volumes):
    folder = volumes / "nucleus_pair"
    widefield, confocal = (read(folder / f"{name}.tif") for name in ("widefield", "confocal"))
    z, y, x = (slice(c, c + n) for c, n in zip(CORNER, (30, 72, 80), strict=True))
    image = widefield.with_data(widefield.data[z, y, x], name="widefield")
    psf = compute_psf(samples.NUCLEUS_OPTICS, image.voxel_um, planes=29)
    # A crop of the nucleus has no empty corner to measure the background in.
    known = {"background": 655.0, "device": "cpu"}
    methods = {
        "RLD 100": RichardsonLucy(iterations=100, **known),
        "RLD auto": RichardsonLucy(**known),
        "RLD 10": RichardsonLucy(iterations=10, **known),
    }
    moved = np.roll(confocal.data, SHIFT, axis=(0, 1, 2))[z, y, x]
    reference = image.with_data(moved, name="confocal")
    settings = RealStudySettings(background=655.0, inside=3000.0)
    study = study_volume(image, psf, methods, reference=reference, settings=settings)
    rows = {row["name"]: row for row in study.rows}
    assert rows["RLD auto"]["r"] > rows["RLD 100"]["r"] > rows["widefield"]["r"]
    assert rows["RLD auto"]["r"] > 0.9
    assert rows["RLD auto"]["r_inside"] > rows["RLD 100"]["r_inside"]
    assert rows["RLD auto"]["chi2"] < 0.1 * rows["widefield"]["chi2"]
    # Late iterations show what no other count does.
    assert rows["RLD 100"]["alone_voxels"] > rows["RLD auto"]["alone_voxels"]

    # The confocal image finds its place by itself, on the deconvolved one.
    found = register(confocal, study.results[1], RegistrationSettings(transform="translation"))
    first = np.multiply(CORNER, image.voxel_um)
    shift = np.divide(np.array(found.record.facts["shift_um"]) - first, image.voxel_um)
    np.testing.assert_allclose(shift, np.negative(SHIFT), atol=0.6)
    assert covered_by(confocal, found).mean() > 0.95
