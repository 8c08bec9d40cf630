"""The reader of TensorFlow checkpoints, against a writer of the format and the authors' file."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_rln.core.errors import RlnError
from napari_rln.networks.rln import RLN, NetworkSettings
from napari_rln.networks.tensorflow_checkpoint import (
    FOOTER,
    MAGIC,
    masked_crc,
    read_checkpoint,
    rln_from_checkpoint,
)

Variables = dict[str, np.ndarray]

KERNELS = {
    "estimation/e_1": (3, 3, 3, 1, 4),
    "estimation/e_2": (3, 3, 3, 4, 4),
    "estimation/e_3": (3, 3, 3, 8, 4),
    "estimation/init_w/e_4": (3, 3, 3, 1, 8),
    "estimation/init_w_1/e_5": (3, 3, 3, 8, 8),
    "estimation/init_w_2/e_6": (3, 3, 3, 16, 8),
    "estimation/init_w_3/e_7": (2, 2, 2, 4, 8),
    "estimation/init_w_4/e_8": (3, 3, 3, 4, 4),
    "update/u_1": (3, 3, 3, 1, 4),
    "update/u_2": (3, 3, 3, 4, 4),
    "update/init_w/u_3": (3, 3, 3, 1, 8),
    "update/init_w_1/u_4": (3, 3, 3, 8, 8),
    "update/init_w_2/u_5": (3, 3, 3, 1, 8),
    "update/init_w_3/u_6": (3, 3, 3, 10, 8),
    "update/init_w_4/u_7": (3, 3, 3, 16, 8),
}
NORMS = [4, 4, 4, 1, 8, 8, 8, 4, 4, 1, 4, 4, 1, 8, 8, 1, 8]
OF_TWO_VIEWS = ("e_1", "u_1", "e_4", "u_3")
SMALL = {
    "step": np.array(7, "<i8"),
    "layer/kernel": np.arange(24, dtype="<f4").reshape(2, 3, 4) / 7,
    "layer/kernel/Adam": np.array([-1, 2], "<i4"),
    "layer_1/gamma": np.array([0.1], "<f8"),
}


# The writer


def varint(value: int) -> bytes:
    data = b""
    while value >= 0x80:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed(value: int) -> bytes:
    return value.to_bytes(4, "little")


def entry(value: np.ndarray, shard: int, offset: int) -> bytes:
    """Return a BundleEntryProto; zeros are left out, as protocol buffers do."""
    dtype = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}[value.dtype.str]
    data = number(1, dtype) + part(2, b"".join(part(2, number(1, n)) for n in value.shape))
    data += number(3, shard) if shard else b""
    data += number(4, offset) if offset else b""
    return data + number(5, value.nbytes) + varint(6 << 3 | 5) + fixed(masked_crc(value.tobytes()))


def block(items: list[tuple[bytes, bytes]]) -> bytes:
    data, last, restarts = b"", b"", []
    for i, (key, value) in enumerate(items):
        shared = 0
        if i % 16 == 0:
            restarts.append(len(data))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        data += varint(shared) + varint(len(key) - shared) + varint(len(value))
        data += key[shared:] + value
        last = key
    return data + b"".join(map(fixed, [*restarts, len(restarts)]))


def table(items: dict[bytes, bytes], kind: bytes = b"\0", per_block: int = 20) -> bytes:
    data = b""

    def add(content: bytes) -> bytes:
        nonlocal data
        handle = varint(len(data)) + varint(len(content))
        data += content + kind + fixed(masked_crc(content + kind))
        return handle

    pairs = sorted(items.items())
    chunks = [pairs[i : i + per_block] for i in range(0, len(pairs), per_block)]
    handles = [(chunk[-1][0], add(block(chunk))) for chunk in chunks]
    footer = add(block([])) + add(block(handles))
    return data + footer.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC


def write(
    prefix: Path,
    variables: Variables,
    *,
    shards: int = 1,
    header: bytes | None = None,
    edit: Callable[[dict[bytes, bytes]], None] = lambda _: None,
    **options,
) -> Path:
    """Write a checkpoint; ``edit`` may spoil the entries before their checksums are made."""
    parts = [b""] * shards
    items = {b"": number(1, shards) if header is None else header}
    for i, (name, value) in enumerate(variables.items()):
        shard = i % shards
        items[name.encode()] = entry(value, shard, len(parts[shard]))
        parts[shard] += value.tobytes()
    edit(items)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(items, **options))
    for i, data in enumerate(parts):
        prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}").write_bytes(data)
    prefix.with_name("checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    return prefix


def random_variables(channels: int = 1) -> Variables:
    """Return what the authors' code saves, with the optimiser's slots, from random numbers."""
    random = np.random.default_rng(0)
    shapes = dict(KERNELS)
    for name, shape in KERNELS.items():
        if name.rpartition("/")[2] in OF_TWO_VIEWS:
            shapes[name] = (*shape[:3], channels, shape[4])
    for i, count in enumerate(NORMS):
        for last in ("gamma", "beta", "moving_mean", "moving_variance"):
            name = f"batch_normalization_{i}" if i else "batch_normalization"
            shapes[f"{name}/{last}"] = (channels if i in (3, 12) else count,)
    for name in tuple(shapes):
        if not name.endswith(("mean", "variance")):
            shapes |= {f"{name}/Adam": shapes[name], f"{name}/Adam_1": shapes[name]}
    shapes |= {"beta1_power": (), "beta2_power": (), "input/alpha": ()}
    return {name: random.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def prefix(tmp_path) -> Path:
    return write(tmp_path / "model.ckpt", SMALL)


def assert_same(found: Variables, expected: Variables) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, strict=True)


# The format


def test_checksum():
    def unmasked(data):
        rotated = (masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
        return (rotated << 15 | rotated >> 17) & 0xFFFFFFFF

    assert unmasked(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert unmasked(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert masked_crc(b"") == 0xA282EAD8


@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_written(tmp_path, shards):
    variables = random_variables()
    assert len(variables) > 180
    prefix = write(tmp_path / "a.b-500", variables, shards=shards)
    assert_same(read_checkpoint(prefix), variables)


@pytest.mark.parametrize(
    "name",
    ["", "checkpoint", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"],
)
def test_any_name_of_a_checkpoint(prefix, name):
    assert_same(read_checkpoint(str(prefix.parent / name)), SMALL)


@pytest.mark.parametrize("named", [r"C:\\data\\model.ckpt", "/home/me/run/model.ckpt"])
def test_a_folder_that_was_moved(prefix, named):
    (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    assert_same(read_checkpoint(prefix.parent), SMALL)


def test_numbers_can_be_changed(prefix):
    read_checkpoint(prefix)["layer/kernel"] += 1


def test_text_is_left_out(tmp_path):
    def text(items: dict[bytes, bytes]) -> None:
        items[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = number(1, 7) + part(2, b"") + number(5, 9)

    assert_same(read_checkpoint(write(tmp_path / "model", SMALL, edit=text)), SMALL)


# What is wrong with files


def test_absent(prefix):
    with pytest.raises(RlnError, match=r"no file .*other\.index"):
        read_checkpoint(prefix.with_name("other"))
    prefix.with_name("model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(RlnError, match=r"no file .*data-00000-of-00001"):
        read_checkpoint(prefix)
    (prefix.parent / "checkpoint").write_text("model_checkpoint_path: 'x'")
    with pytest.raises(RlnError, match="latest"):
        read_checkpoint(prefix.parent)
    (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{"x" * 5000}"')
    with pytest.raises(RlnError):
        read_checkpoint(prefix.parent)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_cut_short_anywhere(prefix, ending):
    file = prefix.with_name(prefix.name + ending)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(RlnError, match=re.escape(file.name)):
            read_checkpoint(prefix)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_any_byte_changed(prefix, ending):
    """Nothing but the footer's padding and its pointer to what is not read may change unseen."""
    file = prefix.with_name(prefix.name + ending)
    whole = file.read_bytes()
    unseen = 0
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            found = read_checkpoint(prefix)
        except RlnError:
            continue
        assert_same(found, SMALL)
        unseen += 1
    assert unseen < (FOOTER if ending == ".index" else 1)


