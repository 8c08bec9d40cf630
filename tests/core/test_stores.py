"""Images on disk by boxes: what is read is what is there, what is written can be read by others."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.tiles import blocks, plan_tiles
from napari_rln.io.image import Image, ImageFile, open_contents, open_image
from napari_rln.io.lazy import OpenedImage
from napari_rln.io.ome_zarr import ZarrTarget, pyramid
from napari_rln.io.paths import is_zarr
from napari_rln.io.tiff import TiffTarget

SHAPE = (12, 37, 50)
VOXEL_UM = (0.3, 0.1, 0.12)
BOX = (slice(3, 9), slice(5, 31), slice(11, 50))
WHOLE = tuple(slice(0, n) for n in SHAPE)


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)


def _open(path, **chosen):
    return open_image(ImageFile(path=str(path), **chosen))


def _ome_zarr(path, data, version, axes="zyx", unit="micrometer", voxel=VOXEL_UM, scale=None):
    """Write an OME-Zarr by zarr alone."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    group.create_array("s0", data=data, chunks=(1,) * (data.ndim - 3) + (5, 16, 16))
    kinds = {"t": "time", "c": "channel"}
    named = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in named:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    factors = [1.0] * (data.ndim - 3) + list(voxel)
    multiscale = {
        "axes": named,
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": factors}]}
        ],
        "name": "cells",
    }
    if scale:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_of_others_is_read(data, tmp_path, version):
    path = tmp_path / "cells.ome.zarr"
    _ome_zarr(path, data, version)
    source = _open(path)
    assert source.shape == SHAPE
    assert source.voxel_um == pytest.approx(VOXEL_UM)
    assert source.name == "cells"
    np.testing.assert_array_equal(source.read(BOX), data[BOX])


def test_units_and_the_scale_of_all_levels_count(data, tmp_path):
    path = tmp_path / "cells.ome.zarr"
    nanometres = tuple(1000 * v for v in VOXEL_UM)
    _ome_zarr(path, data, "0.5", unit="nanometer", voxel=nanometres, scale=[2.0, 1.0, 1.0])
    assert _open(path).voxel_um == pytest.approx((0.6, 0.1, 0.12))


def test_without_units_the_voxel_size_is_asked_for(data, tmp_path):
    path = tmp_path / "cells.ome.zarr"
    _ome_zarr(path, data, "0.5", unit=None)
    with pytest.raises(RlnError, match="does not say its voxel size"):
        _open(path)
    assert _open(path, voxel_um=VOXEL_UM).voxel_um == VOXEL_UM


def test_channels_and_times_of_an_ome_zarr(data, tmp_path):
    five = np.stack([np.stack([data + 10 * t + c for c in range(3)]) for t in range(2)])
    path = tmp_path / "cells.ome.zarr"
    _ome_zarr(path, five, "0.5", axes="tczyx")
    assert open_contents(path).channels == 3
    every = _open(path)
    assert (every.channels, every.times) == (3, 2)
    np.testing.assert_array_equal(every.read(BOX, time=1, channel=2), data[BOX] + 12)
    with pytest.raises(RlnError, match=r"3 entries along channel; .*`channel`=0\.\.2"):
        every.volume()
    series = _open(path, channel=2)
    assert (series.times, series.timed) == (2, True)
    np.testing.assert_array_equal(series.read(BOX, 1), data[BOX] + 12)
    one = _open(path, channel=1, time=1)
    assert (one.times, one.timed) == (1, False)
    np.testing.assert_array_equal(one.read(BOX), data[BOX] + 11)


def test_plain_zarr_needs_names_for_more_than_three_axes(data, tmp_path):
    zarr.create_array(tmp_path / "plain.zarr", data=data)
    plain = _open(tmp_path / "plain.zarr", voxel_um=VOXEL_UM)
    np.testing.assert_array_equal(plain.read(BOX), data[BOX])
    zarr.create_array(tmp_path / "one.zarr", data=data[None, None])
    np.testing.assert_array_equal(
        _open(tmp_path / "one.zarr", voxel_um=VOXEL_UM).read(BOX), data[BOX]
    )
    zarr.create_array(tmp_path / "four.zarr", data=np.stack([data, data]))
    with pytest.raises(RlnError, match=r"4 axes.*names"):
        _open(tmp_path / "four.zarr", voxel_um=VOXEL_UM)
    zarr.create_array(tmp_path / "named.zarr", data=data[None], dimension_names=list("tzyx"))
    assert _open(tmp_path / "named.zarr", voxel_um=VOXEL_UM).times == 1


