"""Minimal files of microscopes' own programs, written by their published layouts."""

import struct
import uuid

import imagecodecs
import numpy as np
import tifffile

VOXEL_UM = (0.3, 0.1, 0.1)
DAPI, GFP = (
    {"Name": "EGFP-T1", "Fluor": "EGFP", "EmissionWavelength": 509, "ExcitationWavelength": 488},
    {"Name": "DAPI-T2", "Fluor": "DAPI", "EmissionWavelength": 465, "ExcitationWavelength": 405},
)[::-1]


# --- Zeiss CZI: segments of a name, two sizes and contents; a directory of the sub-blocks


def czi_xml(channels=(DAPI, GFP), *, na=1.4, immersion="Oil", index=1.518, mode="WideField"):
    """Return metadata as of ZEN; an objective without aperture where ``na`` is None."""
    fields = "".join(
        f'<Channel Id="Channel:{n}" Name="{c["Name"]}">'
        + "".join(f"<{k}>{v}</{k}>" for k, v in c.items() if k != "Name")
        + (f"<AcquisitionMode>{mode}</AcquisitionMode>" if mode else "")
        + "</Channel>"
        for n, c in enumerate(channels)
    )
    z, y, x = VOXEL_UM
    items = "".join(
        f'<Distance Id="{a}"><Value>{v * 1e-6}</Value></Distance>'
        for a, v in zip("XYZ", (x, y, z), strict=True)
    )
    lens = "" if na is None else f"<LensNA>{na}</LensNA><Immersion>{immersion}</Immersion>"
    refraction = "" if index is None else f"<RefractiveIndex>{index}</RefractiveIndex>"
    return (
        "<ImageDocument><Metadata><Information><Image><ObjectiveSettings>"
        f'<ObjectiveRef Id="Objective:2"/>{refraction}</ObjectiveSettings><Dimensions>'
        f"<Channels>{fields}</Channels></Dimensions></Image><Instrument><Objectives>"
        '<Objective Id="Objective:1" Name="10x"><LensNA>0.3</LensNA></Objective>'
        f'<Objective Id="Objective:2" Name="Plan-Apochromat 63x">{lens}</Objective>'
        "</Objectives></Instrument></Information>"
        f"<Scaling><Items>{items}</Items></Scaling></Metadata></ImageDocument>"
    )


def write_czi(path, blocks, xml, *, compression=0, pixels=1, pending=0):
    """Write a CZI of sub-blocks: pairs of a dictionary of starts, and an array (Y, X).

    A start of two numbers is a start and the number of voxels at full resolution.
    """

    def segment(name, content):
        size = -(-len(content) // 32) * 32
        return struct.pack("<16sqq", name, size, len(content)) + content.ljust(size, b"\0")

    def entry(place, plane, position):
        height, width = plane.shape[:2]
        stored = {"X": width, "Y": height}
        dims = b""
        for axis, start in place.items():
            first, size = start if isinstance(start, tuple) else (start, stored.get(axis, 1))
            dims += struct.pack(
                "<4siifi", axis.encode(), first, size, float(first), stored.get(axis, 1)
            )
        head = struct.pack("<2siqiiB5xi", b"DV", pixels, position, 0, compression, 0, len(place))
        return head + dims

    file = bytearray(segment(b"ZISRAWFILE", bytes(512)))
    entries = []
    for place, plane in blocks:
        place = {"X": 0, "Y": 0} | place
        position = len(file)
        data = _compressed(plane, compression)
        listed = entry(place, plane, position)
        entries.append(listed)
        head = struct.pack("<iiq", 4, 0, len(data)) + listed
        file += segment(b"ZISRAWSUBBLOCK", head.ljust(256, b"\0") + b"<M/>" + data)
    metadata = len(file)
    text = xml.encode()
    file += segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(text), 0) + text)
    directory = len(file)
    file += segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    guid = uuid.uuid4().bytes
    file[32:112] = struct.pack(
        "<iiii16s16siqqiq", 1, 0, 0, 0, guid, guid, 0, directory, metadata, pending, 0
    )
    path.write_bytes(bytes(file))


def _compressed(plane, compression):
    raw = np.ascontiguousarray(plane).tobytes()
    if compression == 5:
        return imagecodecs.zstd_encode(raw)
    if compression == 6:  # all low bytes before all high bytes
        split = np.frombuffer(raw, np.uint8).reshape(-1, 2).T.tobytes()
        return bytes([3, 1, 1]) + imagecodecs.zstd_encode(split)
    if compression == 4:
        return imagecodecs.jpegxr_encode(plane, level=1.0)
    return raw


def czi_planes(data):
    """Return the sub-blocks of an array (T, C, Z, Y, X)."""
    return [({"T": t, "C": c, "Z": z}, data[t, c, z]) for t, c, z in np.ndindex(data.shape[:3])]


