"""Settings remembered between sessions, and links to the documentation."""

import json
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image

from napari_rln.core.errors import RlnWarning
from napari_rln.gui import remembered as module
from napari_rln.gui.help_button import documentation_url
from napari_rln.gui.layers import CHANNEL, SERIES
from napari_rln.gui.remembered import change, layer_key, remember, remembered


def test_values_come_back_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 2)
    assert remembered("a") is None
    for key in ("a", "b", "a", "c"):
        remember(key, {"na": 1.4, "of": key})
    assert remembered("a") == {"na": 1.4, "of": "a"}  # stored again after b
    assert remembered("b") is None
    assert [*json.loads(module._path().read_text())] == ["a", "c"]


def test_a_damaged_file_is_ignored_and_replaced(monkeypatch, tmp_path):
    path = tmp_path / "remembered.json"
    monkeypatch.setattr(module, "_path", lambda: path)
    path.write_text('{"a": {"na": 1.')
    with pytest.warns(RlnWarning, match=r"remembered\.json are damaged"):
        assert remembered("a") is None
    with pytest.warns(RlnWarning):
        remember("a", {"na": 1.2})
    assert remembered("a") == {"na": 1.2}


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "_path", lambda: tmp_path / "file" / "remembered.json")
    remember("a", {})


def test_a_layer_is_known_by_its_file_and_channel_or_its_name_and_shape():
    data = np.zeros((2, 3, 4))
    assert layer_key(Image(data, name="cells")) == "cells 2 3 4"
    layer = Image(data, name="other", metadata={CHANNEL: 1})
    layer._source = layer.source.model_copy(update={"path": "cells.czi"})
    assert layer_key(layer) == f"{Path('cells.czi').absolute()} channel 1"


def test_links_lead_to_pages_of_the_documentation():
    url = documentation_url("psf", "measured-from-beads")
    assert url.startswith("https://")
    assert url.endswith("/psf.html#measured-from-beads")


def test_images_of_one_file_have_keys_of_their_own():
    layers = [Image(np.zeros((2, 4, 4)), metadata={SERIES: number}) for number in range(2)]
    for layer in layers:
        layer._source = layer.source.model_copy(update={"path": "project.lif"})
    first, second = map(layer_key, layers)
    assert first != second


def test_a_change_starts_from_what_another_program_has_stored():
    remember("runs", {"a": 1})
    change("runs", lambda before: (before or {}) | {"b": 2})
    assert remembered("runs") == {"a": 1, "b": 2}


def test_a_file_that_cannot_be_read_now_is_not_replaced(monkeypatch):
    remember("kept", {"a": 1})
    path = module._path()
    before = path.read_bytes()

    def refused(*_, **__):
        raise PermissionError("another program has it open")

    monkeypatch.setattr(Path, "read_text", refused)
    remember("other", {"b": 2})
    assert remembered("kept") is None
    assert path.read_bytes() == before