def test_checksums_name_the_variable(prefix):
    file = prefix.with_name("model.ckpt.data-00000-of-00001")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RlnError, match=r"checksum.*layer_1/gamma"):
        read_checkpoint(prefix)


@pytest.mark.parametrize("content", [b"", b"PK\3\4" * 40, b"\x89HDF\r\n\x1a\n" * 30, bytes(500)])
def test_foreign(prefix, content):
    prefix.with_name("model.ckpt.index").write_bytes(content)
    with pytest.raises(RlnError, match=r"model\.ckpt\.index"):
        read_checkpoint(prefix)


def test_far_too_large(prefix):
    with prefix.with_name("model.ckpt.index").open("ab") as file:
        file.truncate(2**33)
    with pytest.raises(RlnError, match=r"8589\.9 MB"):
        read_checkpoint(prefix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": b"\1"}, "Snappy.*save it"),
        ({"kind": b"\4"}, "method 4"),
        ({"header": number(1, 1) + number(2, 1)}, "big-endian"),
        ({"header": b""}, "0 data files"),
        ({"header": number(1, 2**40)}, "data files"),
        ({"edit": lambda items: items.pop(b"")}, "header"),
    ],
)
def test_what_is_not_read(tmp_path, options, message):
    with pytest.raises(RlnError, match=message):
        read_checkpoint(write(tmp_path / "model", SMALL, **options))


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (number(1, 1) + part(2, part(2, number(1, 2**64 - 1)) * 2) + number(5, 4), "shape"),
        (number(1, 1) + part(2, part(2, b"") + part(2, number(1, 2**63))), "shape"),
        (number(1, 1) + part(2, part(2, number(1, 1)) * 99) + number(5, 4), "shape"),
        (number(1, 1) + number(4, 2**63) + number(5, 4), "truncated"),
        (number(1, 1) + part(2, part(2, number(1, 2**60))) + number(5, 2**62), "shorter"),
        (number(1, 1) + number(3, 1) + number(5, 4), "data file 1 of 1"),
        (number(1, 1) + number(5, 4) + part(7, b""), "slices.*save it"),
        (part(2, b"")[:-1] + b"\x7f", "truncated"),
        (b"\xff" * 20, "endless"),
        (b"\x0b", "protocol buffer"),
    ],
)
def test_impossible_entries(tmp_path, spoilt, message):
    def edit(items: dict[bytes, bytes]) -> None:
        items[b"step"] = spoilt

    with pytest.raises(RlnError, match=message):
        read_checkpoint(write(tmp_path / "model", SMALL, edit=edit))


