import json
from datetime import UTC, datetime

import numpy as np
import pytest

from napari_rln import __version__
from napari_rln.core.record import Record, array_hash


def test_json_round_trip():
    record = Record(
        method="psf compute",
        settings={"na": 1.4, "wavelength_um": None, "position": [1, 2, 3], "text": "µ<&\"'\n"},
        facts={"iterations": 12, "stopped_by": "limit"},
        inputs={"psf": "0123456789abcdef"},
    )
    text = record.to_json()
    assert Record.from_json(text) == record
    assert text.isascii()  # as ImageJ's metadata must be
    assert "\n" not in text


def test_version_and_time_are_of_now():
    record = Record(method="rld")
    assert record.version == __version__
    assert abs((datetime.now(UTC) - datetime.fromisoformat(record.time)).total_seconds()) < 60


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "5", "{}", '{"method": "otsu"}'])
def test_other_text_is_no_record(text):
    with pytest.raises(ValueError, match=r"record holds|Expecting"):
        Record.from_json(text)


def test_what_a_later_version_has_written_is_kept():
    values = json.loads(Record(method="rld").to_json()) | {"colour": "red", "schema": 9}
    record = Record.from_json(json.dumps(values))
    assert (record.schema, record.more) == (9, {"colour": "red"})
    assert json.loads(record.to_json()) == values
    del values["schema"], values["colour"]  # as the first versions wrote it
    assert Record.from_json(json.dumps(values)) == Record(method="rld", time=record.time)


@pytest.mark.parametrize("change", [{"method": 5}, {"facts": []}, {"settings": None}, {"time": 0}])
def test_a_record_of_another_make_is_no_record(change):
    values = json.loads(Record(method="rld").to_json()) | change
    with pytest.raises(ValueError, match="record holds"):
        Record.from_json(json.dumps(values))


def test_hash_is_the_same_on_every_machine():
    # Worked out once by hashlib: sha256 of b"(2, 3)<u2" and the little-endian values.
    assert array_hash(np.arange(6, dtype="<u2").reshape(2, 3)) == "f8fbe221b7f8bc44"


@pytest.mark.parametrize("dtype", ["u1", "?", "u2", "i4", "f4", "f8"])
def test_hash_is_blind_to_byte_order_and_layout(dtype):
    array = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    expected = array_hash(array)
    swapped = array.astype(array.dtype.newbyteorder(">"))
    wide = np.zeros((3, 8, 5), dtype)
    wide[:, ::2] = array
    for same in (swapped, np.asfortranarray(array), wide[:, ::2]):
        assert array_hash(same) == expected
    for other in (array.ravel(), array.swapaxes(0, 1), array.astype("f2")):
        assert array_hash(other) != expected
