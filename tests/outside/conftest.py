"""What lies beside a developer's checkout, because it may not or need not be shipped with it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with the authors' released network and what it computes."""
    folder = SHARED / "reference"
    if not (folder / "rln_released_weights.npz").is_file():
        pytest.skip("no ../shared/reference: the authors' checkpoint has no licence to ship it by")
    return folder


@pytest.fixture(scope="session")
def volumes() -> Path:
    """Folder with real volumes."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data: real volumes that are too large, or others', to be shipped")
    return folder
