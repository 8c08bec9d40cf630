"""Layers to volumes and back."""

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels, Points

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.gui.copy_button import image_arguments, psf_arguments
from napari_rln.gui.layer_files import read_layers, reader, write_layer
from napari_rln.gui.layers import (
    CHANNEL,
    contrast_limits,
    layer_data,
    set_voxel_um,
    source_of,
    voxel_um_of,
)
from napari_rln.io.ome_zarr import ZarrTarget
from napari_rln.io.volumes import read, write

UM = ("um", "um", "um")
ORIGIN = (0.0, 0.0, 0.0)


def stack(shape=(4, 6, 8), **options):
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    return Image(data, **({"scale": (0.3, 0.1, 0.1), "units": UM, "name": "stack"} | options))


def test_a_result_lies_where_its_image_lies():
    layer = stack(translate=(1, 2, 3), rotate=((0, 0, 30)), axis_labels=("z", "y", "x"))
    source = source_of(layer, ORIGIN)
    volume = source.read()
    assert volume.voxel_um == pytest.approx((0.3, 0.1, 0.1))
    assert volume.data.dtype == np.float32
    result = source.layer_of(volume.with_data(volume.data + 1, name="result"))
    np.testing.assert_allclose(
        result.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3)), rtol=1e-6
    )
    assert result.units == layer.units
    assert result.axis_labels == layer.axis_labels


def test_voxels_are_micrometres_whatever_the_unit():
    assert voxel_um_of(stack(units=("nm",) * 3, scale=(300, 100, 100))) == pytest.approx(
        (0.3, 0.1, 0.1)
    )
    unknown = stack(units=("pixel",) * 3)
    assert voxel_um_of(unknown) is None
    with pytest.raises(RlnError, match=r"voxel size.*stack"):
        source_of(unknown, ORIGIN)
    set_voxel_um(unknown, (0.3, 0.1, 0.1))
    assert voxel_um_of(unknown) == pytest.approx((0.3, 0.1, 0.1))


def test_a_layer_given_a_voxel_size_stays_as_many_voxels_from_the_origin():
    layer = stack(units=("nm",) * 3, scale=(300, 100, 100), translate=(600, 100, 1000))
    set_voxel_um(layer, (0.3, 0.1, 0.2))
    np.testing.assert_allclose(layer.translate, (0.6, 0.1, 2.0))
    assert voxel_um_of(layer) == pytest.approx((0.3, 0.1, 0.2))