def test_groups_without_one_image_say_what_they_hold(data, tmp_path):
    group = zarr.create_group(tmp_path / "plate.zarr")
    with pytest.raises(RlnError, match="without an image"):
        _open(tmp_path / "plate.zarr")
    del group
    for name in ("0", "1"):
        _ome_zarr(tmp_path / "plate.zarr" / name, data, "0.5")
    with pytest.raises(RlnError, match="0, 1"):
        _open(tmp_path / "plate.zarr")
    assert _open(tmp_path / "plate.zarr" / "1").shape == SHAPE


def test_damaged_zarr_metadata_is_said(data, tmp_path):
    path = tmp_path / "cells.ome.zarr"
    _ome_zarr(path, data, "0.5")
    (path / "s0" / "zarr.json").write_text("{")
    with pytest.raises(RlnError, match="cells"):
        _open(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(RlnError, match="cannot be read as Zarr"):
        _open(path)


def test_a_damaged_chunk_is_an_error_that_says_where(data, tmp_path):
    path = tmp_path / "cells.ome.zarr"
    _ome_zarr(path, data, "0.5")
    chunk = next(p for p in (path / "s0").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"cells\.ome\.zarr.*\[0:12"):
        _open(path).read(WHOLE)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "tile": (32, 32)},
        {"compression": "zlib", "rowsperstrip": 8},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
)
def test_tiffs_of_all_kinds_are_read_in_parts(data, tmp_path, how):
    path = tmp_path / "cells.ome.tif"
    micro = {f"PhysicalSize{a}": v for a, v in zip("ZYX", VOXEL_UM, strict=True)}
    tifffile.imwrite(path, data, metadata={"axes": "ZYX", **micro}, **how)
    source = _open(path)
    assert source.voxel_um == pytest.approx(VOXEL_UM)
    np.testing.assert_array_equal(source.read(BOX), data[BOX])


def test_a_folder_of_planes_is_a_stack_in_the_order_of_its_numbers(data, tmp_path):
    for z, plane in enumerate(data):
        how = {"compression": "zlib"} if z % 2 else {}
        tifffile.imwrite(tmp_path / f"plane{z}.tif", plane, **how)
    (tmp_path / "notes.txt").write_text("nothing")
    source = _open(tmp_path, voxel_um=VOXEL_UM)
    assert source.shape == SHAPE
    np.testing.assert_array_equal(source.read(BOX), data[BOX])
    tifffile.imwrite(tmp_path / "plane5.tif", data[0, :8])
    with pytest.raises(RlnError, match="one size"):
        source.read(BOX)


def test_folders_and_files_that_hold_no_image(tmp_path):
    with pytest.raises(RlnError, match="without TIFFs"):
        _open(tmp_path)
    with pytest.raises(RlnError, match="there is no file"):
        _open(tmp_path / "absent")
    (tmp_path / "a.tif").write_text("nothing")
    with pytest.raises(RlnError, match=r"a\.tif is not a TIFF file"):
        _open(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("array", "axes", "message"),
    [
        (np.zeros((0, 3, 3)), "ZYX", "is empty"),
        (np.zeros((3, 3, 3), complex), "ZYX", "integer or float"),
        (np.zeros((3, 3, 3, 3), np.uint8), "ZYXS", "RGB"),
    ],
)
def test_arrays_that_are_no_image(array, axes, message):
    with pytest.raises(RlnError, match=message):
        Image(OpenedImage(array, axes, VOXEL_UM, "cells"), ImageFile(path="cells"))


