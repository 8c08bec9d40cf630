"""Optics from words and numbers that files state: immersions, objectives, lasers, modes."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from napari_rln.psf.dyes import dye_named
from napari_rln.psf.optics import Modality, Optics

_INDEX_OF = {
    "oil": 1.515, "o": 1.515, "water": 1.33, "w": 1.33, "glycerol": 1.47, "glycerin": 1.47,
    "glyc": 1.47, "gly": 1.47, "silicone": 1.41, "sil": 1.41, "air": 1.0, "dry": 1.0,
}  # fmt: skip
_STEMS = ("oil", "water", "glyc", "silic", "air", "dry")  # of "WaterDipping", "OilImmersion"
_MODALITY_OF: dict[str, Modality] = {
    "widefield": "widefield",
    "laserscanningconfocalmicroscopy": "confocal",
    "laserscanningconfocal": "confocal",
    "multiphotonmicroscopy": "two-photon",
    "multiphoton": "two-photon",
    "twophoton": "two-photon",
    "spim": "light-sheet",
    "lightsheet": "light-sheet",
}
_SPINNING_DISK = "spinningdiskconfocal"
_LIMITS = {
    "na": (0.05, 1.7),
    "immersion_index": (1.0, 1.8),
    "sample_index": (1.0, 1.8),
    "wavelength_um": (0.2, 2.0),
    "excitation_um": (0.2, 2.0),
    "pinhole_au": (0.01, 20.0),
}
_INFRARED_UM = 0.68  # shortest laser of two-photon microscopes
_WIDEST_BAND_UM = 0.2  # beyond which the middle of a detector's band says little


def number(value: object) -> float | None:
    """Return a finite number; None for other text, such as a number with a decimal comma."""
    try:
        parsed = float(str(value))
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def optics_of(**stated: Any) -> Optics:
    """Return the optics of a channel, without values that no microscope has.

    Programs write 0 or 9999 for what they do not know, and 1 for the index of an oil. Parameters
    are the fields of :class:`Optics`, as numbers, text or None.
    """
    fields: dict[str, Any] = {}
    pinhole = number(stated.get("pinhole_au"))
    if pinhole is not None:  # wide open, it lets all light through
        stated["pinhole_au"] = min(pinhole, _LIMITS["pinhole_au"][1])
    for name, value in stated.items():
        if name not in _LIMITS:
            fields[name] = " ".join(str(value).split()) if isinstance(value, str) else value
            continue
        low, high = _LIMITS[name]
        parsed = number(value)
        if parsed is not None and low <= parsed <= high:
            fields[name] = round(parsed, 6)
    named = objective_named(fields.get("objective") or "")
    fields = named | {name: value for name, value in fields.items() if value is not None}
    if fields.get("immersion_index", math.inf) <= fields.get("na", 0.0):
        del fields["immersion_index"]
    return Optics(**fields)


def immersion_index(word: object) -> float | None:
    """Return the refractive index of an immersion such as "Oil" or "WaterDipping"; None else."""
    plain = re.sub(r"[^a-z]", "", str(word).casefold())
    if plain in _INDEX_OF:
        return _INDEX_OF[plain]
    stem = next((stem for stem in _STEMS if plain.startswith(stem)), None)
    return next((n for name, n in _INDEX_OF.items() if stem and name.startswith(stem)), None)


def stated_index(index: object, immersion: object) -> float | None:
    """Return the index of an immersion, as a number if it is one of a liquid; else by its name."""
    parsed, named = number(index), immersion_index(immersion)
    return parsed if parsed is not None and (parsed > 1.0 or named is None) else named


def um_of_nm(wavelength: object) -> float | None:
    """Return a wavelength in nanometres, or text of it, in micrometres."""
    parsed = number(wavelength)
    return None if parsed is None else parsed / 1000


def objective_named(name: str) -> dict[str, Any]:
    """Return aperture and immersion index that the name of an objective states.

    For instance of "Plan-Apochromat 63x/1.4 Oil DIC", "HC PL APO CS2 40x/1.10 WATER" or "PLAPON
    60X O NA:1.42".
    """
    found: dict[str, Any] = {}
    aperture = re.search(r"(?:\d\s*x\s*/\s*|NA\s*[:=]?\s*)([01][.,]\d+)", name, re.IGNORECASE)
    if aperture:
        found["na"] = float(aperture[1].replace(",", "."))
    _, _, behind = re.sub(r"\d\s*x", "|", name, count=1, flags=re.IGNORECASE).partition("|")
    words = re.findall(r"[A-Za-z]+", behind)  # "W" before the magnification may be anything
    index = next((n for word in words if (n := immersion_index(word)) is not None), None)
    if index is not None:
        found["immersion_index"] = index
    return found


def modality_of(mode: object, pinhole_au: object = None) -> Modality | None:
    """Return the type of microscope of OME's acquisition mode; None of unknown ones.

    A spinning disk is confocal if its pinhole is known, which it has to be for a PSF.
    """
    plain = re.sub(r"[^a-z]", "", str(mode).casefold())
    if plain == _SPINNING_DISK and number(pinhole_au):
        return "confocal"
    return _MODALITY_OF.get(plain)


def middle_of_band(low: object, high: object) -> float | None:
    """Return the middle of a detector's band in nm, in micrometres; None of a wide or no band."""
    first, last = number(low), number(high)
    if first is None or last is None or not 0 < (last - first) / 1000 <= _WIDEST_BAND_UM:
        return None
    return (first + last) / 2000


def scanned_with(emission_um: float | None, lasers_um: Iterable[float]) -> dict[str, Any]:
    """Return excitation and type of microscope of a channel of a laser scanner.

    The laser is the longest below the emission, or the only one of a two-photon microscope.
    """
    lasers = sorted(set(lasers_um))
    below = [laser for laser in lasers if laser < (emission_um or _INFRARED_UM)]
    infrared = [laser for laser in lasers if laser >= _INFRARED_UM]
    if below and (emission_um is not None or len(below) == 1):
        return {"excitation_um": below[-1], "modality": "confocal"}
    if not below and len(infrared) == 1:
        return {"excitation_um": infrared[0], "modality": "two-photon"}
    return {"modality": "confocal"}


def channel_name(*names: object) -> str:
    """Return the first name that states a dye; else the first one."""
    texts = [" ".join(str(name).split()) for name in names if name]
    dyes = (text for text in texts if dye_named(text) is not None)
    return next(dyes, texts[0] if texts else "")


def per_channel(optics: Sequence[Optics], channels: int) -> tuple[Optics, ...]:
    """Return the optics if there are as many as channels, and something is known; else none."""
    known = any(one != Optics() for one in optics)
    return tuple(optics) if known and len(optics) == channels else ()
