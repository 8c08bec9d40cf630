"""The plugin's contributions, opened as napari opens them."""

import numpy as np
import pytest

napari = pytest.importorskip("napari")


def test_samples_open_through_the_manifest(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    for key in ("bead", "bead_psf"):
        viewer.open_sample("napari-rln", key)
    for layer in viewer.layers:
        assert layer.data.shape == (64, 64, 64)
        np.testing.assert_allclose(layer.scale, (0.1, 0.1, 0.1))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert tuple(layer.axis_labels) == ("z", "y", "x")