@pytest.mark.parametrize("name", [b"\xff\xfe", b"x" * 256])
def test_impossible_names(tmp_path, name):
    def edit(items: dict[bytes, bytes]) -> None:
        items[name] = items[b"step"]

    with pytest.raises(RlnError, match="name"):
        read_checkpoint(write(tmp_path / "model", SMALL, edit=edit))


def test_nonsense_with_right_checksums(tmp_path):
    random = np.random.default_rng(0)

    def edit(items: dict[bytes, bytes]) -> None:
        for name, value in items.items():
            spoilt = bytearray(value)
            spoilt[random.integers(len(spoilt))] = random.integers(256)
            items[name] = bytes(spoilt)[: random.integers(1, 2 * len(spoilt))]

    for _ in range(150):
        prefix = write(tmp_path / "model", SMALL, edit=edit)
        try:
            read_checkpoint(prefix)
        except RlnError:
            continue


def test_blocks_that_are_listed_again(tmp_path):
    """A small file cannot keep the reader busy by pointing to one place many times."""
    items = [(b"", number(1, 1))]
    content = block(items)
    data = content + b"\0" + fixed(masked_crc(content + b"\0"))
    handle = varint(0) + varint(len(content))
    listing = block([(b"a", handle), (b"b", handle)])
    footer = handle + varint(len(data)) + varint(len(listing))
    data += listing + b"\0" + fixed(masked_crc(listing + b"\0"))
    (tmp_path / "model.index").write_bytes(data + footer.ljust(40, b"\0") + MAGIC)
    with pytest.raises(RlnError, match="overlap"):
        read_checkpoint(tmp_path / "model")


