"""A job: what is deconvolved by what, and where the result goes; a document in JSON.

Python builds it, the command line is parsed into it, docks edit it, a batch is a list of it, and
``napari-rln run job.json`` does it.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Json, Method
from napari_rln.deconvolution.views import DualSettings
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.methods import method_as_json, method_from_json
from napari_rln.io.image import ImageFile
from napari_rln.io.paths import atomic, ending, stem
from napari_rln.networks.library import file_name

VERSION = 1
"""Of the document; to be raised where the meaning of a field changes, not where one is added."""

_KEY = "napari-rln job"  # by which a document is known, with its version


@dataclass(frozen=True, kw_only=True)
class PsfFile:
    """A point spread function in a file.

    Parameters
    ----------
    file
        Where it is. Of a file with several channels the image's is taken unless one is named.
    repair
        Repair what is wrong with it (background, centre, ...).
    """

    file: ImageFile
    repair: bool = True


@dataclass(frozen=True, kw_only=True)
class SecondView:
    """A second view of the object, which is brought onto the first and deconvolved with it.

    Parameters
    ----------
    image
        As its camera took it.
    psf
        As its camera would take it; the first view's when none.
    views
        How it is brought onto the first.
    registered
        File for the second view as it was brought onto the first; not written when none.
    """

    image: ImageFile
    psf: PsfFile | None = None
    views: DualSettings = field(default_factory=DualSettings)
    registered: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is deconvolved by what, and where the result goes.

    Parameters
    ----------
    image
        What is deconvolved.
    psfs
        Its point spread function; one for each channel deconvolves them all into one file.
    second
        A second view of the object.
    methods
        One or more.
    output
        Where the result goes; of several methods each has its own, named after it.
    execution
        By what it is computed.

    Raises
    ------
    RlnError
        If there is no method, or one twice.
    """

    image: ImageFile
    psfs: tuple[PsfFile, ...] = ()
    second: SecondView | None = None
    methods: tuple[Method, ...] = field(default_factory=lambda: (RichardsonLucy(),))
    output: Output
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if not self.methods:
            raise RlnError(f"`methods` is empty; name at least one for {self.image.path}.")
        for number, method in enumerate(self.methods):
            if method in self.methods[:number]:
                raise RlnError(f"`methods` has number {number} twice; leave one out.")

    def output_of(self, method: Method) -> Output:
        """Return where the result of one of the methods goes."""
        if len(self.methods) == 1:
            return self.output
        path = self.output.path
        marks: list[str] = []  # of methods that are called alike the later ones have a number
        for each in self.methods[: self.methods.index(method) + 1]:
            name = file_name(each.title).lower().replace(" ", "-")
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            marks.append(next(mark for mark in (name, *numbered) if mark not in marks))
        mark = marks[-1]
        return dataclasses.replace(
            self.output, path=path.with_name(f"{stem(path)}-{mark}{ending(path)}")
        )

    @property
    def files(self) -> list[Path]:
        """Files that it reads."""
        psfs = list(self.psfs)
        images = [self.image]
        if self.second is not None:
            images.append(self.second.image)
            psfs += [self.second.psf] if self.second.psf else []
        return [Path(file.path) for file in (*images, *(psf.file for psf in psfs))]

    def as_json(self) -> Json:
        """Return it in JSON's types.

        Raises
        ------
        RlnError
            If a method uses what lies in no file.
        """
        fields: Json = {
            _KEY: VERSION,
            "image": self.image.as_json(),
            "psfs": [_psf_as_json(psf) for psf in self.psfs],
            "methods": [method_as_json(method) for method in self.methods],
            "output": as_dict(self.output),
            "execution": as_dict(self.execution),
        }
        second = self.second
        if second is not None:
            fields["second"] = {
                "image": second.image.as_json(),
                "psf": second.psf and _psf_as_json(second.psf),
                "views": as_dict(second.views),
                "registered": second.registered and str(second.registered),
            }
        return fields

    @classmethod
    def from_json(cls, fields: Any, folder: Path = Path()) -> Self:
        """Return the job that :meth:`as_json` gave.

        Parameters
        ----------
        fields
            As JSON holds them.
        folder
            From which relative names of files are meant.

        Raises
        ------
        RlnError
            If it is no job, of a later version, or holds what cannot be.
        """
        if not isinstance(fields, dict) or not isinstance(fields.get(_KEY), int):
            raise RlnError(f'this is no job; its JSON must hold "{_KEY}": {VERSION}.')
        if fields[_KEY] > VERSION:
            raise RlnError(
                f"the job is of version {fields[_KEY]} but this program knows {VERSION}; update it."
            )
        known = {"image", "psfs", "methods", "output", "execution", "second"}
        odd = sorted(set(fields) - known - {_KEY})
        if odd:
            raise RlnError(
                f"a job has no {', '.join(odd)}; it may have {', '.join(sorted(known))}."
            )
        try:
            return cls._parsed(fields, folder)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            if isinstance(error, RlnError):
                raise
            raise RlnError(f"the job cannot be read ({error!r}); correct it.") from error

    @classmethod
    def _parsed(cls, fields: Mapping[str, Any], folder: Path) -> Self:
        second = fields.get("second")
        output = dict(fields["output"])
        output["path"] = folder / output["path"]
        methods = fields.get("methods", [{"kind": RichardsonLucy.kind}])
        return cls(
            image=_image_from_json(fields["image"], folder),
            psfs=tuple(_psf_from_json(psf, folder) for psf in fields.get("psfs", ())),
            methods=tuple(method_from_json(method, folder) for method in methods),
            output=from_dict(Output, output),
            execution=from_dict(Execution, fields.get("execution", {})),
            second=None if second is None else SecondView(
                image=_image_from_json(second["image"], folder),
                psf=_psf_from_json(second["psf"], folder) if second.get("psf") else None,
                views=from_dict(DualSettings, second.get("views", {})),
                registered=folder / second["registered"] if second.get("registered") else None,
            ),
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        with atomic(Path(path)) as temporary:
            temporary.write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the job in a file; relative names in it are meant from the file's folder.

        Raises
        ------
        RlnError
            If there is none, or it cannot be read.
        """
        path = Path(path)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RlnError(f"{path} cannot be read as a job ({error}).") from error
        try:
            return cls.from_json(fields, path.parent)
        except RlnError as error:
            raise RlnError(f"{path}: {error}") from error


def _psf_as_json(psf: PsfFile) -> Json:
    return {"file": psf.file.as_json(), "repair": psf.repair}


def _psf_from_json(fields: Mapping[str, Any], folder: Path) -> PsfFile:
    return PsfFile(
        file=_image_from_json(fields["file"], folder), repair=bool(fields.get("repair", True))
    )


def _image_from_json(fields: Mapping[str, Any], folder: Path) -> ImageFile:
    found = ImageFile.from_json(dict(fields))
    return dataclasses.replace(found, path=str(folder / found.path))
