"""Files of microscopes' own programs: values, axes, voxel size and optics; or a sentence."""

import sys

import microscope_files as files
import numpy as np
import pytest

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.io.image import open_contents, open_image
from napari_rln.io.volumes import read
from napari_rln.psf.optics import Optics

SHAPE = (2, 2, 4, 12, 10)  # t c z y x


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype(np.uint16)


def _czi(tmp_path, blocks, xml=None, **options):
    path = tmp_path / "a.czi"
    files.write_czi(path, blocks, files.czi_xml() if xml is None else xml, **options)
    return path


@pytest.mark.parametrize("compression", [0, 4, 5, 6])
def test_czi_is_read_by_boxes_in_every_compression(tmp_path, data, compression):
    path = _czi(tmp_path, files.czi_planes(data), compression=compression)
    image = open_image(path)
    assert (image.axes, image.channels, image.times) == ("TCZYX", 2, 2)
    assert image.voxel_um == pytest.approx(files.VOXEL_UM)
    box = slice(1, 3), slice(2, 9), slice(3, 10)
    np.testing.assert_array_equal(image.read(box, 1, 1), data[1, 1][box])
    np.testing.assert_array_equal(read(path, channel=0, time=1).data, data[1, 0])


def test_optics_of_czi_are_those_of_the_objective_that_was_used(tmp_path, data):
    dapi, gfp = open_image(_czi(tmp_path, files.czi_planes(data))).optics
    assert dapi == Optics(
        modality="widefield", na=1.4, immersion_index=1.518, wavelength_um=0.465,
        excitation_um=0.405, objective="Plan-Apochromat 63x", channel="DAPI",
    )  # fmt: skip
    assert (gfp.wavelength_um, gfp.channel) == (0.509, "EGFP")
    assert open_image(tmp_path / "a.czi", channel=1).optics == (gfp,)


def test_a_pinhole_in_airy_units_is_that_of_a_confocal(tmp_path, data):
    channel = files.GFP | {"PinholeSizeAiry": 1.25}
    xml = files.czi_xml([channel], mode="LaserScanningConfocalMicroscopy", index=1.0)
    (optics,) = open_image(_czi(tmp_path, files.czi_planes(data[:1, :1]), xml)).optics
    assert (optics.modality, optics.pinhole_au) == ("confocal", 1.25)
    assert optics.immersion_index == 1.515  # 1 is no index of an oil: that is by its name
    for pinhole, modality in ((None, None), (1.0, "confocal")):
        disk = files.GFP | ({"PinholeSizeAiry": pinhole} if pinhole else {})
        xml = files.czi_xml([disk], mode="SpinningDiskConfocal")
        (optics,) = open_image(_czi(tmp_path, files.czi_planes(data[:1, :1]), xml)).optics
        assert optics.modality == modality


def test_scenes_of_czi_are_images_of_one_file(tmp_path, data):
    blocks = [
        ({"S": s, "Z": z, "X": 100 * s, "Y": 7}, data[s, 0, z])
        for s in range(2) for z in range(4)
    ]  # fmt: skip
    path = _czi(tmp_path, blocks, files.czi_xml([files.GFP]))
    with pytest.raises(RlnError, match=r"2 images .*`series`=0\.\.1"):
        open_image(path)
    for series in range(2):
        np.testing.assert_array_equal(read(path, series=series).data, data[series, 0])


def test_tiles_lie_where_the_file_places_them_and_coarse_levels_are_left_out(tmp_path, data):
    plane = data[0, 0, 0]
    tiles = [
        ({"M": 0, "X": -5, "Y": 30}, plane[:, :6]),
        ({"M": 1, "X": 1, "Y": 30}, plane[:, 6:]),
    ]
    coarse = ({"X": (-5, 10), "Y": (30, 12)}, plane[::2, ::2])
    path = _czi(tmp_path, [*tiles, coarse], files.czi_xml([files.GFP]))
    np.testing.assert_array_equal(read(path).data[0], plane)
    apart = [tiles[0], ({"M": 1, "X": 2, "Y": 30}, plane[:, 6:])]
    with pytest.warns(RlnWarning, match="leave parts of the field empty"):
        gap = read(_czi(tmp_path, apart, files.czi_xml([files.GFP]))).data[0]
    np.testing.assert_array_equal(gap, np.insert(plane, 6, 0, axis=1))


