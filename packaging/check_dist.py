"""Check the contents of the wheel and the sdist in ``dist``.

The wheel contains the tracked files of the package, the sdist all tracked files except those that
only serve the repository, so that its tests run as in a checkout.
"""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_ONLY_FOR_THE_REPOSITORY = (
    ".ci/",
    ".git_archival.txt",
    ".gitattributes",
    ".github/",
    ".pre-commit-config.yaml",
)
_MADE_BY_THE_BUILD = {"PKG-INFO"}


def _tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return set(filter(None, listed.stdout.split("\0")))


def _differences(name: str, held: set[str], expected: set[str]) -> list[str]:
    return [f"{name} lacks {path}" for path in sorted(expected - held)] + [
        f"{name} holds {path}, which git does not know" for path in sorted(held - expected)
    ]


def _check_sdist(path: Path, tracked: set[str]) -> list[str]:
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    expected = {name for name in tracked if not name.startswith(_ONLY_FOR_THE_REPOSITORY)}
    return _differences("the sdist", held - _MADE_BY_THE_BUILD, expected)


def _check_wheel(path: Path, tracked: set[str]) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        readme = HeaderParser().parsestr(archive.read(metadata).decode()).get_payload()
    package = {name.removeprefix("src/") for name in tracked if name.startswith("src/napari_rln/")}
    links = [part.partition(")")[0] for part in str(readme).split("](")[1:]]
    relative = [link for link in links if not link.startswith(("https://", "#"))]
    return _differences("the wheel", held, package) + [
        f"the README of the wheel links to {link}, which an index cannot show" for link in relative
    ]


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    wheels, sdists = list((_ROOT / "dist").glob("*.whl")), list((_ROOT / "dist").glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        print("dist/ should hold one wheel and one sdist; make dist builds them")
        return 1
    tracked = _tracked()
    wrong = _check_wheel(wheels[0], tracked) + _check_sdist(sdists[0], tracked)
    print("\n".join(wrong) or f"{wheels[0].name} and {sdists[0].name} hold what they should")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
