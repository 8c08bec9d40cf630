"""Optics that TIFF and OME-Zarr state: in OME metadata, in ImageJ's text of ZEN, in Zeiss LSM."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from napari_rln.io.image import open_contents
from napari_rln.io.stated_optics import immersion_index, objective_named, optics_of
from napari_rln.io.tiff_optics import _of_lsm
from napari_rln.psf.optics import Optics

SHAPE = (2, 4, 12, 10)
OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="0.5" Immersion="Air"/>
<Objective ID="Objective:1" LensNA="1.3" Immersion="Glycerol" Model="HC PL APO 93x"/></Instrument>
<Image ID="Image:0"><InstrumentRef ID="Instrument:0"/>{settings}<Pixels ID="Pixels:0"
DimensionOrder="XYZCT" Type="uint16" SizeX="10" SizeY="12" SizeZ="4" SizeC="2" SizeT="1"
PhysicalSizeX="0.1" PhysicalSizeY="0.1" PhysicalSizeZ="0.3">
<Channel ID="Channel:0:0" Name="one" Fluor="DAPI" EmissionWavelength="461" SamplesPerPixel="1"
ExcitationWavelength="0.405" ExcitationWavelengthUnit="µm" AcquisitionMode="WideField"/>
<Channel ID="Channel:0:1" Name="AF647" AcquisitionMode="LaserScanningConfocalMicroscopy"
PinholeSize="50" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>"""
SETTINGS = '<ObjectiveSettings ID="Objective:1" RefractiveIndex="1.46"/>'


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype(np.uint16)


def _ome(path, data, xml):
    options = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, data, description=xml.encode(), **options)
    return open_contents(path).optics


def test_optics_of_ome_tiff(tmp_path, data):
    first, second = _ome(tmp_path / "a.ome.tif", data, OME.format(settings=SETTINGS))
    assert first == Optics(
        modality="widefield", na=1.3, immersion_index=1.46, wavelength_um=0.461,
        excitation_um=0.405, objective="HC PL APO 93x", channel="DAPI",
    )  # fmt: skip
    assert (second.modality, second.channel, second.wavelength_um) == ("confocal", "AF647", None)
    assert second.pinhole_au is None  # in micrometres it depends on the magnification


def test_of_several_objectives_none_is_taken_without_a_reference(tmp_path, data):
    first, _ = _ome(tmp_path / "a.ome.tif", data, OME.format(settings=""))
    assert (first.na, first.wavelength_um) == (None, 0.461)