def test_nan_is_said_with_its_place(tmp_path):
    data = np.ones(SHAPE, np.float32)
    data[4, 6, 12] = np.nan
    source = Image(OpenedImage(data, "ZYX", VOXEL_UM, "cells"), ImageFile(path="cells"))
    with pytest.raises(RlnError, match=r"cells.*\[3:9, 5:31, 11:50\].* 1 "):
        source.read(BOX)


def test_blocks_lie_all_over_a_volume_and_inside_it():
    shape = (100, 1000, 2000)
    found = blocks(shape, (32, 64, 64), 60)
    assert 30 < len(found) <= 60
    for box in found:
        assert all(0 <= p.start < p.stop <= n for p, n in zip(box, shape, strict=True))
    assert len({(b[1].start, b[2].start) for b in found}) > 20
    assert blocks((5, 6, 7), (32, 64, 64), 60) == [(slice(0, 5), slice(0, 6), slice(0, 7))]


def _written(target, data, time=0):
    for tile in plan_tiles(data.shape, (16, 32, 32), (0, 0, 0)):
        target.write(tile.core, data[tile.core], time)


@pytest.mark.parametrize("times", [None, 2])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_that_is_written_is_valid_and_reads_back(tmp_path, version, times):
    from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
    from ome_zarr_models.v05 import Image

    shape = (20, 300, 280)
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = tmp_path / "r.ome.zarr"
    record = Record(method="rld", facts={"iterations": 7})
    target = ZarrTarget.create(
        path, shape, times, "float32", VOXEL_UM, "cells", record,
        version=version, chunk=(16, 32, 32), block=(16, 32, 32),
    )  # fmt: skip
    time = 0 if times is None else 1
    for when in range(times or 1):
        _written(target, data if when == time else 0 * data, when)
    for level in range(1, len(target.levels)):
        size = target.levels[level].shape[-3:]
        for tile in plan_tiles(size, (16, 32, 32), (0, 0, 0)):
            target.write(tile.core, target.coarsened(tile.core, time, level), time, level)
    source = _open(path)
    assert source.voxel_um == pytest.approx(VOXEL_UM)
    assert source.record.facts == {"iterations": 7}
    assert source.times == (times or 1)
    np.testing.assert_array_equal(source.read(tuple(slice(0, n) for n in shape), time), data)
    group = zarr.open_group(path, mode="r")
    if version == "0.5":
        image = Image.from_zarr(group)
        multiscale = image.ome_attributes.multiscales[0]
    else:
        multiscale = Multiscale04.model_validate(group.attrs["multiscales"][0])
    assert [axis.name for axis in multiscale.axes] == list("tczyx"[0 if times else 2 :])
    assert multiscale.axes[-1].unit == "micrometer"
    assert multiscale.datasets[0].coordinateTransformations[0].scale[-3:] == list(VOXEL_UM)
    # A level is the mean of the voxels that it stands for, and lies where they do.
    coarse = target.read((slice(0, 20), slice(0, 150), slice(0, 140)), time, 1)
    np.testing.assert_allclose(coarse, data.reshape(20, 150, 2, 140, 2).mean((2, 4)), rtol=1e-5)
    shift = multiscale.datasets[1].coordinateTransformations[1].translation[-3:]
    assert shift == pytest.approx([0, 0.05, 0.06])


def test_odd_sizes_keep_their_last_voxel_in_the_pyramid(tmp_path):
    shape = (3, 301, 5)
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    target = ZarrTarget.create(
        tmp_path / "r.ome.zarr", shape, None, "uint8", (1.0, 1.0, 1.0), "r", Record(method="rld"),
        version="0.5", chunk=(4, 64, 6), block=(4, 64, 6),
    )  # fmt: skip
    for y in range(0, 301, 64):
        box = (slice(0, 3), slice(y, min(y + 64, 301)), slice(0, 5))
        target.write(box, data[box])
    assert target.levels[1].shape == (2, 151, 3)
    coarse = target.coarsened((slice(0, 2), slice(0, 151), slice(0, 3)), 0, 1)
    assert coarse.dtype == np.uint8
    assert coarse[1, 150, 2] == data[2, 300, 4]
    assert coarse[0, 0, 0] == pytest.approx(data[:2, :2, :2].mean(), abs=0.51)


