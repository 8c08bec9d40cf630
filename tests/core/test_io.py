import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.io import volumes as io
from napari_rln.io.paths import atomic, check_tiff_output
from napari_rln.io.volumes import read, write

VOXEL_UM = (0.3, 0.0645, 0.108333333)
NAMES = ["cell.tif", "cell.tiff", "cell.ome.tif", "cell.OME.TIFF", "a.b.tif"]


@pytest.fixture
def volume() -> Volume:
    data = np.random.default_rng(0).normal(100, 40, (5, 12, 10))
    record = Record(method="rld", settings={"back_projector": "µ<&\"'"}, facts={"background": 1.5})
    return Volume.from_array(data, VOXEL_UM, name='né <&"', record=record)


@pytest.fixture
def stacks() -> np.ndarray:
    """(T, Z, C, Y, X) uint16."""
    return np.random.default_rng(0).integers(0, 60000, (3, 5, 2, 12, 10)).astype(np.uint16)


def write_imagej(path: Path, data: np.ndarray, axes: str = "ZYX", **metadata) -> None:
    """Write as ImageJ does, 0.25 x 0.2 units a pixel."""
    byteorder = metadata.pop("byteorder", "<")
    compression = metadata.pop("compression", None)
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        byteorder=byteorder,
        compression=compression,
        resolution=(5, 4),
        metadata={"axes": axes, "unit": "um", "spacing": 0.5} | metadata,
    )


# Round trips, and what others read in our files.


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(tmp_path, volume, name):
    write(volume, tmp_path / name)
    result = read(tmp_path / name)
    np.testing.assert_array_equal(result.data, volume.data)
    assert result.voxel_um == pytest.approx(VOXEL_UM, rel=1e-8)
    assert result.name == ("a.b" if name == "a.b.tif" else "cell")
    assert result.record == volume.record
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["plane.tif", "plane.ome.tif"])
def test_round_trip_of_a_plane(tmp_path, volume, name):
    plane = volume.with_data(volume.data[:1])
    write(plane, tmp_path / name)
    result = read(tmp_path / name)
    np.testing.assert_array_equal(result.data, plane.data)
    assert result.voxel_um == pytest.approx(VOXEL_UM)


@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.tif"])
@pytest.mark.parametrize("planes", [3, 4])
def test_few_planes_are_not_taken_for_colours(tmp_path, volume, name, planes):
    few = volume.with_data(volume.data[:planes].clip(0, 255))
    write(few, tmp_path / name, dtype="uint8")
    assert read(tmp_path / name).shape == (planes, 12, 10)


def test_a_volume_without_record_has_none_after_reading(tmp_path, volume):
    for name in ("cell.tif", "cell.ome.tif"):
        write(volume.with_data(volume.data, record=None), tmp_path / name)
        assert read(tmp_path / name).record is None


@pytest.mark.parametrize("voxel_um", [(5, 5, 5), (0.001, 0.00123456, 0.0005), (1, 2, 1 / 3)])
@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.tif"])
def test_extreme_voxel_sizes_survive(tmp_path, volume, voxel_um, name):
    write(volume.with_data(volume.data, voxel_um=voxel_um), tmp_path / name)
    assert read(tmp_path / name).voxel_um == pytest.approx(voxel_um, rel=1e-6)


def test_tifffile_reads_an_imagej_hyperstack(tmp_path, volume):
    path = tmp_path / "cell.tif"
    write(volume, path)
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        assert (series.kind, series.axes, series.shape) == ("imagej", "ZYX", (5, 12, 10))
        assert series.dtype == np.float32
        metadata = tif.imagej_metadata
        assert (metadata["unit"], metadata["spacing"], metadata["slices"]) == ("um", 0.3, 5)
        shown = metadata["min"], metadata["max"]
        assert shown == pytest.approx((volume.data.min(), volume.data.max()))
        assert Record.from_json(metadata["Info"]) == volume.record
        tags = tif.pages.first.tags
        per_um = [
            tags[name].value[0] / tags[name].value[1] for name in ("XResolution", "YResolution")
        ]
        assert per_um == pytest.approx([1 / VOXEL_UM[2], 1 / VOXEL_UM[1]])


