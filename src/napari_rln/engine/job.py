"""A job: image, PSFs, methods, output and execution; a JSON document.

Python builds it, the command line is parsed into it, docks edit it, a batch is a list of jobs, and
``napari-rln run job.json`` runs it.
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
from napari_rln.io.paths import atomic, ending, relative_to_folder, stem
from napari_rln.networks.library import file_name
from napari_rln.psf.from_optics import GivenOptics

VERSION = 1
"""Version of the document, raised when the meaning of a field changes, not when one is added."""

_KEY = "napari-rln job"  # identifies a document, with its version


@dataclass(frozen=True, kw_only=True)
class PsfFile:
    """A point spread function in a file.

    Parameters
    ----------
    file
        PSF file. Of a file with several channels the image's is taken unless one is named.
    repair
        Repair defects of the PSF (background, centre, ...).
    """

    file: ImageFile
    repair: bool = True


@dataclass(frozen=True, kw_only=True)
class SecondView:
    """A second view of the object, registered onto the first and deconvolved with it.

    Parameters
    ----------
    image
        Second view in its camera's orientation.
    psf
        Its PSF in its camera's orientation; the first view's if None.
    views
        Settings of the registration.
    registered
        File for the registered second view; not written if None.
    """

    image: ImageFile
    psf: PsfFile | None = None
    views: DualSettings = field(default_factory=DualSettings)
    registered: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Image, PSFs, methods, output and execution of a deconvolution.

    Parameters
    ----------
    image
        Image file.
    psfs
        Point spread function; one per channel deconvolves all channels into one file.
    optics
        Without PSFs, those of all channels are computed from the optics that the image's file
        states and this adds or corrects, if a method needs them; not if None.
    second
        A second view of the object.
    methods
        One or more.
    output
        Result; each of several methods has its own, named after the method.
    execution
        Memory, tiles and workers.

    Raises
    ------
    RlnError
        If there is no method, or one occurs twice.
    """

    image: ImageFile
    psfs: tuple[PsfFile, ...] = ()
    optics: GivenOptics | None = None
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

    @property
    def computes_psfs(self) -> bool:
        """Whether PSFs are computed from the optics of the image; raises if a model is absent."""
        if self.psfs or self.optics is None or self.second is not None:
            return False
        return self.optics != GivenOptics() or any(method.needs_psf for method in self.methods)

    def output_of(self, method: Method) -> Output:
        """Return the output of one of the methods."""
        if len(self.methods) == 1:
            return self.output
        path = self.output.path
        marks: list[str] = []  # methods of one name are numbered from the second on
        for each in self.methods[: self.methods.index(method) + 1]:
            name = file_name(each.title).lower().replace(" ", "-")
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            possible = itertools.chain([name], numbered)
            marks.append(next(mark for mark in possible if mark not in marks))
        mark = marks[-1]
        return dataclasses.replace(
            self.output, path=path.with_name(f"{stem(path)}-{mark}{ending(path)}")
        )

    @property
    def files(self) -> list[Path]:
        """Input files."""
        psfs = list(self.psfs)
        images = [self.image]
        if self.second is not None:
            images.append(self.second.image)
            psfs += [self.second.psf] if self.second.psf else []
        return [Path(file.path) for file in (*images, *(psf.file for psf in psfs))]

    def as_json(self, folder: Path | None = None) -> Json:
        """Return the job in JSON's types.

        Parameters
        ----------
        folder
            Folder from which relative file names are resolved; the current one if None.

        Raises
        ------
        RlnError
            If a method uses data that are not in a file.
        """

        def place(path: str | Path) -> str:
            return str(path) if folder is None else relative_to_folder(path, folder)

        def image_as_json(file: ImageFile) -> Json:
            return file.as_json() | {"path": place(file.path)}

        def psf_as_json(psf: PsfFile) -> Json:
            return {"file": image_as_json(psf.file), "repair": psf.repair}

        fields: Json = {
            _KEY: VERSION,
            "image": image_as_json(self.image),
            "psfs": [psf_as_json(psf) for psf in self.psfs],
            "methods": [method_as_json(method, folder) for method in self.methods],
            "output": as_dict(self.output) | {"path": place(self.output.path)},
            "execution": as_dict(self.execution),
        }
        if self.optics is not None:
            fields["optics"] = self.optics.as_json()
        second = self.second
        if second is not None:
            fields["second"] = {
                "image": image_as_json(second.image),
                "psf": second.psf and psf_as_json(second.psf),
                "views": as_dict(second.views),
                "registered": second.registered and place(second.registered),
            }
        return fields

    @classmethod
    def from_json(cls, fields: Any, folder: Path = Path()) -> Self:
        """Return the job that :meth:`as_json` gave.

        Parameters
        ----------
        fields
            Fields of the JSON object.
        folder
            Base folder of relative file names.

        Raises
        ------
        RlnError
            If the document is not a job, of a later version, or has invalid values.
        """
        if not isinstance(fields, dict) or not isinstance(fields.get(_KEY), int):
            raise RlnError(
                f'this is not a job: its JSON must contain "{_KEY}": {VERSION}; correct it.'
            )
        if fields[_KEY] > VERSION:
            raise RlnError(
                f"the job has version {fields[_KEY]} but this program reads up to {VERSION}; "
                "update the program."
            )
        known = {"image", "psfs", "optics", "methods", "output", "execution", "second"}
        unknown = sorted(set(fields) - known - {_KEY})
        if unknown:
            raise RlnError(
                f"a job has no {', '.join(unknown)}; it may have {', '.join(sorted(known))}."
            )
        try:
            return cls._parsed(fields, folder)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            if isinstance(error, RlnError):
                raise
            raise RlnError(f"the job cannot be read ({error!r}); correct it.") from error

    @classmethod
    def _parsed(cls, fields: Mapping[str, Any], folder: Path) -> Self:
        second, optics = fields.get("second"), fields.get("optics")
        output = dict(fields["output"])
        output["path"] = folder / output["path"]
        methods = fields.get("methods", [{"kind": RichardsonLucy.kind}])
        return cls(
            image=_image_from_json(fields["image"], folder),
            psfs=tuple(_psf_from_json(psf, folder) for psf in fields.get("psfs", ())),
            optics=None if optics is None else from_dict(GivenOptics, optics),
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
        """Write the job as JSON, atomically; relative file names become those from its folder."""
        with atomic(Path(path)) as temporary:
            temporary.write_text(
                json.dumps(self.as_json(Path(path).parent), indent=2) + "\n", encoding="utf-8"
            )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the job in a file; relative names are resolved from the file's folder.

        Raises
        ------
        RlnError
            If the file is absent or cannot be read.
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


def _psf_from_json(fields: Mapping[str, Any], folder: Path) -> PsfFile:
    return PsfFile(
        file=_image_from_json(fields["file"], folder), repair=bool(fields.get("repair", True))
    )


def _image_from_json(fields: Mapping[str, Any], folder: Path) -> ImageFile:
    file = ImageFile.from_json(dict(fields))
    return dataclasses.replace(file, path=str(folder / file.path))