# The network


@pytest.mark.parametrize(("channels", "views"), [(1, "single"), (2, "concatenated")])
def test_network(channels, views):
    variables = random_variables(channels)
    network = rln_from_checkpoint(variables, division_eps=2e-3)
    assert network.settings == NetworkSettings(views=views, division_eps=2e-3)
    assert not network.training
    for name, own in (
        ("estimation/e_1", network.H1.e_1.conv),
        ("estimation/init_w_3/e_7", network.H1.e_7.conv),
        ("update/init_w_3/u_6", network.H3.u_6),
    ):
        d, h, w, i, o = variables[name].shape
        for at in ((0, 1, 0, 0, 0), (1, 0, 1, i - 1, o - 2), (d - 1, h - 1, w - 1, 0, o - 1)):
            assert own.weight[at[4], at[3], *at[:3]].item() == variables[name][at]
    for number_, own in (
        ("", network.H1.e_1.bn),
        ("_9", network.H1.e_bn),
        ("_12", network.H2.DV.bn),
    ):
        layer = f"batch_normalization{number_}"
        for last, found in (
            ("gamma", own.weight),
            ("beta", own.bias),
            ("moving_mean", own.running_mean),
            ("moving_variance", own.running_var),
        ):
            np.testing.assert_array_equal(found.detach(), variables[f"{layer}/{last}"])
    assert network(torch.zeros((1, channels, 4, 4, 4))).output.shape == (1, 1, 4, 4, 4)


def test_every_parameter_is_loaded():
    variables = random_variables()
    loaded, total = rln_from_checkpoint(variables).state_dict(), 0
    values = {float(x) for value in variables.values() for x in value.flat}
    for name, value in loaded.items():
        if not name.endswith("num_batches_tracked"):
            assert set(value.flatten().tolist()) <= values, name
            total += value.numel()
    assert total == 15968 + 160
    assert isinstance(rln_from_checkpoint(variables), RLN)


def test_default_division_constant_is_the_released_checkpoints():
    assert rln_from_checkpoint(random_variables()).settings.division_eps == 1e-4


def test_missing_variables():
    variables = random_variables()
    del variables["update/u_2"], variables["batch_normalization_16/moving_mean"]
    with pytest.raises(RlnError, match=r"lacks u_2, batch_normalization_16/moving_mean;"):
        rln_from_checkpoint(variables)
    with pytest.raises(RlnError, match="lacks e_1"):
        rln_from_checkpoint({})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("estimation/e_1", (3, 3, 3, 3, 4)),
        ("estimation/e_1", (3, 3, 3, 2, 4)),  # of two views, alone
        ("update/init_w_4/u_7", (3, 3, 16, 8)),
        ("estimation/init_w_3/e_7", (2, 2, 2, 8, 4)),
        ("batch_normalization_4/beta", ()),
    ],
)
def test_other_shapes(name, shape):
    variables = random_variables() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(RlnError, match=r"\(.*\(.*Richardson-Lucy network"):
        rln_from_checkpoint(variables)


def test_values_that_are_not_finite():
    variables = random_variables()
    variables["update/u_2"][0, 0, 0, 0, 0] = np.nan
    with pytest.raises(RlnError, match=r"u_2.*NaN"):
        rln_from_checkpoint(variables)


def test_two_networks_in_one_checkpoint():
    variables = random_variables()
    variables["second/u_2"] = variables["update/u_2"]
    with pytest.raises(RlnError, match=r"u_2 twice.*second/u_2"):
        rln_from_checkpoint(variables)


def test_a_checkpoint_under_another_name(tmp_path):
    """The two files say nothing of their name, so they may be renamed, together."""
    write(tmp_path / "model", SMALL)
    for file in tmp_path.glob("model.*"):
        shutil.move(file, file.with_name(file.name.replace("model", "released")))
    assert_same(read_checkpoint(tmp_path / "released"), SMALL)