def test_tifffile_reads_an_ome_tiff(tmp_path, volume):
    path = tmp_path / "cell.ome.tif"
    write(volume, path)
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        assert (series.kind, series.axes, series.shape) == ("ome", "ZYX", (5, 12, 10))
        ome = tifffile.xml2dict(tif.ome_metadata)["OME"]
    pixels = ome["Image"]["Pixels"]
    assert ome["Image"]["Name"] == volume.name
    for axis, size in zip("ZYX", VOXEL_UM, strict=True):
        assert pixels[f"PhysicalSize{axis}"] == size
        assert pixels[f"PhysicalSize{axis}Unit"] == "µm"
    annotation = ome["StructuredAnnotations"]["MapAnnotation"]
    assert annotation["Namespace"] == "napari-rln/record"
    assert Record.from_json(annotation["Value"]["M"]["value"]) == volume.record


@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.tif"])
def test_napari_reads_the_same(tmp_path, volume, name):
    # In a process of its own: napari loads Qt and more, which the core's tests go without.
    pytest.importorskip("napari_builtins")
    path, out = tmp_path / name, tmp_path / "read.npy"
    write(volume, path)
    code = (
        "import sys, numpy as np; from napari_builtins.io import napari_get_reader as get; "
        "np.save(sys.argv[2], np.asarray(get(sys.argv[1])(sys.argv[1])[0][0]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(out)], check=True)
    np.testing.assert_array_equal(np.load(out), volume.data)


# Files of others.


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_channel_and_time_are_chosen_by_index(tmp_path, stacks, byteorder, compression):
    path = tmp_path / "h.tif"
    write_imagej(path, stacks, "TZCYX", byteorder=byteorder, compression=compression)
    result = read(path, channel=1, time=2)
    np.testing.assert_array_equal(result.data, stacks[2, :, 1])
    assert result.voxel_um == pytest.approx((0.5, 0.25, 0.2))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"channel": 1}, r"h has 3 entries along time; choose one with `time`=0\.\.2\."),
        ({}, r"h\.tif has 2 entries along channel"),
        ({"time": 0}, r"has 2 entries along channel; choose one with `channel`=0\.\.1\."),
        ({"time": 0, "channel": 2}, r"2 entries along channel; 2 is not among 0 to 1\."),
        ({"time": -1, "channel": 0}, r"3 entries along time; -1 is not among 0 to 2\."),
        (
            {"time": 0, "channel": 0, "series": 1},
            r"1 is not among 0 to 0 \(`series`\)",
        ),
    ],
)
def test_a_choice_that_is_missing_or_wrong_is_named(tmp_path, stacks, chosen, message):
    write_imagej(tmp_path / "h.tif", stacks, "TZCYX")
    with pytest.raises(RlnError, match=message):
        read(tmp_path / "h.tif", **chosen)


def test_a_choice_from_what_is_not_there_is_named(tmp_path, stacks):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0])
    assert read(tmp_path / "h.tif", channel=0, time=0).shape == (5, 12, 10)
    with pytest.raises(RlnError, match=r"channel.* 1 "):
        read(tmp_path / "h.tif", channel=1)


def test_planes_stored_as_times_come_with_advice(tmp_path, stacks):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], "TYX")
    with pytest.raises(RlnError, match=r"5.*time.*`planes_are=time`"):
        read(tmp_path / "h.tif")
    result = read(tmp_path / "h.tif", planes_are="time", voxel_um=(0.5, 0.25, 0.2))
    np.testing.assert_array_equal(result.data, stacks[0, :, 0])
    assert read(tmp_path / "h.tif", time=2, planes_are="z").shape == (1, 12, 10)


@pytest.mark.parametrize(
    ("unit", "um"),
    [("um", 1), ("micron", 1), ("Microns", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3)],
)
def test_units_of_imagej(tmp_path, stacks, unit, um):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], unit=unit)
    if um > 1:  # as what it is; no microscope has such voxels
        with pytest.raises(RlnError, match=r"voxel size.*500 250 200 um"):
            read(tmp_path / "h.tif")
        return
    result = read(tmp_path / "h.tif")
    assert result.voxel_um == pytest.approx((0.5 * um, 0.25 * um, 0.2 * um))


@pytest.mark.parametrize("unit", ["pixel", "", "parsec"])
def test_a_unit_that_is_no_length_counts_as_none(tmp_path, stacks, unit):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], unit=unit)
    with pytest.raises(RlnError, match="does not say its voxel size"):
        read(tmp_path / "h.tif")


