"""Shared fixtures of the core's tests."""

import pytest

from napari_rln.engine import history


@pytest.fixture(scope="session", autouse=True)
def no_history(tmp_path_factory):
    """Keep how long runs took in a folder of the tests' own, also of fixtures of whole modules."""
    place = tmp_path_factory.mktemp("history") / "seconds.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_path", lambda: place)
        yield
