"""The library of models: shipped ones, and those in the user's folder.

A model in the folder has the name of its file, not of its card, so that names are unique and
files may be added and removed by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.io.paths import FORBIDDEN, LONGEST_NAME, check_name
from napari_rln.networks.architectures.registry import class_of
from napari_rln.networks.model import (
    SUFFIX,
    UNIVERSAL,
    Model,
    load_model,
    read_card,
    shipped_models,
    validation_of,
)
from napari_rln.networks.rln import RLN


def default_folder() -> Path:
    """Return the folder of the user's models, which may not exist yet."""
    return user_data_path("napari-rln", appauthor=False) / "models"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Description of a model in the library, without its weights.

    Attributes
    ----------
    name
        Name to load it by.
    path
        Its file; none for a shipped model.
    error
        Reason why it cannot be loaded, one sentence; empty if its card is valid. With an error, the
        other fields are unknown.
    time
        Time of training, UTC, ISO 8601.
    architecture, needs_psf
        Name of its architecture, and whether the PSF is a part of it or it starts
        from a classical deconvolution.
    variant
        ``"started"``, from a classical deconvolution; or ``"paper"``, from the image.
    psf_name
        Name of its PSF; none for a family of PSFs.
    voxel_um
        Its voxel size (z, y, x) in micrometres; none for any.
    validation
        Quality on held-out volumes, ``"psnr_db"`` and ``"ssim"``, of ``"network"`` and of the
        methods it was compared with; empty if not validated.
    """

    name: str
    path: Path | None = None
    error: str = ""
    time: str = ""
    architecture: str = RLN.title
    needs_psf: bool = True
    variant: Literal["started", "paper"] | None = None
    psf_name: str | None = None
    voxel_um: VoxelUm | None = None
    validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """The shipped models and those in a folder, which is created by the first save.

    Methods raise an RlnError for a model that does not exist or is damaged and for a name that is
    not permitted, and an OSError if writing fails; no file is left then.
    """

    folder: Path = field(default_factory=default_folder)

    def entries(self) -> tuple[Entry, ...]:
        """Return all models: shipped ones, the universal one first, then the user's, newest first.

        Damaged files come last.
        """
        shipped = sorted(shipped_models(), key=lambda name: (name != UNIVERSAL, name))
        own = [_entry(path.name.removesuffix(SUFFIX), path) for path in self._files()]
        own.sort(key=lambda entry: entry.time, reverse=True)
        return (*(_entry(name, None) for name in shipped), *own)

    def names(self) -> tuple[str, ...]:
        """Return the names of the models that can be loaded, in the order of :meth:`entries`."""
        return tuple(entry.name for entry in self.entries() if not entry.error)

    def path(self, name: str) -> Path | None:
        """Return the file of a model; none for a shipped one."""
        if name in shipped_models():
            return None
        file = {path.name: path for path in self._files()}.get(f"{name}{SUFFIX}")
        if file is None:
            raise RlnError(
                f"there is no model called {name} in {self.folder}; give "
                f"{', '.join(self.names())}, or add its file."
            )
        return file

    def load(self, name: str) -> Model:
        """Return a model by its name."""
        path = self.path(name)
        return load_model(name) if path is None else replace(Model.load(path), name=name)

    def save(self, model: Model) -> Path:
        """Write a model into the folder and return its file.

        The file has the model's name, without characters that file names cannot have, and with a
        number if the name is taken: no model is overwritten.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self._free_name(model.name)
        path = self.folder / f"{name}{SUFFIX}"
        replace(model, name=name).save(path)
        return path

    def add(self, path: str | Path) -> Path:
        """Copy a model's file into the folder and return the copy, of the same name."""
        model = Model.load(path)
        return self.save(replace(model, name=Path(path).name.removesuffix(SUFFIX)))

    def rename(self, old: str, new: str) -> Path:
        """Rename a model of the user and return its file; on an error the old one is left."""
        before = self._own(old, "renamed")
        check_name(new, "a model")
        if new.casefold() in self._taken():
            raise RlnError(f"there is a model called {new} already; choose another name.")
        after = self.folder / f"{new}{SUFFIX}"
        replace(self.load(old), name=new).save(after)
        before.unlink()
        return after

    def delete(self, name: str) -> None:
        """Delete the file of a model of the user, damaged or not."""
        self._own(name, "deleted").unlink()

    def _files(self) -> list[Path]:
        # Names that begin with a dot are of files being written.
        files = self.folder.glob(f"*{SUFFIX}")
        return sorted(p for p in files if p.is_file() and not p.name.startswith("."))

    def _own(self, name: str, what: str) -> Path:
        path = self.path(name)
        if path is None:
            raise RlnError(
                f"model {name} comes with napari-rln and cannot be {what}; export it for a copy "
                "of your own."
            )
        return path

    def _taken(self) -> set[str]:
        """Return the names in use, casefolded: some file systems ignore case."""
        own = (path.name.removesuffix(SUFFIX) for path in self._files())
        return {name.casefold() for name in (*shipped_models(), *own)}

    def _free_name(self, name: str) -> str:
        name = file_name(name)
        free, number, taken = name, 1, self._taken()
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        return free


def file_name(name: str) -> str:
    """Return a valid name of a model's file, with room for a number."""
    return FORBIDDEN.sub("-", name)[: LONGEST_NAME - 5].strip(". ") or "model"


def _entry(name: str, path: Path | None) -> Entry:
    """Return the entry of a shipped model or of a file; with the error if damaged."""
    try:
        if path is not None and name in shipped_models():
            raise RlnError(
                f"{path.name} has the name of a model of napari-rln itself; rename the file."
            )
        card = read_card(path or name)
        psf, record = card["psf"], card["record"]
        architecture = class_of(card.get("architecture", RLN.kind))
        return Entry(
            name=name,
            path=path,
            time=str(record["time"]),
            architecture=architecture.title,
            needs_psf=architecture.needs_psf or card["variant"] == "started",
            variant=card["variant"],
            psf_name=psf and psf["name"],
            voxel_um=psf and tuple(psf["voxel_um"]),
            validation=validation_of(record["facts"]),
        )
    except RlnError as error:
        reason = str(error)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"the description in {path and path.name} is damaged ({error})."
    return Entry(name=name, path=path, error=reason)
