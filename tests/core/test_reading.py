"""Files as microscopes, programs and broken copies leave them: read rightly, or refused."""

import itertools
import json
import logging
import re
import shutil
import uuid
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.ome_zarr import ZarrTarget
from napari_rln.io.volumes import read, write, write_channels

VOXEL_UM = (0.3, 0.1, 0.1)
SHAPE = (6, 14, 10)


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype(np.uint16)


def _read(path, **options):
    return read(path, **options)


def _same(volume, data, voxel_um=VOXEL_UM):
    np.testing.assert_array_equal(volume.data, data)
    assert volume.voxel_um == pytest.approx(voxel_um)


# --- OME-Zarr -----------------------------------------------------------------------------------


def _ngff(path, array, axes, scale, version, *, unit="micrometer", chunks=None):
    """Write an OME-Zarr by zarr alone."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    level = group.create_array(
        "0", shape=array.shape, dtype=array.dtype, chunks=chunks or array.shape
    )
    level[...] = array
    kinds = {"c": "channel", "t": "time"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space")}
        | ({"unit": unit} if axis in "xyz" and unit else {})
        for axis in axes
    ]
    scaled = {"type": "scale", "scale": list(scale)}
    if version == "0.6":
        link = {"input": "0", "output": "physical"}
        steps = {
            "type": "sequence",
            "transformations": [scaled, {"type": "translation", "translation": [5.0] * len(axes)}],
        }
        image = {
            "coordinateSystems": [{"name": "other", "axes": named[::-1]},
                                  {"name": "physical", "axes": named}],
            "datasets": [{"path": "0", "coordinateTransformations": [steps | link]}],
            "coordinateTransformations": [
                {"type": "scale", "scale": [7.0] * len(axes), "input": "physical",
                 "output": "other"}
            ],
        }  # fmt: skip
    else:
        image = {
            "axes": named,
            "datasets": [{"path": "0", "coordinateTransformations": [scaled]}],
        }
    if version == "0.4":
        group.attrs["multiscales"] = [image | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("axes", list(itertools.permutations("zyx")))
def test_ome_zarr_is_read_whatever_the_order_of_its_axes(tmp_path, data, axes, version):
    order = ["zyx".index(axis) for axis in axes]
    scale = [VOXEL_UM[at] for at in order]
    path = _ngff(tmp_path / "a.ome.zarr", data.transpose(order), axes, scale, version)
    _same(_read(path), data)
    source = open_image(ImageFile(path=str(path)))
    box = (slice(1, 4), slice(3, 9), slice(2, 8))
    np.testing.assert_array_equal(source.read(box), data[box])


@given(axes=st.permutations("tczyx"), channel=st.integers(0, 1), time=st.integers(0, 2))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_channels_and_times_are_found_in_any_order(tmp_path, axes, channel, time):
    five = np.random.default_rng(1).integers(1, 99, (3, 2, 4, 6, 8)).astype(np.uint16)
    order = ["tczyx".index(axis) for axis in axes]
    path = tmp_path / f"{uuid.uuid4().hex}.zarr"
    scale = [(1, 1, *VOXEL_UM)[at] for at in order]
    _ngff(path, five.transpose(order), axes, scale, "0.5")
    _same(_read(path, channel=channel, time=time), five[time, channel])


@pytest.mark.parametrize(
    ("changes", "axes", "message"),
    [
        ({"unit": " "}, "zyx", "does not say its voxel size"),
        ({"unit": None}, "zyx", "does not say its voxel size"),
        ({}, "zyxq", "q; they must be of t, c, z, y, x"),
        ({}, "zy", "it names the axes z, y but its array has 3"),
    ],
)
def test_odd_metadata_are_asked_about(tmp_path, data, changes, axes, message):
    array = data if len(axes) <= 3 else data[..., None]
    path = _ngff(
        tmp_path / "a.zarr", array, axes, (0.3, 0.1, 0.1, 1)[: len(axes)], "0.4", **changes
    )
    with pytest.raises(RlnError, match=message):
        _read(path)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"type": "scale", "scale": [0.3, 0.1]}],
        [{"type": "scale", "scale": "0.3"}],
        [{"type": "affine", "affine": [[1, 0, 0, 0]] * 3}],
        [{"type": "scale", "scale": [0, 0, 0]}],
        "none",
    ],
)
def test_a_scale_that_is_not_clear_is_no_voxel_size(tmp_path, data, steps):
    path = _ngff(tmp_path / "a.zarr", data, "zyx", VOXEL_UM, "0.5")
    described = json.loads((path / "zarr.json").read_text())
    image = described["attributes"]["ome"]["multiscales"][0]
    image["datasets"][0]["coordinateTransformations"] = steps
    (path / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(RlnError, match="does not say its voxel size"):
        _read(path)
    _same(_read(path, voxel_um=VOXEL_UM), data)


def _chunks(path):
    return sorted(p for p in (path / "0").rglob("*") if p.is_file() and p.name[0] not in ".z")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_chunks_that_are_missing_are_named(tmp_path, data, version):
    path = _ngff(tmp_path / "a.ome.zarr", data, "zyx", VOXEL_UM, version, chunks=(3, 7, 10))
    chunks = _chunks(path)
    assert len(chunks) == 4
    chunks[2].unlink()
    with pytest.raises(RlnError, match=r"a\.ome\.zarr.*1 of 4 chunks.*z 1 y 0.*`missing=mask`"):
        _read(path)
    with pytest.warns(RlnWarning, match="1 of 4 chunks"):
        masked = _read(path, missing="mask")
    with pytest.warns(RlnWarning, match="1 of 4 chunks"):
        zero = _read(path, missing="zero")
    expected = data.copy()
    expected[3:, :7] = 0
    _same(masked, expected)
    _same(zero, expected)
    assert (masked.fill, zero.fill) == (0.0, None)
    # The part that is there is whole.
    _same(_read(path, crop=((0, 3), (0, 14), (0, 10))), data[:3])


def test_only_chunks_of_the_chosen_channel_have_to_be_there(tmp_path, data):
    both = np.stack([data, data + 1])
    path = _ngff(tmp_path / "a.zarr", both, "czyx", (1, *VOXEL_UM), "0.5", chunks=(1, *SHAPE))
    _chunks(path)[1].unlink()
    _same(_read(path, channel=0), data)
    with pytest.raises(RlnError, match=r"1 of 1 chunks.*c 1"):
        _read(path, channel=1)


@pytest.mark.parametrize(("dtype", "fill"), [("f4", np.nan), ("u2", 5), ("u2", 0)])
def test_only_missing_chunks_are_zeros_whatever_the_fill_value(tmp_path, dtype, fill):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(2, 5, 6, 9), dtype=dtype, chunks=(1, 2, 4, 4), fill_value=fill,
        dimension_names=list("tzyx"), config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = 5  # also where chunks are there
    (tmp_path / "a.zarr" / "c" / "1" / "0" / "1" / "2").unlink()
    (tmp_path / "a.zarr" / "c" / "1" / "2" / "0" / "1").write_bytes(b"")  # a copy that broke off
    wanted = np.full((5, 6, 9), 5.0)
    wanted[0:2, 4:, 8:] = wanted[4:, :4, 4:8] = 0
    options = {"voxel_um": VOXEL_UM, "time": 1, "missing": "zero"}
    with pytest.warns(RlnWarning, match="2 of 18 chunks"):
        _same(_read(tmp_path / "a.zarr", **options), wanted)
    crop = ((1, 5), (1, 6), (3, 9))
    with pytest.warns(RlnWarning, match="2 of 18 chunks"):
        _same(_read(tmp_path / "a.zarr", crop=crop, **options), wanted[1:5, 1:6, 3:9])
    assert (_read(tmp_path / "a.zarr", voxel_um=VOXEL_UM, time=0).data == 5).all()


@pytest.mark.parametrize("names", [("y", "x", "plane"), ("y", "x", None), ("lambda", "y", "x")])
def test_zarr_dimensions_of_which_some_are_known_are_not_guessed(tmp_path, data, names):
    zarr.create_array(tmp_path / "a.zarr", data=data, dimension_names=names)
    with pytest.raises(RlnError, match="t, c, z, y, x"):
        _read(tmp_path / "a.zarr", voxel_um=VOXEL_UM)


def test_our_own_results_have_all_their_chunks(tmp_path):
    path = tmp_path / "r.ome.zarr"
    record = Record(method="rld")
    target = ZarrTarget.create(
        path, (8, 8, 8), None, "float32", VOXEL_UM, "r", record, version="0.5",
        chunk=(4, 4, 4), block=(4, 8, 8),
    )  # fmt: skip
    for start in (0, 4):
        box = (slice(start, start + 4), slice(0, 8), slice(0, 8))
        target.write(box, np.zeros((4, 8, 8), np.float32))
    assert not _read(path).data.any()  # zeros that were written are no loss
    next(p for p in (path / "0").rglob("*") if p.is_file() and p.name.isdigit()).unlink()
    with pytest.raises(RlnError, match="1 of 2 chunks"):
        _read(path)


def test_a_file_within_a_zarr_opens_it(tmp_path, data):
    path = _ngff(tmp_path / "a.ome.zarr", data, "zyx", VOXEL_UM, "0.5")
    _same(_read(path / "zarr.json"), data)
    chunk = next(file for file in (path / "0").rglob("*") if file.is_file())
    _same(_read(chunk, voxel_um=VOXEL_UM), data)


# --- TIFF ---------------------------------------------------------------------------------------


def _imagej(path, data, **metadata):
    z, y, x = VOXEL_UM
    tifffile.imwrite(
        path, data, imagej=True, resolution=(1 / x, 1 / y),
        metadata={"axes": "ZYX", "spacing": z, "unit": "um"} | metadata,
    )  # fmt: skip


def _ome(path, data, promised, **options):
    """Write planes whose OME-XML promises a number of them."""
    z, y, x = VOXEL_UM
    depth, height, width = (promised, *data.shape[1:])
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1" PhysicalSizeX="{x}" '
        f'PhysicalSizeY="{y}" PhysicalSizeZ="{z}"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        + "".join(
            f'<TiffData IFD="{i}" FirstZ="{i}" PlaneCount="1"/>' for i in range(min(depth, 99))
        )
        + "</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(path) as tif:
        for number, plane in enumerate(data):
            description = xml if number == 0 else None
            tif.write(
                plane, photometric="minisblack", metadata=None, description=description, **options
            )


def _pages(path, pages, **writer):
    """Write pages, each with options of its own."""
    with tifffile.TiffWriter(path, **writer) as tif:
        for plane, options in pages:
            tif.write(plane, photometric="minisblack", metadata=None, contiguous=False, **options)


def _stack(path, data, kind):
    """Write planes in one of the ways in which stacks are written."""
    if kind == "imagej":
        _imagej(path, data)
    elif kind == "ome":
        _ome(path, data, len(data))
    else:
        options = {"compression": "zlib"} if kind == "zlib" else {}
        _pages(path, [(plane, options) for plane in data], bigtiff=kind == "bigtiff")


@given(kind=st.sampled_from(["imagej", "ome", "pages", "zlib"]), share=st.floats(0.01, 0.999))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_stack_cut_anywhere_is_refused_or_read_as_far_as_it_goes(tmp_path, data, kind, share):
    path = tmp_path / "cut.tif"
    _stack(path, data, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    try:
        read = _read(path, voxel_um=VOXEL_UM)
    except RlnError:
        pass
    else:  # nothing but a description at the end was lost
        np.testing.assert_array_equal(read.data, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RlnWarning)
        try:
            read = _read(path, voxel_um=VOXEL_UM, missing="mask")
        except RlnError:
            return
    assert len(read.data) <= len(data)
    np.testing.assert_array_equal(read.data, data[: len(read.data)])


def test_an_acquisition_that_ended_early_names_its_planes(tmp_path, data, capfd):
    _ome(tmp_path / "a.ome.tif", data[:4], promised=6)
    with pytest.raises(RlnError, match=r"a\.ome\.tif.*2 of 6 planes.*z 4 to 5"):
        _read(tmp_path / "a.ome.tif")
    with pytest.warns(RlnWarning, match="2 of 6 planes"):
        _same(_read(tmp_path / "a.ome.tif", missing="mask"), data[:4])
    assert capfd.readouterr().err == ""  # what tifffile notes is not for the user


def test_an_imagej_stack_of_which_one_plane_is_found_is_cut_short(tmp_path, data):
    _imagej(tmp_path / "a.tif", data)
    size = (tmp_path / "a.tif").stat().st_size
    with (tmp_path / "a.tif").open("r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(RlnError, match=r"a\.tif.*3 of 6 planes.*z 3 to 5"):
        _read(tmp_path / "a.tif")


_OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


def _pixels(number, names, ids, voxel_um=VOXEL_UM, folder=""):
    """Return an image of OME-XML whose planes are the only ones of files."""
    z, y, x = voxel_um
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{n}" PlaneCount="1"><UUID FileName="{folder}{name}">'
        f"{ids[name]}</UUID></TiffData>"
        for n, name in enumerate(names)
    )
    return (
        f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{SHAPE[2]}" SizeY="{SHAPE[1]}" SizeZ="{len(names)}" SizeC="1" '
        f'SizeT="1" PhysicalSizeX="{1000 * x}" PhysicalSizeXUnit="nm" PhysicalSizeY="{y}" '
        f'PhysicalSizeZ="{z}"><Channel ID="Channel:{number}:0" SamplesPerPixel="1"/>{planes}'
        "</Pixels></Image>"
    )


def _set(folder, images, *, companion=False, voxels=(VOXEL_UM,) * 2, within=""):
    """Write images as a set of OME-TIFFs of a plane each, with or without a companion."""
    names = [[f"p{i}_z{n}.ome.tif" for n in range(len(image))] for i, image in enumerate(images)]
    flat = [name for some in names for name in some]
    ids = {name: f"urn:uuid:{uuid.UUID(int=n + 1)}" for n, name in enumerate(flat)}
    pixels = "".join(_pixels(i, some, ids, voxels[i], within) for i, some in enumerate(names))
    (folder / within).mkdir(parents=True)
    for i, image in enumerate(images):
        for name, plane in zip(names[i], image, strict=True):
            own = f'{_OME} UUID="{ids[name]}">'
            text = f"{own}{pixels}</OME>"
            if companion:
                text = f'{own}<BinaryOnly MetadataFile="set.companion.ome" UUID="x"/></OME>'
            tifffile.imwrite(
                folder / within / name, plane, photometric="minisblack", metadata=None,
                description=text,
            )  # fmt: skip
    if companion:
        (folder / "set.companion.ome").write_text(f"{_OME}>{pixels}</OME>", encoding="utf-8")
    return folder


@pytest.mark.parametrize("companion", [False, True])
def test_files_of_a_set_that_are_missing_are_named(tmp_path, data, companion):
    folder = _set(tmp_path / "set", [data], companion=companion)
    _same(_read(folder), data)
    _same(_read(folder / "p0_z3.ome.tif"), data)
    for spoil in (lambda file: file.write_bytes(b""), lambda file: file.unlink()):
        spoil(folder / "p0_z2.ome.tif")
        with pytest.raises(RlnError, match=r"1 of 6 planes.*z 2"):
            _read(folder / "p0_z3.ome.tif")
        with pytest.warns(RlnWarning, match="1 of 6"):
            read = _read(folder / "p0_z3.ome.tif", missing="mask")
        assert read.fill == 0
        assert not read.data[2].any()
    if companion:
        _same(_read(_set(tmp_path / "deep", [data], companion=True, within="data/")), data)
        (folder / "set.companion.ome").unlink()
        with pytest.raises(RlnError, match="not beside it"):
            _read(folder / "p0_z3.ome.tif")


@pytest.mark.parametrize("companion", [False, True])
def test_of_several_positions_the_file_tells_which(tmp_path, data, companion):
    other = data[::-1, ::-1] + 1
    voxels = (VOXEL_UM, (0.5, 0.2, 0.2))
    folder = _set(tmp_path / "set", [data, other], companion=companion, voxels=voxels)
    _same(_read(folder / "p0_z3.ome.tif"), data)
    _same(_read(folder / "p1_z3.ome.tif"), other, voxels[1])
    with pytest.raises(RlnError, match=r"2 images.*`series`.*0\.\.1"):
        _read(folder)
    _same(_read(folder, series=1), other, voxels[1])
    if not companion:  # described, but not there
        for file in folder.glob("p0*"):
            file.unlink()
        _same(_read(folder / "p1_z0.ome.tif"), other, voxels[1])


def test_files_of_one_name_are_not_taken_for_each_other(tmp_path, data):
    folder = _set(tmp_path / "set", [data], companion=True)
    text = (folder / "set.companion.ome").read_text()
    for n in range(len(data)):
        text = text.replace(f"p0_z{n}.ome.tif", f"{n}/plane.ome.tif")
    (folder / "set.companion.ome").write_text(text)
    shutil.copy(folder / "p0_z0.ome.tif", folder / "plane.ome.tif")
    with pytest.raises(RlnError, match=r"several files.*plane\.ome\.tif"):
        _read(folder / "set.companion.ome")


def test_tiff_data_without_numbers_are_all_planes_of_a_file(tmp_path, data):
    planes = "".join(
        f'<TiffData FirstC="{c}"><UUID FileName="c{c}.ome.tif">x</UUID></TiffData>' for c in (0, 1)
    )
    text = _pixels(0, [], {}).replace('SizeZ="0" SizeC="1"', 'SizeZ="6" SizeC="2"')
    text = text.replace("</Pixels>", f"{planes}</Pixels>")
    (tmp_path / "a.companion.ome").write_text(f"{_OME}>{text}</OME>", encoding="utf-8")
    for c in (0, 1):
        with tifffile.TiffWriter(tmp_path / f"c{c}.ome.tif") as tif:
            for plane in data[: 6 - 2 * c]:
                tif.write(plane + c, metadata=None)
    _same(_read(tmp_path / "a.companion.ome", channel=0), data)
    with pytest.raises(RlnError, match=r"2 of 6 planes.*c 1 z 4 to 5"):
        _read(tmp_path / "a.companion.ome", channel=1)


ODD_PAGES = {
    "type": lambda plane: (plane.astype(np.float32), {}),
    "compression": lambda plane: (plane, {"compression": "zlib"}),
    "size": lambda plane: (plane[:9], {}),
}


@pytest.mark.parametrize("kind", ODD_PAGES)
def test_a_plane_that_is_unlike_the_others_is_not_left_out(tmp_path, data, kind):
    pages = [(plane, {}) for plane in data]
    pages[2] = ODD_PAGES[kind](data[2])
    _pages(tmp_path / "a.tif", pages)
    with pytest.raises(RlnError, match="2 images"):
        _read(tmp_path / "a.tif", voxel_um=VOXEL_UM)
    plane, options = pages[2]
    _ome(tmp_path / "b.ome.tif", data, promised=6, contiguous=False)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        xml = tif.ome_metadata
    with tifffile.TiffWriter(tmp_path / "b.ome.tif") as tif:
        for number in range(6):
            tif.write(
                plane if number == 2 else data[number], photometric="minisblack", metadata=None,
                description=xml if number == 0 else None, contiguous=False,
                **(options if number == 2 else {}),
            )  # fmt: skip
    with pytest.raises(RlnError, match=r"not all stored in the same way|cannot be read"):
        _read(tmp_path / "b.ome.tif")


def test_a_small_copy_is_no_image_and_an_overview_is_one(tmp_path, data):
    small = (data[0, ::4, ::4], {"subfiletype": 1})
    _pages(tmp_path / "a.tif", [*((plane, {}) for plane in data), small])
    _same(_read(tmp_path / "a.tif", voxel_um=VOXEL_UM), data)
    _pages(tmp_path / "b.tif", [(data[0, ::4, ::4], {}), *((plane, {}) for plane in data)])
    with pytest.raises(RlnError, match=r"2 images.*4 x 3, 6 x 14 x 10.*`series`"):
        _read(tmp_path / "b.tif", voxel_um=VOXEL_UM)
    _same(_read(tmp_path / "b.tif", voxel_um=VOXEL_UM, series=1), data)


def test_planes_beyond_the_description_come_with_a_warning(tmp_path, data):
    _ome(tmp_path / "a.ome.tif", data, promised=4, contiguous=False)
    with pytest.warns(RlnWarning, match="2 planes more"):
        _same(_read(tmp_path / "a.ome.tif"), data[:4])


def _lacks_no_plane_in_silence(path, data, content, kept):
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    try:
        read = _read(path, voxel_um=VOXEL_UM)
    except RlnError:
        return
    assert read.shape == data.shape  # values are lost, but no plane is


@given(kind=st.sampled_from(["pages", "bigtiff", "ome"]), share=st.floats(0.01, 0.999))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_copy_whose_length_was_reserved_lacks_no_plane_in_silence(tmp_path, data, kind, share):
    _stack(tmp_path / "a.tif", data, kind)
    content = (tmp_path / "a.tif").read_bytes()
    _lacks_no_plane_in_silence(tmp_path / "a.tif", data, content, int(share * len(content)))


@pytest.mark.parametrize("kind", ["pages", "bigtiff", "ome"])
def test_a_copy_that_ended_just_before_the_next_plane_is_named(tmp_path, data, kind):
    _stack(tmp_path / "a.tif", data, kind)
    content = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        form = tif.tiff
        links = [p.offset + form.tagnosize + len(p.tags) * form.tagsize for p in tif.pages][:5:4]
    for link in links:
        for kept in range(link - form.tagsize, link + form.offsetsize, 2):
            _lacks_no_plane_in_silence(tmp_path / "a.tif", data, content, kept)


def test_padding_behind_the_last_plane_is_no_plane(tmp_path, data):
    _stack(tmp_path / "a.tif", data, "pages")
    with (tmp_path / "a.tif").open("ab") as file:
        file.write(bytes(100))  # a plane has 280
    _same(_read(tmp_path / "a.tif", voxel_um=VOXEL_UM), data)


@pytest.mark.parametrize("lead", [(1,), (1, 1)])
def test_unnamed_axes_of_one_entry_count_for_nothing(tmp_path, data, lead):
    tifffile.imwrite(tmp_path / "a.tif", data.reshape(*lead, *SHAPE), photometric="minisblack")
    _same(_read(tmp_path / "a.tif", voxel_um=VOXEL_UM), data)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([data, data]), photometric="minisblack")
    with pytest.raises(RlnError, match=r"axis.*name"):
        _read(tmp_path / "b.tif", voxel_um=VOXEL_UM)


def test_planes_beyond_any_file_are_refused_before_they_are_listed(tmp_path, data):
    _ome(tmp_path / "a.ome.tif", data, promised=10**8)
    with pytest.raises(RlnError, match="100000000 x 1 x 1 planes"):
        _read(tmp_path / "a.ome.tif")


def test_sizes_that_no_memory_holds_are_refused_before_they_are_read(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**4,) * 3, dtype="u2", chunks=(100,) * 3)
    with pytest.raises(RlnError, match="1000000 of 1000000 chunks"):
        _read(tmp_path / "a.zarr", voxel_um=VOXEL_UM)
    (tmp_path / "a.zarr" / "c" / "99" / "99").mkdir(parents=True)
    (tmp_path / "a.zarr" / "c" / "99" / "99" / "99").write_bytes(b"cut")
    with (
        pytest.warns(RlnWarning, match="999999 of 1000000"),
        pytest.raises(RlnError, match=r"6000 GB.* GB"),
    ):
        _read(tmp_path / "a.zarr", voxel_um=VOXEL_UM, missing="zero")
    plane = (1, 10**6, 10**6)
    zarr.create_array(tmp_path / "b.zarr", shape=plane, dtype="u2", chunks=plane)
    (tmp_path / "b.zarr" / "c" / "0" / "0").mkdir(parents=True)
    (tmp_path / "b.zarr" / "c" / "0" / "0" / "0").write_bytes(b"cut")
    with pytest.raises(RlnError, match=r"pieces of 2000\.0 GB"):
        open_image(ImageFile(path=str(tmp_path / "b.zarr"), voxel_um=VOXEL_UM))


def test_a_zarr_that_promises_what_no_disk_holds_is_refused_at_once(tmp_path):
    shape = (10**12, 3, 3)
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="u2", chunks=(1, 3, 3))
    with pytest.raises(RlnError, match="1000000000000 of 1000000000000 chunks"):
        _read(tmp_path / "a.zarr", voxel_um=VOXEL_UM)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_planes_that_are_called_times_are_asked_about_in_every_tiff(tmp_path, data, name):
    z, y, x = VOXEL_UM
    if name == "a.tif":
        _imagej(tmp_path / name, data, axes="TYX")
    else:
        sizes = {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
        tifffile.imwrite(tmp_path / name, data, metadata={"axes": "TYX"} | sizes)
    with pytest.raises(RlnError, match=r"6.*time.*planes_are=time"):
        _read(tmp_path / name)
    _same(_read(tmp_path / name, planes_are="time", voxel_um=VOXEL_UM), data)


def test_planes_that_are_called_times_may_end_early(tmp_path, data):
    _ome(tmp_path / "a.ome.tif", data[:4], promised=6)
    content = (tmp_path / "a.ome.tif").read_bytes()
    for old, new in ((b'SizeZ="6"', b'SizeZ="1"'), (b'SizeT="1"', b'SizeT="6"'),
                     (b"FirstZ", b"FirstT")):  # fmt: skip
        content = content.replace(old, new)
    (tmp_path / "a.ome.tif").write_bytes(content)
    with pytest.warns(RlnWarning, match="2 of 6 planes"):
        read = _read(tmp_path / "a.ome.tif", planes_are="time", missing="mask")
    np.testing.assert_array_equal(read.data, data[:4])


def test_zeiss_lsm_says_its_voxel_size(tmp_path, data):
    import struct

    depth, height, width = SHAPE
    z, y, x = VOXEL_UM
    info = struct.pack("<Iiiiiiii", 67127628, 512, width, height, depth, 1, 1, 2)
    info += struct.pack("<ii6d", 128, 128, x * 1e-6, y * 1e-6, z * 1e-6, 0, 0, 0)
    info = info.ljust(512, b"\0")
    with tifffile.TiffWriter(tmp_path / "a.lsm") as tif:
        for n, plane in enumerate(data):
            tag = [(34412, 1, len(info), info, True)] if n == 0 else ()
            tif.write(
                plane, photometric="minisblack", metadata=None, software=None, subfiletype=0,
                extratags=tag,
            )  # fmt: skip
            tif.write(
                np.zeros((3, 8, 8), np.uint8), photometric="rgb", planarconfig="separate",
                metadata=None, software=None, subfiletype=1,
            )  # fmt: skip
    _same(_read(tmp_path / "a.lsm"), data)


def test_voxel_sizes_in_nanometres_are_said_to_be_so(tmp_path, data):
    _imagej(tmp_path / "a.tif", data)
    with pytest.raises(RlnError, match=r"0\.3 0\.1 0\.1.*300 100 100 nm"):
        _read(tmp_path / "a.tif", voxel_um=(300, 100, 100))


def test_printing_resolutions_are_no_voxel_size(tmp_path, data):
    text = "ImageJ=1.54f\nimages=6\nslices=6\nunit=inch\n"
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as tif:
        for n, plane in enumerate(data):
            tif.write(
                plane.astype(">u2"), photometric="minisblack", metadata=None, software=None,
                description=text if n == 0 else None, resolution=(72, 72), resolutionunit=2,
            )  # fmt: skip
    with pytest.raises(RlnError, match=r"voxel size.*25400.*printing resolution"):
        _read(tmp_path / "a.tif")


def test_decimal_commas_are_asked_about(tmp_path, data):
    _ome(tmp_path / "a.ome.tif", data, len(data))
    content = (tmp_path / "a.ome.tif").read_bytes()
    (tmp_path / "a.ome.tif").write_bytes(content.replace(b'X="0.1"', b'X="0,1"'))
    with pytest.raises(RlnError, match="does not say its voxel size"):
        _read(tmp_path / "a.ome.tif")


def test_doubtful_voxel_sizes_come_with_a_warning(tmp_path, data):
    _imagej(tmp_path / "a.tif", data)
    with pytest.warns(RlnWarning, match="magnification"):
        _read(tmp_path / "a.tif", voxel_um=(6.5, 6.5, 6.5))


# --- folders ------------------------------------------------------------------------------------


def _planes(folder, names):
    """Write planes by their names, each of one value."""
    folder.mkdir()
    for name, value in names.items():
        tifffile.imwrite(folder / name, np.full((5, 6), value, np.uint16))
    return folder


PATTERNS = {
    "Series001_z{z:02d}_ch{c:02d}.tif": 0,
    "cellxy01c{c}z{z}.tif": 1,
    "img_t000_z{z:03d}_c{c}.tiff": 0,
    "T0001C{c:02d}Z{z:03d}.tif": 1,
    "scan_w{c}_z{z}.TIF": 1,
    "channel{c}_slice_{z}.tif": 0,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_exported_planes_are_sorted_by_their_names(tmp_path, pattern):
    first = PATTERNS[pattern]
    names = {
        pattern.format(z=z + first, c=c + first): 100 * c + z for z in range(12) for c in range(2)
    }
    folder = _planes(tmp_path / "planes", names)
    with pytest.raises(RlnError, match=r"2.*channel"):
        _read(folder, voxel_um=VOXEL_UM)
    for channel in range(2):
        read = _read(folder, voxel_um=VOXEL_UM, channel=channel)
        assert read.data[:, 0, 0].tolist() == [100 * channel + z for z in range(12)]


def test_times_in_names_are_times(tmp_path):
    names = {f"img_t{t:03d}_z{z:03d}.tif": 10 * t + z for t in range(3) for z in range(4)}
    source = open_image(ImageFile(path=str(_planes(tmp_path / "planes", names)), voxel_um=VOXEL_UM))
    assert (source.times, source.shape) == (3, (4, 5, 6))
    whole = (slice(0, 4), slice(0, 5), slice(0, 6))
    assert source.read(whole, 2)[:, 0, 0].tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a1_b1.tif", "a1_b2.tif", "a2_b1.tif", "a2_b2.tif"], "several numbers vary"),
        (["pos1_z1.tif", "pos1_z2.tif", "pos2_z1.tif", "pos2_z2.tif"], "several positions"),
        (["one.tif", "two.tif"], "no numbers"),
        (["a1.tif", "b_2_3.tif"], "several kinds"),
        (["z1.tif", "z01.tif", "z2.tif"], "same plane"),
    ],
)
def test_folders_whose_names_do_not_tell_are_refused_with_a_list(tmp_path, names, message):
    folder = _planes(tmp_path / "planes", dict.fromkeys(names, 1))
    with pytest.raises(RlnError, match=message) as caught:
        _read(folder, voxel_um=VOXEL_UM)
    assert all(name in str(caught.value) for name in names[:2])


def test_a_plane_that_is_missing_in_a_folder_is_named(tmp_path):
    names = {f"z{z:02d}.tif": z + 1 for z in range(8) if z != 5}
    folder = _planes(tmp_path / "planes", names)
    with pytest.raises(RlnError, match=r"1 of 8 planes.*z 5"):
        _read(folder, voxel_um=VOXEL_UM)
    with pytest.warns(RlnWarning, match="1 of 8"):
        read = _read(folder, voxel_um=VOXEL_UM, missing="mask")
    assert read.data[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 0, 7, 8]


def test_numbers_that_are_no_count_are_only_an_order(tmp_path):
    names = {f"img_{n}.tif": k for k, n in enumerate((1031, 1100, 2411, 9007))}
    with pytest.warns(RlnWarning, match=r"irregular \(1031, 1100, 2411, 9007"):
        read = _read(_planes(tmp_path / "planes", names), voxel_um=VOXEL_UM)
    assert read.data[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("numbers", "lacking"),
    [
        ((0, 1, 2, 20, 21, 22), "17 of 23 planes (z 3 to 19)"),
        ((*range(10), *range(40, 50)), "30 of 50 planes (z 10 to 39)"),
        ((0, 2, 4, 5, 6, 8), "3 of 9 planes (z 1, 3, 7)"),
        ((0, 10, 20, 40), "1 of 5 planes (z 3)"),
    ],
)
def test_gaps_are_not_closed(tmp_path, numbers, lacking):
    folder = _planes(tmp_path / "planes", {f"z{n}.tif": n for n in numbers})
    with pytest.raises(RlnError, match=re.escape(lacking)):
        _read(folder, voxel_um=VOXEL_UM)


def test_planes_below_zero_come_first(tmp_path):
    folder = _planes(tmp_path / "planes", {f"z{n}.tif": n + 9 for n in range(-5, 3)})
    read = _read(folder, voxel_um=VOXEL_UM)
    assert read.data[:, 0, 0].tolist() == list(range(4, 12))
    dashes = _planes(tmp_path / "dashes", {f"img-{n}.tif": n for n in range(4)})
    assert _read(dashes, voxel_um=VOXEL_UM).data[:, 0, 0].tolist() == [0, 1, 2, 3]


def test_planes_of_micro_manager_are_of_channels_by_name(tmp_path):
    words = ("Cy5", "DAPI", "GFP-2")
    names = {
        f"img_{t:09d}_{word}_{z:03d}.tif": 100 * t + 10 * c + z
        for t in range(2) for c, word in enumerate(words) for z in range(4)
    }  # fmt: skip
    folder = _planes(tmp_path / "planes", names)
    read = _read(folder, voxel_um=VOXEL_UM, time=1, channel=2)
    assert read.data[:, 0, 0].tolist() == [120, 121, 122, 123]


def test_a_plane_without_content_is_a_missing_one(tmp_path):
    folder = _planes(tmp_path / "planes", {f"z{n}.tif": n for n in range(5)})
    for empty, lacking in ((2, "1 of 5 planes (z 2)"), (0, "2 of 5 planes (z 0, 2)")):
        (folder / f"z{empty}.tif").write_bytes(b"")
        with pytest.raises(RlnError, match=re.escape(lacking)):
            _read(folder, voxel_um=VOXEL_UM)


# --- all of them --------------------------------------------------------------------------------


def test_a_crop_is_a_part_of_any_format(tmp_path, data):
    volume = Volume.from_array(data, VOXEL_UM)
    write(volume, tmp_path / "a.tif")
    _ngff(tmp_path / "a.zarr", data.transpose(2, 1, 0), "xyz", VOXEL_UM[::-1], "0.4")
    crop = ((1, 5), (2, 9), (3, 10))
    for name in ("a.tif", "a.zarr"):
        _same(_read(tmp_path / name, crop=crop), data[1:5, 2:9, 3:10])
        with pytest.raises(RlnError, match=r"`crop`.*0:7 0:14 0:10.*0:6 0:14 0:10"):
            _read(tmp_path / name, crop=((0, 7), (0, 14), (0, 10)))


def test_several_channels_lie_in_one_file(tmp_path, data):
    channels = [Volume.from_array(data + n, VOXEL_UM, name=f"c{n}") for n in range(3)]
    write_channels(channels, tmp_path / "a.ome.tif")
    for n in range(3):
        _same(_read(tmp_path / "a.ome.tif", channel=n), data + n)
    with pytest.raises(RlnError, match=r"\.ome\.tif"):
        write_channels(channels, tmp_path / "a.tif")


def test_files_that_are_no_image_are_refused_in_a_sentence(tmp_path):
    for name, content in (
        ("a.tif", b""), ("b.tif", b"II*\0\xff\xff\xff\xff"), ("c.companion.ome", b"<OME"),
        ("d.ome.tif", b"MM\0*" + b"\0" * 40),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RlnError):
            _read(tmp_path / name)
    loop = tmp_path / "loop.tif"
    loop.symlink_to(loop)
    with pytest.raises(RlnError, match="there is no file"):
        _read(loop)
    broken = tmp_path / "e.zarr"
    broken.mkdir()
    for text in ("{", "[]", '{"zarr_format": 9}', '{"zarr_format": 3, "node_type": "array"}'):
        (broken / "zarr.json").write_text(text)
        with pytest.raises(RlnError):
            _read(broken)


def test_reading_leaves_the_log_of_others_alone(tmp_path, data, caplog):
    _ome(tmp_path / "a.ome.tif", data[:4], promised=6)
    with caplog.at_level(logging.WARNING, "tifffile"), pytest.raises(RlnError):
        _read(tmp_path / "a.ome.tif")
    assert any("out of range" in record.message for record in caplog.records)  # who wants it has it


def test_the_stamp_of_an_image_tells_that_a_chunk_was_replaced(tmp_path, data):
    path = _ngff(tmp_path / "a.zarr", data, "zyx", VOXEL_UM, "0.5", chunks=(3, 7, 10))
    source = open_image(ImageFile(path=str(path)))
    before = source.stamp()
    assert open_image(ImageFile(path=str(path))).stamp() == before
    chunk = _chunks(path)[1]
    copy = Path(shutil.copy(chunk, tmp_path / "copy"))
    chunk.unlink()
    shutil.copy2(copy, chunk)
    assert source.stamp() != before
