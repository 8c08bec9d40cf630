"""Templates of microscopes: the optics without a channel, shipped ones and those of the user.

A template of the user is a JSON file in a folder, named as the template, so that files may be
copied to other computers.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from platformdirs import user_config_path

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.io.paths import atomic, check_name
from napari_rln.psf.dyes import Dye
from napari_rln.psf.microscope import MicroscopeSettings

OPTICS = (
    "modality", "model", "na", "immersion_index", "sample_index", "pinhole_au", "sheet_fwhm_um",
    "fwhm_um", "z_order", "energy_fraction",
)  # fmt: skip
"""Names of the settings of a template: neither of the channel nor of one image."""

_EXCITATION_UM = {"confocal": 0.4, "two-photon": 0.9}  # which these settings require
_SUFFIX = ".json"


def default_folder() -> Path:
    """Return the folder of the user's templates, which may not exist yet."""
    return user_config_path("napari-rln", appauthor=False) / "microscopes"


@dataclass(frozen=True, kw_only=True)
class MicroscopeTemplate:
    """A microscope without a channel.

    Parameters
    ----------
    name
        Its name.
    microscope
        Its settings; wavelengths, depth and size have no meaning.
    pixel_um
        Pixel size of its camera on the sample in micrometres; none if not known or not fixed.
    dyes
        Dyes that are used on it.
    """

    name: str
    microscope: MicroscopeSettings
    pixel_um: float | None = None
    dyes: tuple[Dye, ...] = ()

    @property
    def optics(self) -> dict[str, Any]:
        """The settings that belong to the microscope, by name."""
        return {name: getattr(self.microscope, name) for name in OPTICS}

    def as_json(self) -> dict[str, Any]:
        """Return all but the name, in JSON's types, without the settings' defaults."""
        shown, plain = as_dict(self.microscope), as_dict(MicroscopeSettings())
        return {
            "microscope": {name: shown[name] for name in OPTICS if shown[name] != plain[name]},
            "pixel_um": self.pixel_um,
            "dyes": [as_dict(dye) for dye in self.dyes],
        }

    @classmethod
    def from_json(cls, name: str, fields: dict[str, Any]) -> Self:
        """Return a template from the fields of :meth:`as_json`.

        Raises :class:`RlnError` if a setting is unknown or invalid, and other exceptions if the
        fields are of another type.
        """
        settings, pixel_um = dict(fields["microscope"]), fields.get("pixel_um")
        settings["excitation_um"] = _EXCITATION_UM.get(settings.get("modality", ""))
        dyes = tuple(from_dict(Dye, dye) for dye in fields.get("dyes", ()))
        sizes = [length for dye in dyes for length in (dye.excitation_um, dye.emission_um)]
        if not all(0.2 <= size <= 2.0 for size in sizes):
            raise RlnError(f"wavelengths are {sizes} um; give 0.2 to 2")
        if pixel_um is not None and not 0 < float(pixel_um) <= 100:
            raise RlnError(f"the pixel size is {pixel_um} um; give up to 100")
        return cls(
            name=name,
            microscope=from_dict(MicroscopeSettings, settings),
            pixel_um=None if pixel_um is None else float(pixel_um),
            dyes=dyes,
        )


def _shipped(name: str, **settings: Any) -> MicroscopeTemplate:
    excitation_um = _EXCITATION_UM.get(settings["modality"])
    microscope = MicroscopeSettings(excitation_um=excitation_um, **settings)
    return MicroscopeTemplate(name=name, microscope=microscope)


SHIPPED = (
    _shipped("20x/0.8 air widefield", modality="widefield", na=0.8, immersion_index=1.0),
    _shipped("40x/1.2 water confocal", modality="confocal", na=1.2, immersion_index=1.33),
    _shipped("60x/1.2 water widefield", modality="widefield", na=1.2, immersion_index=1.33),
    _shipped("63x/1.4 oil widefield", modality="widefield", na=1.4, immersion_index=1.515),
    _shipped("63x/1.4 oil confocal", modality="confocal", na=1.4, immersion_index=1.515),
    _shipped("100x/1.45 oil widefield", modality="widefield", na=1.45, immersion_index=1.515),
    _shipped("25x/1.05 water two-photon", modality="two-photon", na=1.05, immersion_index=1.33),
    _shipped("20x/1.0 water light-sheet", modality="light-sheet", na=1.0, immersion_index=1.33),
)
"""Common microscopes."""


@dataclass(frozen=True)
class Templates:
    """The shipped templates and those in a folder, which the first save creates.

    Methods raise an RlnError for a name that is unknown or not permitted and for a damaged file,
    which is left as it is, and an OSError if writing fails.
    """

    folder: Path = field(default_factory=lambda: default_folder())

    def names(self) -> tuple[str, ...]:
        """Return the names of the user's templates, damaged ones too, and of the shipped ones."""
        return (*self._files(), *(template.name for template in SHIPPED))

    def is_own(self, name: str) -> bool:
        """Return whether a template is one of the user."""
        return name in self._files()

    def load(self, name: str) -> MicroscopeTemplate:
        """Return a template by its name."""
        path = self._files().get(name)
        if path is None:
            known = {template.name: template for template in SHIPPED}
            if name not in known:
                raise RlnError(f"there is no microscope {name}; give {', '.join(self.names())}.")
            return known[name]
        try:
            return MicroscopeTemplate.from_json(name, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise RlnError(
                f"the microscope {name} cannot be read ({reason}); correct or delete the file "
                f"{path}."
            ) from error

    def save(self, template: MicroscopeTemplate, *, replace: bool = False) -> Path:
        """Write a template into the folder and return its file.

        One of the same name is only replaced with ``replace``, and if it is not damaged.
        """
        name = template.name
        check_name(name, "a microscope")
        same = [own for own in self._files() if own.casefold() == name.casefold()]
        if same and not replace:
            raise RlnError(f"there is a microscope {same[0]} already; choose another name.")
        for own in same:
            self.load(own)  # raises if damaged
        path = self._files()[same[0]] if same else self.folder / f"{name}{_SUFFIX}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            text = json.dumps(template.as_json(), indent=2, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")
        return path

    def delete(self, name: str) -> None:
        """Delete the file of a template of the user, damaged or not."""
        path = self._files().get(name)
        if path is None:
            raise RlnError(f"{name} is no microscope of yours; only those can be deleted.")
        path.unlink()

    def _files(self) -> dict[str, Path]:
        # Names that begin with a dot are of files being written.
        files = (path for path in self.folder.glob(f"*{_SUFFIX}") if path.is_file())
        return {path.stem: path for path in sorted(files) if not path.name.startswith(".")}