def test_a_unit_of_its_own_for_z(tmp_path, stacks):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], unit="nm", zunit="um")
    assert read(tmp_path / "h.tif").voxel_um == pytest.approx((0.5, 0.25e-3, 0.2e-3))


def test_a_step_of_one_unit_is_left_out_by_imagej(tmp_path, stacks):
    path = tmp_path / "h.tif"
    tags = {"resolution": (5, 4), "metadata": None, "photometric": "minisblack"}
    for written_by, lines in (("1.54f", ""), ("1.11a", "spacing=1\n")):
        description = f"ImageJ={written_by}\nimages=5\nslices=5\nunit=micron\n{lines}"
        tifffile.imwrite(path, stacks[0, :, 0], description=description, **tags)
        assert read(path).voxel_um == pytest.approx((1, 0.25, 0.2))
    # Other writers leave it out because they do not know it.
    tifffile.imwrite(path, stacks[0, :, 0], description=description.split("spacing")[0], **tags)
    with pytest.raises(RlnError, match="does not say its voxel size"):
        read(path)


def test_a_downward_stack_has_a_positive_step(tmp_path, stacks):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], spacing=-0.5)
    assert read(tmp_path / "h.tif").voxel_um[0] == 0.5


def test_units_of_ome(tmp_path, stacks):
    metadata = {"axes": "TZCYX"} | {
        f"PhysicalSize{axis}{end}": value
        for axis, size in (("Z", 300), ("Y", 100), ("X", 110))
        for end, value in (("", size), ("Unit", "nm"))
    }
    tifffile.imwrite(tmp_path / "h.ome.tif", stacks, ome=True, metadata=metadata)
    result = read(tmp_path / "h.ome.tif", channel=1, time=1)
    assert result.voxel_um == pytest.approx((0.3, 0.1, 0.11))
    np.testing.assert_array_equal(result.data, stacks[1, :, 1])


def test_ome_in_pixels_has_no_voxel_size(tmp_path, stacks):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}
    tifffile.imwrite(tmp_path / "h.ome.tif", stacks[0, :, 0], ome=True, metadata=metadata)
    with pytest.raises(RlnError, match="does not say its voxel size"):
        read(tmp_path / "h.ome.tif")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"resolution": (300, 300)}])
def test_a_plain_tiff_needs_a_voxel_size(tmp_path, stacks, options):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, stacks[0, :, 0], photometric="minisblack", metadata=None, **options)
    message = r"plain\.tif does not say its voxel size; give it .*`voxel_um`"
    with pytest.raises(RlnError, match=message):
        read(path)
    result = read(path, voxel_um=(0.3, 0.1, 0.1))
    np.testing.assert_array_equal(result.data, stacks[0, :, 0])
    assert result.voxel_um == (0.3, 0.1, 0.1)


def test_the_callers_voxel_size_wins(tmp_path, volume):
    write(volume, tmp_path / "cell.tif")
    assert read(tmp_path / "cell.tif", voxel_um=(1, 2, 3)).voxel_um == (1, 2, 3)


@pytest.mark.parametrize("name", ["plane.tif", "plane.ome.tif"])
def test_a_plane_needs_no_step(tmp_path, stacks, name):
    path = tmp_path / name
    if "ome" in name:
        metadata = {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.25}
        tifffile.imwrite(path, stacks[0, 0, 0], ome=True, metadata=metadata)
    else:
        metadata = {"axes": "YX", "unit": "um"}
        tifffile.imwrite(path, stacks[0, 0, 0], imagej=True, resolution=(5, 4), metadata=metadata)
    result = read(path)
    assert result.shape == (1, 12, 10)
    assert result.voxel_um == pytest.approx((0.25, 0.25, 0.2))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f8", "?"])
def test_files_of_any_real_type(tmp_path, stacks, dtype):
    data = (stacks[0, :, 0] % 200).astype(dtype)
    tifffile.imwrite(tmp_path / "h.tif", data, photometric="minisblack")
    result = read(tmp_path / "h.tif", voxel_um=(1, 1, 1))
    np.testing.assert_array_equal(result.data, data.astype(np.float32))


