"""Shared fixtures of the core's tests."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real volumes and reference arrays that lies beside a developer's checkout."""
    if not _SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout: real volumes are not shipped with it")
    return _SHARED
