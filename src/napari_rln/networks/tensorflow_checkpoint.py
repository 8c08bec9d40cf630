"""Reader of TensorFlow checkpoints, and of published RLN weights in them.

The format and its names are confined to this module: :func:`read_checkpoint` returns variables,
:func:`rln_from_checkpoint` a network, and only the command ``import-tf`` uses them. The format (V2,
the "tensor bundle") is read directly because TensorFlow would be a dependency of half a gigabyte
for 60 kB of numbers, and so that reading a checkpoint runs no code.

A checkpoint ``model.ckpt`` is a table ``model.ckpt.index``, with the position of each variable, and
files ``model.ckpt.data-00000-of-00001`` of numbers. The table is LevelDB's
(``doc/table_format.md`` there): blocks of sorted keys and values, an index block of these blocks,
and a footer with the position of the index. The values are protocol buffers
(``tensor_bundle.proto`` in TensorFlow). Only the parts of both that checkpoints use are supported.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np
import torch
from torch import nn

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Array
from napari_rln.networks.rln import RLN, NetworkSettings

if TYPE_CHECKING:
    from napari_rln.networks.architectures.base import Views

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER = 48
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
"""NumPy types by TensorFlow's type number."""

_LARGEST = 2**22  # bytes of a file; the authors' checkpoint has 192 kB with the optimiser's state
_LONGEST = 255  # bytes of a name
_SAVE = "load it in TensorFlow and save it with tf.train.Saver's defaults"
_STATISTICS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def read_checkpoint(path: str | Path) -> dict[str, Array]:
    """Return the variables of a TensorFlow checkpoint by name: its floats and integers, as stored.

    Parameters
    ----------
    path
        The checkpoint's name (``model.ckpt``), one of its files, or the folder that holds its
        ``checkpoint`` file.

    Raises
    ------
    RlnError
        If a file is missing, truncated, altered (wrong checksum), compressed, larger than any
        checkpoint of a Richardson-Lucy Network, or of another format.
    """
    prefix = _prefix(Path(path))
    index = prefix.with_name(prefix.name + ".index")
    with _reading(index) as data:
        items = dict(_table(data))
        if b"" not in items:
            raise _Unreadable("its header is missing")
        shards = _shards(items.pop(b""))
        numeric = ((_name(key), _entry(value, shards)) for key, value in items.items())
        entries = {name: entry for name, entry in numeric if entry is not None}
    variables: dict[str, Array] = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        part = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        inside = {name: entry for name, entry in entries.items() if entry.shard == shard}
        with _reading(part) as data:
            if sum(entry.size for entry in inside.values()) > len(data):
                raise _Unreadable("it is shorter than the index requires")
            variables |= {name: _variable(data, name, entry) for name, entry in inside.items()}
    return variables


def rln_from_checkpoint(variables: Mapping[str, Array], *, division_eps: float = 1e-4) -> RLN:
    """Return the network of a checkpoint of the authors' code, in evaluation mode.

    It is for concatenated views if ``e_1`` has two input channels, else for a single view (or
    averaged ones, for which the network is the same).

    Parameters
    ----------
    variables
        As returned by ``read_checkpoint``; the optimiser's are ignored. Convolutions are
        identified by the last part of their name (``estimation/e_1``), batch normalisations by
        their number (``batch_normalization``, ``batch_normalization_1``, ...), which is their
        order in the network.
    division_eps
        Constant added to the denominator of the division, not part of a checkpoint: 1e-4 in the
        released checkpoint and the authors' dual-view code, 1e-3 in their single-view code.

    Raises
    ------
    RlnError
        If variables are missing, duplicate, of another shape or not finite.
    """
    weights = _last_parts(variables)
    two = "e_1" in weights and weights["e_1"].ndim == 5 and weights["e_1"].shape[3] == 2
    views: Views = "concatenated" if two else "single"
    network = RLN(NetworkSettings(views=views, division_eps=division_eps)).eval()
    state, names = network.state_dict(), _tensorflow_names(network)
    missing = [name for name in names.values() if name not in weights]
    if missing:
        raise RlnError(
            f"the checkpoint lacks {', '.join(missing)}; use a checkpoint of the authors' "
            "Richardson-Lucy network."
        )
    for own, name in names.items():
        state[own].copy_(_weight(name, weights[name], state[own]))
    return network


# Files


