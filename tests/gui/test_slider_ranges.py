"""Sliders as long as what is shown."""

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QObject

from napari_rln.gui.slider_ranges import SliderRanges


def test_a_hidden_psf_longer_than_the_image_does_not_lengthen_the_sliders(viewer):
    def add(shape, name, **options):
        options = {"units": ("um",) * len(shape), "scale": (0.5, 0.1, 0.1)[-len(shape) :]} | options
        return viewer.add_image(np.zeros(shape, np.float32), name=name, **options)

    owner = QObject()
    SliderRanges(viewer, owner)
    image = add((9, 32, 32), "cells")
    viewer.dims.set_current_step(0, 6)
    psf = add((17, 16, 16), "PSF of cells", visible=False)
    assert viewer.dims.nsteps == (9, 32, 32)
    assert viewer.dims.current_step[0] == 6
    image.data = np.ones((10, 32, 32), np.float32)
    assert viewer.dims.nsteps == (10, 32, 32)
    psf.visible = True
    assert viewer.dims.nsteps == (17, 32, 32)
    psf.visible = False
    assert viewer.dims.nsteps == (10, 32, 32)
    far = add((10, 32, 32), "hidden cells", visible=False, translate=(2, 0, 0))  # as napari does
    assert viewer.dims.nsteps == (14, 32, 32)
    viewer.layers.remove(far)
    viewer.layers.remove(image)
    assert viewer.dims.nsteps == (17, 16, 16)  # alone
    add((32, 32), "plane")
    assert viewer.dims.nsteps == (17, 32, 32)


def test_the_sliders_reach_a_psf_that_is_shown_after_the_dock_is_closed(open_dock, qtbot):
    viewer, page = open_dock("Deconvolve")
    um = {"units": ("um",) * 3, "scale": (0.5, 0.1, 0.1)}
    viewer.add_image(np.zeros((9, 32, 32), np.float32), name="cells", **um)
    psf = viewer.add_image(np.zeros((17, 16, 16), np.float32), name="PSF", visible=False, **um)
    assert viewer.dims.nsteps == (9, 32, 32)
    viewer.window.remove_dock_widget(page.dock)
    qtbot.waitUntil(lambda: not isalive(page))
    psf.visible = True
    assert viewer.dims.nsteps == (17, 32, 32)