def test_levels_make_voxels_nearly_cubic():
    factors = pyramid((400, 4000, 4000), (1.0, 0.1, 0.1))
    assert factors[0] == (1, 1, 1)
    assert factors[1] == (1, 2, 2)
    assert factors[-1][0] < factors[-1][1]
    assert pyramid((40, 200, 200), (1.0, 1.0, 1.0)) == [(1, 1, 1)]


@pytest.mark.parametrize("times", [None, 2])
def test_ome_tiff_that_is_written_reads_back_with_tifffile(data, tmp_path, times):
    path = tmp_path / "r.ome.tif"
    values = data.astype(np.float32)
    record = Record(method="rld", facts={"iterations": 7})
    target = TiffTarget.create(path, SHAPE, times, "float32", VOXEL_UM, "cells", record)
    _written(target, values, 0 if times is None else 1)
    whole = tifffile.imread(path)
    np.testing.assert_array_equal(whole if times is None else whole[1], values)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.is_bigtiff
        assert tif.series[0].axes == ("ZYX" if times is None else "TZYX")
    source = _open(path)
    assert source.voxel_um == pytest.approx(VOXEL_UM)
    assert source.record.facts == {"iterations": 7}
    np.testing.assert_array_equal(target.read(BOX, 0 if times is None else 1), values[BOX])


def test_is_zarr_knows_arrays_and_groups(data, tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=data)
    zarr.create_array(tmp_path / "b.zarr", data=data, zarr_format=2)
    assert is_zarr(tmp_path / "a.zarr")
    assert is_zarr(tmp_path / "b.zarr")
    assert not is_zarr(tmp_path)
    assert json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["node_type"] == "array"
    assert not is_zarr(Path(tmp_path / "absent"))


@pytest.mark.parametrize("times", [None, 1, 2])
def test_single_planes_are_written_and_read(tmp_path, times):
    shape, path = (1, 37, 50), tmp_path / "r.ome.tif"
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    target = TiffTarget.create(path, shape, times, "float32", VOXEL_UM, "r", Record(method="rld"))
    last = (times or 1) - 1
    _written(target, data, last)
    source = _open(path)
    assert source.shape == shape
    assert source.times == (times or 1)
    np.testing.assert_array_equal(source.read(tuple(slice(0, n) for n in shape), last), data)


def test_planes_of_all_kinds_are_volumes_of_one(data, tmp_path):
    tifffile.imwrite(tmp_path / "plane.tif", data[0])
    zarr.create_array(tmp_path / "plane.zarr", data=data[0])
    tifffile.imwrite(tmp_path / "times.ome.tif", data[:3], metadata={"axes": "TYX"})
    for name in ("plane.tif", "plane.zarr"):
        source = _open(tmp_path / name, voxel_um=VOXEL_UM)
        assert source.shape == (1, 37, 50)
        box = (slice(0, 1), slice(5, 31), slice(11, 50))
        np.testing.assert_array_equal(source.read(box)[0], data[0, 5:31, 11:50])
    with pytest.raises(RlnError, match=r"3.*time"):
        _open(tmp_path / "times.ome.tif", voxel_um=VOXEL_UM)
    series = _open(tmp_path / "times.ome.tif", voxel_um=VOXEL_UM, planes_are="z")
    assert (series.shape, series.times) == ((1, 37, 50), 3)
    np.testing.assert_array_equal(series.read(box, 2)[0], data[2, 5:31, 11:50])


def test_the_step_between_planes_in_files_is_not_made_up(data, tmp_path):
    for z, plane in enumerate(data[:3]):
        tifffile.imwrite(
            tmp_path / f"p{z}.tif", plane, imagej=True, resolution=(10, 10), metadata={"unit": "um"}
        )
    with pytest.raises(RlnError, match="does not say its voxel size"):
        _open(tmp_path)
    assert _open(tmp_path, voxel_um=VOXEL_UM).voxel_um == VOXEL_UM