# --- Leica LIF: XML as UTF-16, and a block of memory for each image


def lif_image(name, data, settings="", *, block=0):
    """Return an image of an array (C, Z, Y, X): its name, its XML and its values."""
    channels, depth, height, width = data.shape
    z, y, x = VOXEL_UM
    step = data.dtype.itemsize
    apart = (step, width * step, width * height * step, data[0].nbytes)
    sides = ((1, width, x, apart[0]), (2, height, y, apart[1]), (3, depth, z, apart[2]))
    dimensions = "".join(
        f'<DimensionDescription DimID="{d}" NumberOfElements="{n}" Origin="0" '
        f'Length="{(n - 1) * size * 1e-6}" Unit="m" BitInc="0" BytesInc="{inc}"/>'
        for d, n, size, inc in sides
    )
    described = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * step}" '
        'NameOfMeasuredQuantity="" Min="0" Max="65535" Unit="" LUTName="Green" '
        f'IsLUTInverted="0" BytesInc="{c * apart[3]}" BitInc="0"/>'
        for c in range(channels)
    )
    xml = (
        f'<Element Name="{name}" UniqueID="u{block}"><Data><Image><ImageDescription>'
        f"<Channels>{described}</Channels><Dimensions>{dimensions}</Dimensions>"
        f'</ImageDescription><Attachment Name="HardwareSetting">{settings}</Attachment></Image>'
        f'</Data><Memory Size="{data.nbytes}" MemoryBlockID="MemBlock_{block}"/></Element>'
    )
    return f"MemBlock_{block}", xml, data.tobytes()


def lif_confocal(detectors, *, lines=(405, 488), pinhole=1.2):
    """Return the settings of a confocal microscope with detectors of name, dye, and band."""
    listed = "".join(
        f'<Detector Name="{name}" Channel="{n}" IsActive="1" DyeName="Leica/{dye}"/>'
        for n, (name, dye, *_) in enumerate(detectors, 1)
    )
    bands = "".join(
        f'<MultiBand Channel="{n}" LeftWorld="{low}" RightWorld="{high}"/>'
        for n, (_, _, low, high) in enumerate(detectors, 1)
    )
    lasers = "".join(f'<LaserLineSetting LaserLine="{n}" IntensityDev="2.5"/>' for n in lines)
    lasers += '<LaserLineSetting LaserLine="561" IntensityDev="0"/>'
    return (
        '<ATLConfocalSettingDefinition ObjectiveName="HC PL APO CS2 63x/1.40 OIL" '
        f'NumericalAperture="1.4" Immersion="OIL" RefractionIndex="1.518" PinholeAiry="{pinhole}">'
        f'<DetectorList><Detector Name="PMT 9" Channel="9" IsActive="0"/>{listed}</DetectorList>'
        f"<Spectro>{bands}</Spectro><AotfList><Aotf>{lasers}</Aotf></AotfList>"
        "</ATLConfocalSettingDefinition>"
    )


def write_lif(path, images):
    """Write a LIF of images as of :func:`lif_image`."""
    elements = "".join(xml for _, xml, _ in images)
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Data/><Memory Size="0" '
        f'MemoryBlockID=""/><Children>{elements}</Children></Element></LMSDataContainerHeader>'
    )
    text = xml.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    for name, _, values in images:
        head = struct.pack("<BQBI", 0x2A, len(values), 0x2A, len(name)) + name.encode("utf-16-le")
        content += struct.pack("<II", 0x70, len(head)) + head + values
    path.write_bytes(content)


# --- Olympus OIF: settings as text, and a folder of planes


def write_oif(path, data, *, channels=((461, 405), (519, 488)), na="1.42"):
    """Write an OIF of an array (C, Z, Y, X)."""
    folder = path.with_name(f"{path.name}.files")
    folder.mkdir()
    z, y, x = VOXEL_UM
    for c, depth in np.ndindex(data.shape[:2]):
        tifffile.imwrite(folder / f"s_C{c + 1:03d}Z{depth + 1:03d}.tif", data[c, depth])
    parts = {
        "File Info": {"DataName": f'"{path.name}"'},
        "Axis Parameter Common": {"AxisOrder": '"XYZC"'},
        "Axis 3 Parameters Common": {
            "AxisCode": '"Z"', "MaxSize": data.shape[1], "Interval": z * 1000, "PixUnit": '"nm"',
        },
        "Reference Image Parameter": {
            "WidthConvertValue": x, "WidthUnit": '"um"', "HeightConvertValue": y,
            "HeightUnit": '"um"', "ValidBitCounts": 12,
        },
        "ProfileSaveInfo": {"Name": f'"{path.name}"', "Version": '"1.2.6.0"'},
    }  # fmt: skip
    for number, (emission, excitation) in enumerate(channels, 1):
        parts[f"Channel {number} Parameters"] = {
            "DyeName": '"Alexa Fluor 488"', "EmissionWavelength": emission,
            "ExcitationWavelength": excitation,
        }  # fmt: skip

    def text(sections):
        lines = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key}={value}" for key, value in values.items())]
        return "\r\n".join(lines).encode("utf-8")

    path.write_bytes(text(parts))
    plane = {
        "ObjectiveLens Name": '"PLAPON 60X O NA:1.42"', "ObjectiveLens NAValue": na,
    }  # fmt: skip
    (folder / "s_C001Z001.pty").write_bytes(text({"Acquisition Parameters Common": plane}))