def test_planes_that_were_not_acquired_are_named(tmp_path, data):
    path = _czi(tmp_path, files.czi_planes(data[:1, :1])[:-1], files.czi_xml([files.GFP]))
    np.testing.assert_array_equal(read(path).data, data[0, 0, :-1])
    blocks = [b for b in files.czi_planes(data[:1, :1]) if b[0]["Z"] != 1]
    with pytest.raises(RlnError, match="lacks 1 of 4 planes"):
        read(_czi(tmp_path, blocks, files.czi_xml([files.GFP])))


def test_lif_is_read_with_the_optics_of_its_detectors(tmp_path, data):
    pytest.importorskip("liffile")
    path = tmp_path / "a.lif"
    settings = files.lif_confocal([("PMT 1", "DAPI", 420, 480), ("HyD 2", "", 500, 550)])
    images = [
        files.lif_image("stack", data[0], settings),
        files.lif_image("other", data[1, :1], block=1),
    ]
    files.write_lif(path, images)
    image = open_image(path, series=0)
    assert (image.axes, image.shape, image.name) == ("CZYX", SHAPE[2:], "a stack")
    assert image.voxel_um == pytest.approx(files.VOXEL_UM)
    np.testing.assert_array_equal(read(path, series=0, channel=1).data, data[0, 1])
    np.testing.assert_array_equal(read(path, series=1).data, data[1, 0])
    first, second = image.optics
    assert first == Optics(
        modality="confocal", na=1.4, immersion_index=1.518, wavelength_um=0.45,
        excitation_um=0.405, pinhole_au=1.2, objective="HC PL APO CS2 63x/1.40 OIL",
        channel="DAPI",
    )  # fmt: skip
    assert (second.wavelength_um, second.excitation_um) == (0.525, 0.488)
    assert open_image(path, series=1).optics == ()


def test_an_infrared_laser_is_that_of_two_photons(tmp_path, data):
    pytest.importorskip("liffile")
    settings = files.lif_confocal([("HyD", "EGFP", 500, 550)], lines=(920,))
    files.write_lif(tmp_path / "a.lif", [files.lif_image("stack", data[0, :1], settings)])
    (optics,) = open_image(tmp_path / "a.lif").optics
    assert (optics.modality, optics.excitation_um) == ("two-photon", 0.92)
    assert optics.pinhole_au is None


def test_oif_is_read_by_planes(tmp_path, data):
    pytest.importorskip("oiffile")
    files.write_oif(tmp_path / "a.oif", data[0])
    image = open_image(tmp_path / "a.oif")
    assert image.voxel_um == pytest.approx(files.VOXEL_UM)
    box = slice(1, 3), slice(2, 9), slice(3, 10)
    np.testing.assert_array_equal(image.read(box, 0, 1), data[0, 1][box])
    first, second = image.optics
    assert (first.na, first.immersion_index, first.modality) == (1.42, 1.515, "confocal")
    assert (second.wavelength_um, second.excitation_um) == (0.519, 0.488)
    (tmp_path / "a.oif.files" / "s_C002Z003.tif").unlink()
    with pytest.raises(RlnError, match="lacks 1 of 8 planes"):
        open_image(tmp_path / "a.oif")


def test_an_aperture_that_stands_for_unknown_is_that_of_the_objectives_name(tmp_path, data):
    pytest.importorskip("oiffile")
    files.write_oif(tmp_path / "a.oif", data[0], na="9999")
    assert open_image(tmp_path / "a.oif").optics[0].na == 1.42