def turn(angle):
    """Return the affine that turns a stack about z."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


def shear(by):
    """Return the affine that moves rows along x."""
    affine = np.eye(4)
    affine[2, 1] = by
    return affine


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"affine": np.diag([2, 3, 3, 1])}, (0.6, 0.3, 0.3)),
        ({"affine": np.diag([2, 3, 3, 1]), "translate": (5, 6, 7)}, (0.6, 0.3, 0.3)),
        ({"scale": (1, 1, 1), "affine": np.diag([0.3, 0.1, 0.1, 1])}, (0.3, 0.1, 0.1)),
        ({"affine": turn(30)}, (0.3, 0.1, 0.1)),
        ({"affine": shear(1.0)}, (0.3, 0.1 * np.sqrt(2), 0.1)),
        ({"rotate": (0, 0, 30)}, (0.3, 0.1, 0.1)),
        ({"scale": (300, 100, 100), "units": ("nm",) * 3, "affine": np.diag([2, 1, 1, 1])},
         (0.6, 0.1, 0.1)),
    ],
)  # fmt: skip
def test_voxels_are_as_large_as_napari_shows_them(options, expected):
    layer = stack(**options)
    assert voxel_um_of(layer) == pytest.approx(expected)
    source = source_of(layer, ORIGIN)
    assert source.read().voxel_um == pytest.approx(expected)
    result = source.layer_of(source.read())
    assert voxel_um_of(result) == pytest.approx(expected)
    for corner in ((0, 0, 0), (3, 5, 7)):
        np.testing.assert_allclose(result.data_to_world(corner), layer.data_to_world(corner))
    set_voxel_um(layer, (0.4, 0.2, 0.1))
    assert voxel_um_of(layer) == pytest.approx((0.4, 0.2, 0.1))


def test_what_is_cut_out_or_seen_from_above_lies_there_with_an_affine_too():
    affine = np.diag([2.0, 3, 3, 1])
    affine[:3, 3] = 10, 20, 30
    layer = stack(affine=affine, translate=(1, 2, 3))
    source = source_of(layer, ORIGIN)
    cropped = source.cropped((slice(0, 4), slice(2, 5), slice(3, 8)))
    result = cropped.layer_of(cropped.read())
    np.testing.assert_allclose(result.data_to_world((0, 0, 0)), layer.data_to_world((0, 2, 3)))
    points = Points([[2.0, 3.0]], **source.lateral_transform)
    np.testing.assert_allclose(points.data_to_world((2, 3)), layer.data_to_world((0, 2, 3))[1:])
    with pytest.raises(RlnError, match="rotated"):
        source_of(stack(affine=turn(30)), ORIGIN).cropped((slice(0, 4),) * 3)


def test_a_time_point_lies_where_the_series_lies_with_an_affine_too():
    affine = np.diag([1.0, 2, 3, 3, 1])
    affine[1:4, 4] = 10, 20, 30
    layer = stack(
        (3, 4, 6, 8), scale=(1, 0.3, 0.1, 0.1), units=("s", *UM), axis_labels=("t", "z", "y", "x"),
        translate=(0, 1, 2, 3), affine=affine,
    )  # fmt: skip
    source = source_of(layer, (2, 0, 0, 0))
    assert source.voxel_um == pytest.approx((0.6, 0.3, 0.3))
    result = source.layer_of(source.read())
    for corner in ((0, 0, 0), (3, 5, 7)):
        np.testing.assert_allclose(
            result.data_to_world(corner), layer.data_to_world((2, *corner))[1:]
        )


def test_an_affine_is_written_into_the_voxel_size_of_a_file(tmp_path):
    layer = stack(affine=np.diag([2, 3, 3, 1]))
    data, options, _ = layer.as_layer_data_tuple()
    write_layer(str(tmp_path / "a.tif"), data, options)
    assert read(tmp_path / "a.tif").voxel_um == pytest.approx((0.6, 0.3, 0.3))


def test_a_run_that_is_copied_reads_the_time_point_and_channel_that_are_seen():
    series = stack(
        (3, 4, 6, 8), scale=(1, 0.3, 0.1, 0.1), units=("s", *UM), axis_labels=("t", "z", "y", "x"),
        metadata={CHANNEL: 1},
    )  # fmt: skip
    source = source_of(series, (2, 0, 0, 0))
    assert image_arguments(source, "like") == {
        "like": Path("stack.tif"), "voxel_um": source.voxel_um, "time": 2, "channel": 1,
    }  # fmt: skip
    with pytest.raises(RlnError, match="save it first"):
        psf_arguments(source)
    other = stack(
        (2, 3, 4, 6, 8), scale=(1, 1, 0.3, 0.1, 0.1), units=("pixel", "s", *UM),
        axis_labels=("position", "t", "z", "y", "x"),
    )  # fmt: skip
    with pytest.raises(RlnError, match="axis position"):
        image_arguments(source_of(other, (0,) * 5))


def test_of_a_time_series_the_time_point_that_is_seen_is_taken():
    layer = stack(
        (3, 4, 6, 8), scale=(1, 0.3, 0.1, 0.1), units=("s", *UM), axis_labels=("t", "z", "y", "x")
    )
    source = source_of(layer, (2, 0, 0, 0))
    np.testing.assert_array_equal(source.read().data, layer.data[2])
    assert source.name == "stack t=2"
    assert source.layer_of(source.read()).ndim == 3


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (None, "stack t=2"),  # napari calls it -4
        (("Time",), "stack t=2"),
        (("c",), "stack channel 2"),
        (("position",), "stack position=2"),
        (("t", "c"), "stack t=1, channel 2"),
    ],
)
def test_names_say_time_point_and_channel(labels, name):
    more = len(labels or "t")
    layer = stack(
        (3,) * more + (4, 6, 8),
        scale=(1,) * more + (0.3, 0.1, 0.1),
        units=("",) * more + UM,
        axis_labels=labels and (*labels, "z", "y", "x"),
    )
    assert source_of(layer, (1, 2, 0, 0, 0)[2 - more :]).name == name


def test_of_a_multiscale_image_the_finest_level_is_taken():
    fine = np.ones((8, 16, 16), np.float32)
    layer = Image([fine, fine[::2, ::2, ::2]], scale=(0.3, 0.1, 0.1), units=UM, multiscale=True)
    assert source_of(layer, ORIGIN).shape == (8, 16, 16)


def test_a_plane_stays_a_plane():
    layer = Image(np.ones((6, 8), np.float32), scale=(0.1, 0.1), units=UM[:2])
    source = source_of(layer, ORIGIN)
    assert source.shape == (1, 6, 8)
    assert source.layer_of(source.read()).data.shape == (6, 8)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (Image(np.zeros((4, 6, 8, 3), np.uint8), rgb=True, name="photo"), "split it"),
        (Labels(np.zeros((4, 6, 8), int), name="cells"), "choose an image layer"),
    ],
)
def test_what_is_no_volume_is_refused(layer, sentence):
    with pytest.raises(RlnError, match=sentence):
        source_of(layer, ORIGIN)


def test_nan_is_refused_when_it_is_read():
    data = np.zeros((4, 6, 8), np.float32)
    data[1, 2, 3] = np.nan
    with pytest.raises(RlnError, match=r"\(1, 2, 3\)"):
        source_of(Image(data, scale=(0.3, 0.1, 0.1), units=UM), ORIGIN).read()


def test_a_crop_lies_where_it_was_cut_out():
    layer = stack(translate=(1, 2, 3))
    cropped = source_of(layer, ORIGIN).cropped((slice(0, 4), slice(2, 5), slice(3, 8)))
    assert cropped.shape == (4, 3, 5)
    result = cropped.layer_of(cropped.read())
    np.testing.assert_allclose(result.data_to_world((0, 0, 0)), layer.data_to_world((0, 2, 3)))
    with pytest.raises(RlnError, match="rotated"):
        source_of(stack(rotate=(0, 0, 30)), ORIGIN).cropped((slice(0, 4),) * 3)


def test_contrast_is_shared():
    low, high = contrast_limits([np.zeros((4, 4)), np.full((4, 4), 3.0)])
    assert (low, high) == (0, 3)
    low, high = contrast_limits([np.zeros((4, 4))])
    assert low < high


def test_a_layer_is_written_and_read_with_voxel_size_and_record(tmp_path):
    record = Record(method="rld", facts={"iterations": 3})
    volume = Volume.from_array(np.ones((4, 6, 8)), (0.3, 0.1, 0.1), name="result", record=record)
    data, options, _ = layer_data(volume)
    path = str(tmp_path / "result.ome.tif")
    assert write_layer(path, data, options) == [path]
    assert reader(path) is read_layers
    [(again, shown, kind)] = read_layers(path)
    assert kind == "image"
    np.testing.assert_array_equal(again, volume.data)
    assert shown["scale"] == pytest.approx((0.3, 0.1, 0.1))
    assert shown["metadata"]["napari-rln"]["facts"] == {"iterations": 3}


def test_nanometres_and_the_finest_level_are_written(tmp_path):
    fine = np.arange(8 * 16 * 16, dtype=np.float32).reshape(8, 16, 16)
    layer = Image(
        [fine, fine[::2, ::2, ::2]], scale=(300, 100, 100), units=("nm",) * 3, multiscale=True
    )
    data, options, _ = layer.as_layer_data_tuple()
    path = tmp_path / "fine.tif"
    write_layer(str(path), data, options)
    written = read(path)
    assert written.voxel_um == pytest.approx((0.3, 0.1, 0.1))
    np.testing.assert_array_equal(written.data, fine)


def test_channels_become_layers_and_times_an_axis(tmp_path):
    import tifffile

    data = np.random.default_rng(0).poisson(9, (2, 4, 3, 6, 8)).astype(np.uint16)
    path = tmp_path / "series.ome.tif"
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (0.3, 0.1, 0.1), strict=True)}
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "TZCYX"} | sizes)
    layers = read_layers(str(path))
    assert [layer[1]["name"] for layer in layers] == [f"series channel {c}" for c in range(3)]
    for channel, (found, options, _) in enumerate(layers):
        np.testing.assert_array_equal(found, data[:, :, channel])
        assert options["axis_labels"] == ("t", "z", "y", "x")


def test_a_tiff_without_voxel_size_is_read_in_pixels(tmp_path):
    import tifffile

    data = np.arange(3 * 2 * 4 * 6 * 8, dtype=">u2").reshape(3, 4, 2, 6, 8)
    path = str(tmp_path / "plain.tif")
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "TZCYX"})
    layers = reader(path)(path)
    for channel, (found, options, _) in enumerate(layers):
        np.testing.assert_array_equal(found, data[:, :, channel])
        layer = Image(found, **options)
        assert layer.axis_labels == ("t", "z", "y", "x")
        assert tuple(layer.scale) == (1, 1, 1, 1)
        assert voxel_um_of(layer) is None  # typed on the page Deconvolve
    stack, planes = np.ones((4, 6, 8), np.float32), np.ones((2, 3, 4, 5, 6, 8), np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack")
    [(found, _, _)] = reader(path)(path)
    assert found.shape == stack.shape
    assert reader([path]) is None
    tifffile.imwrite(path, planes, photometric="minisblack")
    assert reader(path) is None  # axes that nobody knows
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    assert reader(str(tmp_path / "broken.tif")) is None


def test_writing_refuses_what_has_no_length(tmp_path):
    with pytest.raises(RlnError, match=r"voxel size.* a "):
        write_layer(
            str(tmp_path / "a.tif"),
            np.ones((4, 6, 8), np.float32),
            {"scale": (1, 1, 1), "units": ("pixel",) * 3, "name": "a"},
        )
    plane = {"scale": (0.1, 0.1), "units": ("um",) * 2, "name": "a", "rgb": True}
    with pytest.raises(RlnError, match="RGB"):
        write_layer(str(tmp_path / "a.tif"), np.ones((16, 16, 3), np.float32), plane)
    volume = Volume.from_array(np.ones((4, 6, 8)), (0.3, 0.1, 0.1))
    write(volume, tmp_path / "b.tif")
    assert read(tmp_path / "b.tif").voxel_um == pytest.approx((0.3, 0.1, 0.1))


@pytest.mark.parametrize("times", [None, 2])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_napari_opens_a_written_ome_zarr_as_multiscale(viewer, tmp_path, version, times):
    shape, path = (6, 300, 40), tmp_path / "r.ome.zarr"
    record = Record(method="rld", facts={"iterations": 3})
    target = ZarrTarget.create(
        path, shape, times, "float32", (0.3, 0.1, 0.1), "cells", record,
        version=version, chunk=(6, 64, 40), block=(6, 64, 40),
    )  # fmt: skip
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    for y in range(0, 300, 64):
        box = (slice(0, 6), slice(y, min(y + 64, 300)), slice(0, 40))
        target.write(box, data[box])
    coarse = tuple(slice(0, n) for n in target.levels[1].shape[-3:])
    target.write(coarse, target.coarsened(coarse, 0, 1), 0, 1)
    (layer,) = viewer.open(str(path), plugin="napari-rln")
    assert layer.multiscale
    assert len(layer.data) == len(target.levels) == 2
    assert layer.name == "cells"
    assert voxel_um_of(layer) == pytest.approx((0.3, 0.1, 0.1))
    source = source_of(layer, (0.0,) * layer.ndim)
    np.testing.assert_array_equal(source.read().data, data)
    assert source.read().record == record
    assert layer.ndim == (3 if times is None else 4)


def test_channels_of_an_ome_zarr_are_layers(tmp_path):
    import zarr

    group = zarr.create_group(tmp_path / "two.ome.zarr")
    data = np.arange(2 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 4, 5, 6)
    group.create_array("0", data=data)
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = {"type": "scale", "scale": [1, 0.3, 0.1, 0.1]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": levels, "name": "two"}]
    }  # fmt: skip
    path = str(tmp_path / "two.ome.zarr")
    layers = reader(path)(path)
    assert [options["name"] for _, options, _ in layers] == ["two channel 0", "two channel 1"]
    assert [options["metadata"][CHANNEL] for _, options, _ in layers] == [0, 1]
    np.testing.assert_array_equal(np.asarray(layers[1][0]), data[1])
    assert reader(str(tmp_path)) is None