class _Unreadable(Exception):
    """Invalid content of a file, with the problem and advice."""

    def __init__(self, what: str, advice: str = "copy it again from its source") -> None:
        super().__init__(f"{what}; {advice}")


@contextmanager
def _reading(path: Path) -> Iterator[bytes]:
    """Yield the content of a file; errors in it become an RlnError with its name."""
    try:
        if not path.is_file():
            raise RlnError(
                f"there is no file {path}; a TensorFlow checkpoint consists of files that end in "
                ".index and .data-00000-of-00001, in one folder."
            )
        if path.stat().st_size > _LARGEST:
            raise _Unreadable(
                f"its size is {path.stat().st_size / 1e6:.1f} MB; at most 4 MB are read",
                "use a checkpoint of a Richardson-Lucy network, which has 0.2 MB",
            )
        yield path.read_bytes()
    except OSError as error:
        raise RlnError(f"{path} cannot be read ({error}); check its permissions.") from error
    except _Unreadable as error:
        raise RlnError(
            f"{path.name} cannot be read as a file of a TensorFlow checkpoint: {error}."
        ) from error


def _prefix(path: Path) -> Path:
    """Return the name of a checkpoint, without the endings of its files."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name == "checkpoint":
        with _reading(folder / "checkpoint") as data:
            text = data.decode(errors="replace")
            named = re.search(r'^\s*model_checkpoint_path:\s*"([^"\n]+)"', text, re.MULTILINE)
            if named is None:
                raise _Unreadable("it does not name the latest checkpoint")
        # Only a file in this folder: the recorded path may be of another machine.
        return folder / re.split(r"[/\\]", named[1])[-1]
    return folder / re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)


# The variables that an index describes


class _Entry(NamedTuple):
    """Type, shape, shard and bytes of a variable."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def _shards(header: bytes) -> int:
    """Return the number of data files from a BundleHeaderProto.

    Its fields: 1 num_shards, 2 endianness.
    """
    numbers, _ = _message(header)
    if numbers.get(2, 0) != 0:
        raise _Unreadable("its numbers are big-endian, which is not supported", _SAVE)
    if not 1 <= numbers.get(1, 0) <= 99999:
        raise _Unreadable(f"it lists {numbers.get(1, 0)} data files")
    return numbers[1]


def _entry(value: bytes, shards: int) -> _Entry | None:
    """Return a validated BundleEntryProto; None if its type is not numeric.

    Its fields: 1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size, 6 crc32c, 7 slices. A shape's
    field 2 are its dimensions, whose field 1 is the length.
    """
    numbers, parts = _message(value)
    dtype = TYPES.get(numbers.get(1, 0))
    if dtype is None:
        return None
    if 7 in parts:
        raise _Unreadable("a variable is stored in slices, which is not supported", _SAVE)
    _, dims = _message(parts.get(2, [b""])[-1])
    shape = tuple(_message(dim)[0].get(1, 0) for dim in dims.get(2, []))
    size, shard = numbers.get(5, 0), numbers.get(3, 0)
    if math.prod(shape) * np.dtype(dtype).itemsize != size or size == 0 or len(shape) > 8:
        raise _Unreadable(f"a variable of shape {shape[:8]} cannot have {size} bytes")
    if shard >= shards:
        raise _Unreadable(f"a variable is in data file {shard} of {shards}")
    return _Entry(dtype, shape, shard, numbers.get(4, 0), size, numbers.get(6, 0))


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise _Unreadable("a variable's name is not text") from error


def _variable(data: bytes, name: str, entry: _Entry) -> Array:
    """Return a variable from the content of its shard."""
    numbers = _Cursor(data, entry.offset).take(entry.size)
    if masked_crc(numbers) != entry.crc:
        raise _Unreadable(f"the checksum of {name} is wrong")
    return np.frombuffer(numbers, entry.dtype).reshape(entry.shape).astype(entry.dtype[1:])


# LevelDB's table