# --- Nikon ND2: named chunks, whose map stands at the end; XML of version 2


def _variant(name, value):
    """Return a value, or a dictionary of values, as an element of Nikon's XML."""
    if isinstance(value, dict):
        inner = "".join(_variant(key, item) for key, item in value.items())
        return f'<{name} runtype="CLxListVariant">{inner}</{name}>'
    kind = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}[type(value)]
    return f'<{name} runtype="{kind}" value="{str(value).lower() if kind == "bool" else value}"/>'


def write_nd2(path, data, *, acquired=None, modality=0x101, names=("DAPI", "EGFP")):
    """Write an ND2 of an array (P, Z, C, Y, X), whose first ``acquired`` frames exist."""
    positions, depth, channels, height, width = data.shape
    frames = data.reshape(-1, channels, height, width)
    acquired = len(frames) if acquired is None else acquired
    z, _, x = VOXEL_UM
    spectrum = {"DAPI": (385.0, 461.0), "EGFP": (488.0, 507.0)}
    planes = {
        f"a{n}": {
            "sDescription": name, "uiCompCount": 1, "uiModalityMask": modality,
            "pFluorescentProbe": {
                f"m_{kind}Spectrum": {
                    "uiCount": 1, "pPoint": {"Point0": {"dTValue": 1.0, "dWavelength": peak}},
                }
                for kind, peak in zip(("Excitation", "Emission"), spectrum[name], strict=True)
            },
        }
        for n, name in enumerate(names[:channels])
    }  # fmt: skip
    picture = {
        "bCalibrated": True, "dCalibration": x, "dObjectiveNA": 1.45, "dObjectiveMag": 100.0,
        "dRefractIndex1": 1.515, "wsObjectiveName": "Plan Apo 100x Oil",
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
    }  # fmt: skip
    points = {
        f"i{n:010}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0, "dPosName": ""}
        for n in range(positions)
    }
    stack = {
        "eType": 4,
        "uLoopPars": {"uiCount": depth, "dZStep": z, "dZLow": 0.0, "dZHigh": z * (depth - 1),
                      "dZHome": 0.0, "bAbsolute": True, "iType": 0},
    }  # fmt: skip
    experiment = {
        "eType": 2,
        "uLoopPars": {"uiCount": positions, "bUseZ": False, "Points": points},
        "ppNextLevelEx": {"i0": stack},
    }
    attributes = {
        "uiWidth": width, "uiWidthBytes": width * channels * 2, "uiHeight": height,
        "uiComp": channels, "uiBpcInMemory": 16, "uiBpcSignificant": 16,
        "uiSequenceCount": acquired, "eCompression": 2,
    }  # fmt: skip
    parts = {
        b"ImageAttributes!": attributes, b"ImageMetadataSeq|0!": picture,
        b"ImageMetadata!": experiment if positions > 1 else stack,
    }  # fmt: skip
    chunks = [
        (name, f"<variant>{''.join(_variant(k, v) for k, v in part.items())}</variant>".encode())
        for name, part in parts.items()
    ]
    for number, frame in enumerate(frames[:acquired]):
        values = np.ascontiguousarray(frame.transpose(1, 2, 0)).tobytes()
        chunks.append((f"ImageDataSeq|{number}!".encode(), struct.pack("<d", 0.0) + values))

    def chunk(name, content, reserve):
        # Values of frames lie 4096 bytes behind the start of a chunk: head, name, and time.
        head = struct.pack("<IIQ", 0x0ABECEDA, reserve, len(content))
        return head + name.ljust(reserve, b"\0") + content

    file = bytearray(chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver2.1".ljust(64, b"\0"), 32))
    listed = b""
    for name, content in chunks:
        listed += name + struct.pack("<QQ", len(file), len(content))
        file += chunk(name, content, 4072)
    where = len(file)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", where)
    file += chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", listed + end, 32)
    path.write_bytes(bytes(file))