def test_positions_of_nd2_are_images_of_one_file(tmp_path, data):
    pytest.importorskip("nd2")
    path, stored = tmp_path / "a.nd2", data.transpose(0, 2, 1, 3, 4)  # p z c y x
    files.write_nd2(path, stored)
    image = open_image(path, series=1)
    assert (image.axes, image.shape) == ("ZCYX", SHAPE[2:])
    assert image.voxel_um == pytest.approx(files.VOXEL_UM)
    box = slice(1, 3), slice(2, 9), slice(3, 10)
    np.testing.assert_array_equal(image.read(box, 0, 1), data[1, 1][box])
    dapi, gfp = image.optics
    assert dapi == Optics(
        modality="widefield", na=1.45, immersion_index=1.515, wavelength_um=0.461,
        excitation_um=0.385, objective="Plan Apo 100x Oil", channel="DAPI",
    )  # fmt: skip
    assert (gfp.channel, gfp.wavelength_um) == ("EGFP", 0.507)
    with pytest.raises(RlnError, match=r"2 images .*`series`=0\.\.1"):
        open_image(path)


def test_frames_of_nd2_that_were_not_acquired_are_named(tmp_path, data):
    pytest.importorskip("nd2")
    path, stored = tmp_path / "a.nd2", data.transpose(0, 2, 1, 3, 4)
    files.write_nd2(path, stored[:1], acquired=3)
    with pytest.raises(RlnError, match="lacks 2 of 8 planes"):
        open_image(path)
    with pytest.warns(RlnWarning, match="lacks"):
        kept = read(path, channel=1, missing="mask")
    np.testing.assert_array_equal(kept.data, data[0, 1, :3])


@pytest.mark.parametrize(
    ("modality", "expected"),
    [(0x101, "widefield"), (0x201, "confocal"), (0x10201, "two-photon"), (0x501, None)],
)
def test_flags_of_nd2_tell_the_microscope_but_of_a_disk(tmp_path, data, modality, expected):
    pytest.importorskip("nd2")
    stored = data[:1, :1].transpose(0, 2, 1, 3, 4)
    files.write_nd2(tmp_path / "a.nd2", stored, modality=modality)
    assert open_image(tmp_path / "a.nd2").optics[0].modality == expected


@pytest.mark.parametrize("name", ["a.czi", "a.lif", "a.nd2", "a.oib", "a.oif"])
def test_files_of_another_format_are_refused_in_a_sentence(tmp_path, name):
    if not name.endswith("czi"):
        pytest.importorskip({"lif": "liffile", "nd2": "nd2"}.get(name[2:], "oiffile"))
    (tmp_path / name).write_bytes(b"something else entirely" * 100)
    with pytest.raises(RlnError, match=rf"{name} cannot be read as a file of .*OME-TIFF\.$"):
        open_contents(tmp_path / name)


@pytest.mark.parametrize("kind", ["czi", "lif"])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_short_is_refused_in_a_sentence(tmp_path, data, kind, share):
    path = tmp_path / f"a.{kind}"
    if kind == "czi":
        files.write_czi(path, files.czi_planes(data), files.czi_xml())
    else:
        pytest.importorskip("liffile")
        files.write_lif(path, [files.lif_image("stack", data[0])])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RlnError, match="copy it again"):
        open_image(path)


def test_what_cannot_be_deconvolved_is_said(tmp_path, data):
    colours = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(RlnError, match="RGB"):
        open_image(_czi(tmp_path, [({}, colours)], files.czi_xml([files.GFP]), pixels=3))
    with pytest.raises(RlnError, match="did not end"):
        open_image(_czi(tmp_path, files.czi_planes(data), pending=1))
    (tmp_path / "a.oir").write_bytes(b"OLYMPUSRAWFORMAT")
    with pytest.raises(RlnError, match="export it as OME-TIFF"):
        open_image(tmp_path / "a.oir")


def test_a_reader_that_is_not_installed_is_named_with_what_installs_it(tmp_path, monkeypatch):
    (tmp_path / "a.lif").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "liffile", None)
    with pytest.raises(RlnError, match=r'Leica .*pip install "napari-rln\[formats\]"'):
        open_image(tmp_path / "a.lif")
