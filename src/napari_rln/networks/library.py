"""The models that a user has: those that come with the package, and those in a folder.

A model in the folder is called as its file is, whatever its card says, so that names are unique
and files may be put there and taken away by hand.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.networks.model import (
    SUFFIX,
    UNIVERSAL,
    Model,
    load_model,
    read_card,
    shipped_models,
    validation_of,
)

_LONGEST = 50  # characters of a name: file systems end at 255 bytes, and some take four
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f]')  # in file names, on one system or another


def default_folder() -> Path:
    """Return the folder of the user's models; it need not exist."""
    return user_data_path("napari-rln", appauthor=False) / "models"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to know about a model before it is loaded.

    Attributes
    ----------
    name
        What it is loaded by.
    path
        Its file; none for one that comes with the package.
    error
        Why it cannot be loaded, a sentence; empty where it can, as far as its card tells. With an
        error, nothing below is known.
    time
        When it was made, UTC, ISO 8601.
    variant
        ``"started"`` begins with a classical deconvolution and needs a PSF, ``"paper"`` with the
        image.
    psf_name
        Of the PSF that it is for; none for a family of PSFs.
    voxel_um
        Voxel size (z, y, x) in micrometres that it is for; none for any.
    validation
        Quality on held-out volumes, ``"psnr_db"`` and ``"ssim"``, of ``"network"`` and of what it
        was held against; empty where it was not examined.
    """

    name: str
    path: Path | None = None
    error: str = ""
    time: str = ""
    variant: Literal["started", "paper"] | None = None
    psf_name: str | None = None
    voxel_um: VoxelUm | None = None
    validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """The shipped models and those in a folder, which is made when the first is saved.

    Parameters
    ----------
    folder
        The user's own when none is given.
    """

    folder: Path = field(default_factory=default_folder)

    def entries(self) -> tuple[Entry, ...]:
        """Return what is there: shipped ones first, then the user's, the newest first.

        Of the shipped ones the universal is first; damaged files come last.
        """
        shipped = sorted(shipped_models(), key=lambda name: (name != UNIVERSAL, name))
        own = [_entry(path.name.removesuffix(SUFFIX), path) for path in self._files()]
        own.sort(key=lambda entry: entry.time, reverse=True)
        return (*(_entry(name, None) for name in shipped), *own)

    def names(self) -> tuple[str, ...]:
        """Return the names of the models that can be loaded, in the order of :meth:`entries`."""
        return tuple(entry.name for entry in self.entries() if not entry.error)

    def path(self, name: str) -> Path | None:
        """Return a model's file; none for one that comes with the package.

        Raises
        ------
        RlnError
            If there is no model of that name.
        """
        if name in shipped_models():
            return None
        found = {path.name: path for path in self._files()}.get(f"{name}{SUFFIX}")
        if found is None:
            raise RlnError(
                f"there is no model called {name} in {self.folder}; give "
                f"{', '.join(self.names())}, or add its file."
            )
        return found

    def load(self, name: str) -> Model:
        """Return a model, called by that name.

        Raises
        ------
        RlnError
            If there is none, or its file is damaged.
        """
        path = self.path(name)
        return load_model(name) if path is None else replace(Model.load(path), name=name)

    def save(self, model: Model) -> Path:
        """Write a model into the folder and return its file.

        It is called by the model's name as far as a file can be; where that is taken, with a
        number: what was trained for minutes is not lost for a name, and none is overwritten.

        Raises
        ------
        OSError
            If the system fails on the way; then nothing is left.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self._free_name(model.name)
        path = self.folder / f"{name}{SUFFIX}"
        replace(model, name=name).save(path)
        return path

    def add(self, path: str | Path) -> Path:
        """Copy a model's file into the folder and return the copy; it is called as the file is.

        Raises
        ------
        RlnError
            If it is no model.
        OSError
            If the system fails on the way; then nothing is left.
        """
        model = Model.load(path)
        return self.save(replace(model, name=Path(path).name.removesuffix(SUFFIX)))

    def export(self, name: str, path: str | Path) -> None:
        """Write a model, a shipped one too, to a file elsewhere; one that is there is replaced.

        Raises
        ------
        RlnError
            If there is no such model, or the file cannot be written there.
        OSError
            If the system fails on the way; then nothing is left.
        """
        self.load(name).save(path)

    def rename(self, old: str, new: str) -> Path:
        """Give a model of the user's another name and return its file.

        Raises
        ------
        RlnError
            If it comes with the package, or the new name is taken or no name for a file.
        OSError
            If the system fails on the way; then the old one is still there.
        """
        before = self._own(old, "renamed")
        _check_name(new)
        if new.casefold() in self._taken():
            raise RlnError(f"there is a model called {new} already; give another name.")
        after = self.folder / f"{new}{SUFFIX}"
        replace(self.load(old), name=new).save(after)
        before.unlink()
        return after

    def delete(self, name: str) -> None:
        """Delete the file of a model of the user's, damaged or not.

        Raises
        ------
        RlnError
            If it comes with the package, or there is none.
        """
        self._own(name, "deleted").unlink()

    def _files(self) -> list[Path]:
        # What begins with a dot is being written.
        found = self.folder.glob(f"*{SUFFIX}")
        return sorted(p for p in found if p.is_file() and not p.name.startswith("."))

    def _own(self, name: str, what: str) -> Path:
        path = self.path(name)
        if path is None:
            raise RlnError(
                f"model {name} comes with napari-rln and cannot be {what}; export it to have a "
                "file of your own."
            )
        return path

    def _taken(self) -> set[str]:
        """Return the names in use; some file systems do not tell capitals from small letters."""
        own = (path.name.removesuffix(SUFFIX) for path in self._files())
        return {name.casefold() for name in (*shipped_models(), *own)}

    def _free_name(self, wanted: str) -> str:
        name = file_name(wanted)
        free, number, taken = name, 1, self._taken()
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        return free


def file_name(name: str) -> str:
    """Return a name as a model's file can be called, with room for a number."""
    return _FORBIDDEN.sub("-", name)[: _LONGEST - 5].strip(". ") or "model"


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _LONGEST or name != name.strip(". ") or _FORBIDDEN.search(name):
        raise RlnError(
            f"a model cannot be called {name!r}; give 1 to {_LONGEST} characters, none of "
            '/ \\ : * ? " < > |, with no dot or blank at either end.'
        )


def _entry(name: str, path: Path | None) -> Entry:
    """Return the entry of a shipped model or of a file, of a damaged one with the error."""
    try:
        if path is not None and name in shipped_models():
            raise RlnError(
                f"{path.name} is called as a model that comes with napari-rln; rename the file."
            )
        card = read_card(path or name)
        psf, record = card["psf"], card["record"]
        return Entry(
            name=name,
            path=path,
            time=str(record["time"]),
            variant=card["variant"],
            psf_name=psf and psf["name"],
            voxel_um=psf and tuple(psf["voxel_um"]),
            validation=validation_of(record["facts"]),
        )
    except RlnError as error:
        said = str(error)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"the description in {path and path.name} is damaged ({error})."
    return Entry(name=name, path=path, error=said)
