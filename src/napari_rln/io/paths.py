"""Output paths: valid names, protection of existing files, and atomic writing."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_rln.core.errors import RlnError

TIFF_SUFFIXES = (".tif", ".tiff")

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""Files that mark a folder as Zarr."""

MICROSCOPE_SUFFIXES = (".czi", ".lif", ".nd2", ".oib", ".oif", ".oir")
"""Endings of the files of microscopes' own programs."""

LONGEST_NAME = 50
"""Characters of a name by :func:`check_name`: file names have 255 bytes, characters up to four."""

FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
"""Characters that file names must not contain on some operating system."""

_LONGEST = 239  # bytes of a name: temporary names beside it have up to 16 more


def check_name(name: str, what: str) -> None:
    """Raise an RlnError unless ``what``, such as "a model", can be saved as a file of that name."""
    if not 1 <= len(name) <= LONGEST_NAME or name != name.strip(". ") or FORBIDDEN.search(name):
        raise RlnError(
            f"{what} cannot be called {name!r}; give 1 to {LONGEST_NAME} characters, none of "
            '/ \\ : * ? " < > |, with no dot or blank at either end.'
        )


def is_tiff_name(path: Path) -> bool:
    """Tell whether a file name is that of a TIFF."""
    return path.suffix.lower() in TIFF_SUFFIXES


def is_microscope_name(path: Path) -> bool:
    """Tell whether a file name is that of a file of a microscope's own program."""
    return path.suffix.lower() in MICROSCOPE_SUFFIXES


def is_ome_name(path: Path) -> bool:
    """Tell whether a file name is that of an OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def is_zarr_name(path: Path) -> bool:
    """Tell whether a name is that of an OME-Zarr."""
    return path.name.lower().endswith(".zarr")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / mark).is_file() for mark in ZARR_MARKS)


def zarr_around(path: Path) -> Path | None:
    """Return the innermost Zarr that contains a path; None without one."""
    return next((folder for folder in path.parents if is_zarr(folder)), None)


def stem(path: Path) -> str:
    """Return the name of a file or Zarr folder without its ending."""
    return path.stem[: -len(".ome")] if path.stem.lower().endswith(".ome") else path.stem


def ending(path: Path) -> str:
    """Return the ending of a name, such as ``.ome.tif``."""
    return path.name[len(stem(path)) :]


def title(path: Path) -> str:
    """Return the name of a file without its ending, as valid text.

    A file name may not be text in the encoding of the system.
    """
    return stem(path).encode(errors="replace").decode()


def relative_to_folder(path: str | Path, folder: Path) -> str:
    """Return a path, relative to the current folder, as seen from another folder.

    An absolute path is unchanged, one outside that folder becomes absolute.
    """
    if Path(path).is_absolute():
        return str(path)
    absolute, base = Path(path).absolute(), folder.absolute()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)


def check_tiff_output(path: Path) -> None:
    """Raise an RlnError unless a TIFF can be written at a path: by its ending and its folder."""
    if not is_tiff_name(path):
        raise RlnError(f"{path.name} must end in .tif, .tiff, .ome.tif or .ome.tiff.")
    check_place(path)


def check_outputs(
    outputs: Iterable[Path],
    *,
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
    room: int = 0,
) -> None:
    """Raise an RlnError, before the work, if outputs would destroy files or cannot be written.

    That is if an output is an input or lies within one, two are the same, one exists and is not to
    be overwritten, its folder is absent or not writable, or the disk has too little space for
    ``room`` bytes. Inputs of None are ignored.
    """
    outputs_by_path: dict[str, Path] = {}
    read = [path for path in inputs if path is not None]
    for path in outputs:
        check_place(path)
        for source in read:
            check_apart(path, source)
        other = outputs_by_path.setdefault(os.path.realpath(path), path)
        if other is not path:
            raise RlnError(f"{other} and {path} are one file; name different results.")
        if os.path.lexists(path) and not overwrite:
            raise RlnError(
                f"{path} already exists; name another result, or replace it with `overwrite`."
            )
        check_room(path, room)


def check_place(path: Path) -> None:
    """Raise an RlnError unless a file can be created at a path, or replaced there."""
    if len(os.fsencode(path.name)) > _LONGEST:
        raise RlnError(
            f"the name {path.name[:40]}\N{HORIZONTAL ELLIPSIS} has {len(os.fsencode(path.name))} "
            f"bytes; names of results may have {_LONGEST}."
        )
    if path.is_dir() and not is_zarr_name(path):
        raise RlnError(f"{path} is a folder; name a file in it.")
    if path.is_dir() and not is_zarr(path) and any(path.iterdir()):
        raise RlnError(f"{path} is a folder that is not a Zarr; name another result.")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise an RlnError unless the folder of a path exists and is writable."""
    if path.parent.is_file():
        raise RlnError(f"{path.parent} is a file, where a folder is needed; name a folder.")
    if not path.parent.is_dir():
        raise RlnError(f"there is no folder {path.parent}; create it first.")
    if not os.access(path.parent, os.W_OK):
        raise RlnError(f"{path.parent} is not writable; name another folder.")


def make_folder(path: Path) -> None:
    """Make a folder for results, unless it exists; raise an RlnError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RlnError(f"the folder {path} cannot be made ({error.strerror}).") from error
    check_folder(path / "any")


def check_apart(output: Path, source: Path) -> None:
    """Raise an RlnError if an output is an input, lies within one, or contains one."""
    target, origin = (Path(os.path.realpath(path)) for path in (output, source))
    same = target == origin or (output.exists() and source.exists() and output.samefile(source))
    # Files added to a Zarr damage it, and a TIFF in a folder of planes becomes one of them.
    inside = any(
        around in target.parents and (is_zarr(around) or is_zarr_name(around))
        for around in (origin, *origin.parents)
    )
    inside |= origin.is_dir() and target.parent == origin and is_tiff_name(target)
    if same or inside or target in origin.parents:
        raise RlnError(
            f"the result {output} would lie on or in the input {source}; name another result."
        )


def check_room(path: Path, needed: int) -> None:
    """Raise an RlnError if the disk has less free space than a result takes, in bytes."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise RlnError(
            f"{path.name} needs {needed / 1e9:.4g} GB but {free / 1e9:.4g} GB are free in "
            f"{path.parent}; free some space, or name another folder."
        )


@contextlib.contextmanager
def atomic(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside a path, renamed to it when the block ends without an error.

    The ending is kept for writers that depend on it. On any error, Ctrl-C included, the temporary
    file is removed and the old file is untouched. Without ``replace`` an RlnError is raised if a
    file exists at the end, such as that of another run.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        if not replace and os.path.lexists(path):
            raise RlnError(
                f"{path} has been written by another run or program in the meantime, and is not "
                "replaced; name another result."
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