def test_optics_of_a_companion_and_of_ome_zarr_beside_its_metadata(tmp_path, data):
    files = "".join(
        f'<TiffData IFD="0" FirstC="{c}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="c{c}z{z}.tif">urn:uuid:1</UUID></TiffData>'
        for c, z in np.ndindex(2, 4)
    )
    for c, z in np.ndindex(2, 4):
        tifffile.imwrite(tmp_path / f"c{c}z{z}.tif", data[c, z])
    xml = OME.format(settings=SETTINGS)
    companion = tmp_path / "a.companion.ome"
    companion.write_text(xml.replace("<TiffData/>", files), encoding="utf-8")
    expected = open_contents(companion).optics
    assert expected[0].na == 1.3

    root = tmp_path / "a.zarr"
    zarr.create_group(root, zarr_format=2)
    (root / "OME").mkdir()
    (root / "OME" / "METADATA.ome.xml").write_text(xml, encoding="utf-8")
    group = zarr.create_group(root / "0", zarr_format=2)
    array = group.create_array("0", shape=SHAPE, dtype="u2", chunks=SHAPE)
    array[...] = data
    scale = {"type": "scale", "scale": [1, 0.3, 0.1, 0.1]}
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    group.attrs["multiscales"] = [
        {"axes": [{"name": "c", "type": "channel"}, *axes],
         "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    ]  # fmt: skip
    assert open_contents(root / "0").optics == expected
    group.attrs["omero"] = {"channels": [{"label": "GFP"}, {"label": "far"}]}
    (root / "OME" / "METADATA.ome.xml").unlink()
    assert [one.channel for one in open_contents(root / "0").optics] == ["GFP", "far"]


def _imagej(path, data, info):
    metadata = {"axes": "ZCYX", "spacing": 0.3, "unit": "um", "Info": info}
    hyperstack = np.moveaxis(data.reshape(-1, *SHAPE[1:]), 0, 1)
    tifffile.imwrite(path, hyperstack, imagej=True, resolution=(10, 10), metadata=metadata)
    return open_contents(path).optics


def test_optics_that_imagej_keeps_of_zen(tmp_path, data):
    info = (
        "Information|Instrument|Objective|LensNA #1 = 1.4\n"
        "Information|Instrument|Objective|Immersion #1 = Oil\n"
        "Information|Image|ObjectiveSettings|RefractiveIndex #1 = 1.518\n"
        "Information|Image|Channel|EmissionWavelength #1 = 465\n"
        "Information|Image|Channel|EmissionWavelength #2 = 509\n"
        "Information|Image|Channel|ExcitationWavelength #1 = 405\n"
        "Information|Image|Channel|AcquisitionMode #1 = WideField\n"
        "Information|Image|Channel|AcquisitionMode #2 = WideField\n"
        "Information|Image|Channel|Fluor #1 = DAPI\n"
        "Information|Image|Channel|Fluor #2 = EGFP\n"
    )
    first, second = _imagej(tmp_path / "a.tif", data, info)
    assert first == Optics(
        modality="widefield", na=1.4, immersion_index=1.518, wavelength_um=0.465,
        excitation_um=0.405, channel="DAPI",
    )  # fmt: skip
    assert second.wavelength_um == 0.509
    # Of one of its channels, saved alone, it is not clear which: only what both have is known.
    (alone,) = _imagej(tmp_path / "b.tif", data[0], info)
    assert (alone.na, alone.modality, alone.wavelength_um) == (1.4, "widefield", None)


def test_other_text_of_imagej_says_nothing(tmp_path, data):
    assert _imagej(tmp_path / "a.tif", data, json.dumps({"method": "other"})) == ()


def test_zeiss_lsm_states_objective_bands_and_lasers():
    tracks = [
        {
            "IlluminationChannels": [{"Wavelength": laser, "Acquire": 1}],
            "DetectionChannels": [
                {"DyeName": dye, "SpiWavelengthStart": low, "SpiWavelengthStop": low + 60,
                 "Acquire": 1},
                {"DyeName": "off", "Acquire": 0},
            ],
        }
        for laser, dye, low in ((405.0, "DAPI", 420.0), (488.0, "EGFP", 500.0))
    ]  # fmt: skip
    scan = {"Objective": "Plan-Apochromat 63x/1.4 Oil DIC M27", "Tracks": tracks}
    first, second = _of_lsm({"ScanInformation": scan}, 2)
    assert (first.na, first.immersion_index, first.channel) == (1.4, 1.515, "DAPI")
    assert (second.wavelength_um, second.excitation_um) == (0.53, 0.488)
    assert first.modality == second.modality == "confocal"
    assert _of_lsm({"ScanInformation": scan}, 3)[2].na == 1.4  # what holds for all


@pytest.mark.parametrize(
    ("name", "na", "index"),
    [
        ("Plan-Apochromat 63x/1.4 Oil DIC M27", 1.4, 1.515),
        ("C-Apochromat 40x/1.2 W Korr", 1.2, 1.33),
        ("HC PL APO CS2 93x/1.30 GLYC", 1.3, 1.47),
        ("UPLSAPO 30X S NA:1.05", 1.05, None),
        ("UPLSAPO30XSIL", None, 1.41),
        ("Plan Apo 100x Oil", None, 1.515),
        ("EC Plan-Neofluar 10x/0,30", 0.3, None),
        ("", None, None),
    ],
)
def test_names_of_objectives(name, na, index):
    found = objective_named(name)
    assert (found.get("na"), found.get("immersion_index")) == (na, index)


@pytest.mark.parametrize(
    ("word", "index"),
    [("Oil", 1.515), ("WaterDipping", 1.33), ("SiliconeOil", 1.41), ("Air", 1.0), ("Dry", 1.0),
     ("Glycerol", 1.47), ("Multi", None), ("Other", None), (None, None)],
)  # fmt: skip
def test_immersions_by_name(word, index):
    assert immersion_index(word) == index


def test_values_that_no_microscope_has_are_unknown():
    assert optics_of(na=9999, wavelength_um=0.0, pinhole_au=-1, immersion_index="1,5") == Optics()
    assert optics_of(pinhole_au=600).pinhole_au == 20  # wide open
    assert optics_of(na=1.4, immersion_index=1.33) == Optics(na=1.4)  # below the aperture
