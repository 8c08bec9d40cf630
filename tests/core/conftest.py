"""Shared fixtures of the core's tests."""

from pathlib import Path

import pytest

from napari_rln.engine import history

_SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real volumes and reference arrays that lies beside a developer's checkout."""
    if not _SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout: real volumes are not shipped with it")
    return _SHARED


@pytest.fixture(scope="session", autouse=True)
def no_history(tmp_path_factory):
    """Keep how long runs took in a folder of the tests' own, also of fixtures of whole modules."""
    place = tmp_path_factory.mktemp("history") / "seconds.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_path", lambda: place)
        yield
