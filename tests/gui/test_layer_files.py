"""The reader of files: lazy layers with names, colours, contrast and optics of their channels."""

import dask.array as da
import microscope_files as files
import numpy as np
import pytest
import tifffile

from napari_rln.core.errors import RlnError
from napari_rln.gui.layer_files import SERIES, reader
from napari_rln.gui.layers import CHANNEL, OPTICS
from napari_rln.psf.optics import Optics


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 4000, (1, 2, 4, 12, 10)).astype(np.uint16)


def _read(path):
    read = reader(str(path))
    assert read is not None
    return read(str(path))


def test_a_microscopes_file_is_read_by_planes(tmp_path, data):
    files.write_czi(tmp_path / "cells.czi", files.czi_planes(data), files.czi_xml())
    layers = _read(tmp_path / "cells.czi")
    assert [options["name"] for _, options, _ in layers] == ["cells DAPI", "cells EGFP"]
    assert [options["colormap"] for _, options, _ in layers] == ["bop blue", "green"]
    for channel, (array, options, kind) in enumerate(layers):
        assert isinstance(array, da.Array)
        assert array.chunksize == (1, 12, 10)
        np.testing.assert_array_equal(np.asarray(array), data[0, channel])
        assert (kind, options["axis_labels"], options["blending"]) == (
            "image", list("zyx"), "additive",
        )  # fmt: skip
        assert options["scale"] == pytest.approx(files.VOXEL_UM)
        assert options["metadata"][CHANNEL] == channel
        assert Optics.from_json(options["metadata"][OPTICS]).na == 1.4
        low, high = options["contrast_limits"]
        middle = data[0, channel, 2]
        assert low == middle.min()
        assert middle.max() * 0.99 < high <= middle.max()


def test_every_image_of_a_project_gives_layers(tmp_path, data):
    pytest.importorskip("liffile")
    images = [files.lif_image(name, data[0, :1], block=n) for n, name in enumerate("ab")]
    files.write_lif(tmp_path / "p.lif", images)
    layers = _read(tmp_path / "p.lif")
    assert [options["name"] for _, options, _ in layers] == ["p a", "p b"]
    assert [options["metadata"] for _, options, _ in layers] == [{SERIES: 0}, {SERIES: 1}]
    assert "colormap" not in layers[0][1]


def test_a_damaged_file_says_why_instead_of_having_no_reader(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"nothing")
    with pytest.raises(RlnError, match="copy it again"):
        _read(tmp_path / "a.czi")


def test_layers_of_ome_tiff_have_the_optics_of_their_channels(tmp_path, data):
    channels = {"Name": ["DAPI", "Cy5"], "EmissionWavelength": [461, 670]}
    z, y, x = files.VOXEL_UM
    sizes = {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
    metadata = {"axes": "CZYX", "Channel": channels} | sizes
    tifffile.imwrite(tmp_path / "a.ome.tif", data[0], metadata=metadata, photometric="minisblack")
    layers = _read(tmp_path / "a.ome.tif")
    assert [options["name"] for _, options, _ in layers] == ["a DAPI", "a Cy5"]
    assert [options["colormap"] for _, options, _ in layers] == ["bop blue", "magenta"]
    assert layers[1][1]["metadata"][OPTICS]["wavelength_um"] == 0.67


@pytest.mark.parametrize("is_sized", [True, False])
def test_a_psf_does_not_cover_an_image(tmp_path, data, is_sized):
    sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.3} if is_sized else {}
    found = []
    for name in ("my PSF.ome.tif", "cells.ome.tif"):
        metadata = {"axes": "ZYX"} | sizes
        tifffile.imwrite(tmp_path / name, data[0, 0], metadata=metadata, photometric="minisblack")
        [(_, options, _)] = _read(tmp_path / name)
        found.append(options)
    psf, cells = found
    assert (psf["scale"][0] != 1) == is_sized
    assert psf["blending"] == "additive"
    assert "blending" not in cells