def test_rgb_is_refused(tmp_path, stacks):
    colours = np.moveaxis(stacks[:, :, 0], 0, -1).astype(np.uint8)
    for name, options in (("a.tif", {}), ("b.tif", {"imagej": True})):
        tifffile.imwrite(tmp_path / name, colours, photometric="rgb", **options)
        with pytest.raises(RlnError, match="RGB"):
            read(tmp_path / name)


@pytest.mark.parametrize("info", ['{"a": 1}', "[1]", "{broken", "Some notes", '{"method": "otsu"}'])
def test_foreign_info_is_no_record(tmp_path, stacks, info):
    write_imagej(tmp_path / "h.tif", stacks[0, :, 0], Info=info)
    assert read(tmp_path / "h.tif").record is None


def test_foreign_annotations_are_no_record(tmp_path, stacks):
    sizes = {f"PhysicalSize{axis}": 0.1 for axis in "ZYX"}
    notes = {"Namespace": "elsewhere", "a": "1", "b": "2"}
    metadata = {"axes": "ZYX", "MapAnnotation": notes} | sizes
    tifffile.imwrite(tmp_path / "h.ome.tif", stacks[0, :, 0], ome=True, metadata=metadata)
    assert read(tmp_path / "h.ome.tif").record is None


# Files that cannot be read.


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.tif", tmp_path / "none" / "a.tif"):
        with pytest.raises(RlnError, match="there is no file"):
            read(path)
    with pytest.raises(RlnError, match="without TIFFs"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["", "II", "these are notes, not an image"])
def test_another_format_is_named(tmp_path, content):
    (tmp_path / "notes.tif").write_text(content)
    with pytest.raises(RlnError, match=r"notes\.tif.*TIFF"):
        read(tmp_path / "notes.tif")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("ome", [False, True])
def test_a_file_cut_short_is_refused_unless_all_planes_are_there(
    tmp_path, stacks, compression, ome
):
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    kind = {"ome": True} if ome else {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(whole, stacks[0, :, 0], compression=compression, **kind)
    content = whole.read_bytes()
    cuts, refused = range(9, len(content) - 1, len(content) // 40), 0
    for size in cuts:
        cut.write_bytes(content[:size])
        try:
            result = read(cut, voxel_um=(1, 1, 1))
        except RlnError as error:
            assert str(error).startswith(  # noqa: PT017
                ("cut.tif cannot be read as TIFF (", "cut.tif lacks ")
            )
            refused += 1
        else:  # OME stands at the end: only the metadata are lost
            np.testing.assert_array_equal(result.data, stacks[0, :, 0])
    assert refused >= (len(cuts) // 2 if ome else len(cuts) - 1)


def test_a_stack_cut_after_a_whole_plane_is_refused_unless_that_is_wanted(tmp_path, stacks):
    # Data before directories, as libtiff writes: what is left looks like a stack of fewer planes.
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, stacks[0, :3, 0], photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        last_offset = tif.pages.next_page_offset
    with path.open("r+b") as file:
        file.seek(last_offset)
        file.write((10**6).to_bytes(4, "little"))
    with pytest.raises(RlnError, match=r"cut\.tif.*3.*`missing=mask`"):
        read(path, voxel_um=(1, 1, 1))
    with pytest.warns(RlnWarning, match=r"cut\.tif.*3"):
        result = read(path, voxel_um=(1, 1, 1), missing="mask")
    assert result.shape == (3, 12, 10)


def test_a_file_beyond_memory_is_named(tmp_path, volume, monkeypatch):
    write(volume, tmp_path / "cell.tif")
    monkeypatch.setattr(np, "memmap", fail_with(MemoryError("64 GB")))
    with pytest.raises(RlnError, match=r"64 GB"):
        read(tmp_path / "cell.tif")


# Writing.


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 65535), ("uint8", 255)])
@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.tif"])
def test_integers_are_rounded_and_clipped_with_a_warning(tmp_path, dtype, top, name):
    values = [-7, -0.6, -0.4, 0.4, 0.6, 2.5, top - 0.6, top, top + 0.4, top + 1, 1e9, 9]
    volume = Volume.from_array(np.reshape(values, (2, 3, 2)), VOXEL_UM)
    message = rf"4 of 12 voxels were clipped to {dtype} \(2 below 0, 2 above {top}\)"
    with pytest.warns(RlnWarning, match=message) as caught:
        write(volume, tmp_path / name, dtype=dtype)
    assert caught[0].filename == __file__
    expected = [0, 0, 0, 0, 1, 2, top - 1, top, top, top, top, 9]
    assert read(tmp_path / name).data.ravel().tolist() == expected
    assert tifffile.imread(tmp_path / name).dtype == dtype