class _Cursor:
    """A position in bytes that moves forward, at most to their end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self.data) - self.at:
            raise _Unreadable("it is truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """Return the next number: 7 bits a byte, least first, the eighth set but in the last."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _Unreadable("it contains an endless number")

    def __bool__(self) -> bool:
        return self.at < len(self.data)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table."""
    if data[-8:] != MAGIC or len(data) < FOOTER:
        raise _Unreadable("its end is not that of such a file")
    footer = _Cursor(data[-FOOTER:])
    _handle(footer)  # of filters and statistics, which checkpoints do not have
    end = 0
    for _, value in _items(_block(data, *_handle(footer))):
        offset, size = _handle(_Cursor(value))
        if offset < end:  # otherwise a small file could expand to a huge table
            raise _Unreadable("its blocks overlap")
        end = offset + size
        yield from _items(_block(data, offset, size))


def _handle(cursor: _Cursor) -> tuple[int, int]:
    """Return the next handle: offset and size of a block."""
    return cursor.varint(), cursor.varint()


def _block(data: bytes, offset: int, size: int) -> bytes:
    """Return the content of a block, which is followed by its compression and checksum."""
    cursor = _Cursor(data, offset)
    block, kind, crc = cursor.take(size), cursor.take(1), cursor.take(4)
    if masked_crc(block + kind) != int.from_bytes(crc, "little"):
        raise _Unreadable("the checksum of a block is wrong")
    if kind != b"\0":
        how = "Snappy" if kind == b"\1" else f"method {kind[0]}"
        raise _Unreadable(f"it is compressed ({how}), which is not supported", _SAVE)
    return block


def _items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block, whose keys omit the prefix of the previous one.

    They are followed by the positions of some whole keys, for searches, and their number.
    """
    end = len(block) - 4
    if end >= 0:
        end -= 4 * int.from_bytes(block[end:], "little")
    if end < 0:
        raise _Unreadable("a block is too short")
    cursor, key = _Cursor(block[:end]), b""
    while cursor:
        shared, own, size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key) or shared + own > _LONGEST:
            raise _Unreadable("it contains an invalid name")
        key = key[:shared] + cursor.take(own)
        yield key, cursor.take(size)


def _message(data: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """Return the numbers and the parts of a protocol buffer, by field number."""
    numbers: dict[int, int] = {}
    parts: defaultdict[int, list[bytes]] = defaultdict(list)
    cursor = _Cursor(data)
    while cursor:
        field, wire = divmod(cursor.varint(), 8)
        if wire == 0:
            numbers[field] = cursor.varint()
        elif wire == 2:
            parts[field].append(cursor.take(cursor.varint()))
        elif wire in (1, 5):
            numbers[field] = int.from_bytes(cursor.take(8 if wire == 1 else 4), "little")
        else:
            raise _Unreadable("it contains an invalid protocol buffer")
    return numbers, parts


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of bytes, masked as LevelDB and TensorFlow store it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# The names and layouts of the network's weights


def _tensorflow_names(network: RLN) -> dict[str, str]:
    """Return the last part of TensorFlow's name for each name in the network's state."""
    names: dict[str, str] = {}
    norms = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            names[f"{name}.weight"] = name.removesuffix(".conv").rpartition(".")[2]
        elif isinstance(module, nn.BatchNorm3d):
            layer = f"batch_normalization_{norms}" if norms else "batch_normalization"
            names |= {f"{name}.{own}": f"{layer}/{other}" for own, other in _STATISTICS.items()}
            norms += 1
    return names


def _last_parts(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Return the variables by the last part of their name, see :func:`_tensorflow_names`."""
    weights: dict[str, Array] = {}
    for name, value in variables.items():
        match = re.search(r"(?:^|/)([eu]_\d+|batch_normalization(?:_\d+)?/\w+)$", name)
        if match is None:
            continue
        if match[1] in weights:
            raise RlnError(
                f"the checkpoint contains {match[1]} twice, the second time as {name}; use one of "
                "a single network."
            )
        weights[match[1]] = value
    return weights


def _weight(name: str, value: Array, like: torch.Tensor) -> torch.Tensor:
    """Return a variable in torch's layout: (d, h, w, in, out) becomes (out, in, d, h, w).

    The transposed kernel is (d, h, w, out, in) there and (in, out, d, h, w) here.
    """
    last_first = (4, 3, 0, 1, 2) if like.ndim == 5 else (0,)
    shape = like.shape if like.ndim == 1 else (*like.shape[2:], like.shape[1], like.shape[0])
    if value.shape != tuple(shape):
        raise RlnError(
            f"the shape of {name} is {value.shape} in the checkpoint but {tuple(shape)} in the "
            "Richardson-Lucy network; use a checkpoint of that network."
        )
    if not np.isfinite(value).all():
        raise RlnError(
            f"{name} of the checkpoint contains NaN or infinities; use a checkpoint saved earlier "
            "in that training."
        )
    return torch.from_numpy(np.ascontiguousarray(value.transpose(last_first), np.float32))