def test_integers_that_fit_are_written_without_a_warning(tmp_path, stacks):
    volume = Volume.from_array(stacks[0, :, 0], VOXEL_UM)
    write(volume, tmp_path / "cell.tif", dtype="uint16")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "cell.tif"), stacks[0, :, 0])


@pytest.mark.parametrize("name", ["cell.png", "cell", "cell.ome.zarr"])
def test_another_ending_is_refused(tmp_path, volume, name):
    with pytest.raises(RlnError, match=rf"{name}.*\.tif"):
        write(volume, tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path, volume):
    with pytest.raises(RlnError, match="no folder"):
        write(volume, tmp_path / "none" / "cell.tif")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / "cell.tif").mkdir()
    with pytest.raises(RlnError, match=r"cell\.tif.*folder"):
        check_tiff_output(tmp_path / "cell.tif")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, volume, monkeypatch):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # as for the superuser, whom no permission stops
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    try:
        with pytest.raises(RlnError, match="not writable"):
            write(volume, tmp_path / "cell.tif")
    finally:
        tmp_path.chmod(0o700)


def test_values_that_are_not_finite_are_not_written(tmp_path, volume):
    broken = volume.with_data(np.where(volume.data > 200, np.nan, volume.data))
    with pytest.raises(RlnError, match="NaN or infinite"):
        write(broken, tmp_path / "cell.tif")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_before_writing(tmp_path, volume, monkeypatch):
    usage = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RlnError, match=r"2\.4e-06 GB.*1e-09 GB"):
        write(volume, tmp_path / "cell.tif")
    assert not list(tmp_path.iterdir())


def test_more_than_imagej_can_hold_is_sent_to_ome(tmp_path, volume, monkeypatch):
    monkeypatch.setattr(io, "IMAGEJ_LIMIT", volume.data.nbytes - 1)
    with pytest.raises(RlnError, match=r"ImageJ.*cell\.ome\.tif"):
        write(volume, tmp_path / "cell.tif")
    write(volume, tmp_path / "cell.ome.tif")
    with tifffile.TiffFile(tmp_path / "cell.ome.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(read(tmp_path / "cell.ome.tif").data, volume.data)


def fail_with(error: BaseException):
    def fail(*_args, **_kwargs):
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.tif"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, volume, monkeypatch, error, name
):
    path = tmp_path / name
    write(volume, path)
    before = path.read_bytes()
    written = []

    def fail_half_way(temporary, *_args, **_kwargs):
        written.append(Path(temporary))
        written[0].write_bytes(before[:500])
        raise error

    monkeypatch.setattr(tifffile, "imwrite", fail_half_way)
    with pytest.raises(type(error)):
        write(volume.with_data(volume.data + 1), path)
    assert written[0] != path
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_atomic_keeps_the_ending_and_replaces_when_done(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic(path) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_and_writing_in_place(tmp_path, volume):
    path = tmp_path / "cell.tif"
    write(volume, path)
    result = read(path)
    write(result.with_data(result.data * 2), path)
    np.testing.assert_array_equal(read(path).data, volume.data * 2)


def test_an_ome_set_is_read_from_the_file_that_holds_the_planes(tmp_path, stacks):
    data = stacks[0, :, 0]
    sizes = {f"PhysicalSize{axis}": 0.1 for axis in "ZYX"}
    tifffile.imwrite(tmp_path / "b.ome.tif", data, ome=True, metadata={"axes": "ZYX"} | sizes)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        described = tif.ome_metadata
    uuid = described.split('UUID="')[1].split('"')[0]
    there = f'PlaneCount="5"><UUID FileName="b.ome.tif">{uuid}</UUID></TiffData>'
    described = described.replace(uuid, uuid[:-1] + "f", 1).replace('PlaneCount="5"/>', there)
    options = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "a.ome.tif", data * 0, description=described.encode(), **options)
    result = read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(result.data, data)
