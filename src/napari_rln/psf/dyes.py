"""Wavelengths of common fluorescent dyes and proteins, by the names that files give to channels.

Peaks of excitation and emission as published by their makers and in FPbase (Lambert, Nature Methods
2019), rounded to the nanometre; a filter may pass another part of the spectrum.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Dye:
    """A dye with the peaks of its spectra, in micrometres in vacuum."""

    name: str
    excitation_um: float
    emission_um: float


_PEAKS_NM = {
    "DAPI": (358, 461), "Hoechst 33342": (350, 461), "Hoechst 33258": (352, 461),
    "Alexa Fluor 350": (346, 442), "Alexa Fluor 405": (401, 421),
    "CFP": (434, 477), "Cerulean": (433, 475), "mTurquoise2": (434, 474), "BFP": (383, 448),
    "GFP": (488, 507), "EGFP": (488, 507), "mEGFP": (488, 507), "sfGFP": (485, 510),
    "mNeonGreen": (506, 517), "FITC": (495, 519), "Fluorescein": (495, 519), "Cy2": (489, 506),
    "Alexa Fluor 488": (495, 519), "ATTO 488": (500, 520), "SYTOX Green": (504, 523),
    "YFP": (514, 527), "EYFP": (514, 527), "Venus": (515, 528), "mVenus": (515, 528),
    "mCitrine": (516, 529), "Alexa Fluor 514": (517, 542),
    "Alexa Fluor 532": (531, 554), "Alexa Fluor 546": (556, 573), "Alexa Fluor 555": (555, 565),
    "TRITC": (547, 572), "Rhodamine": (553, 627), "Cy3": (550, 570), "tdTomato": (554, 581),
    "DsRed": (556, 583), "mOrange2": (549, 565), "TagRFP": (555, 584), "JF549": (549, 571),
    "Alexa Fluor 568": (578, 603), "Alexa Fluor 594": (590, 617), "Texas Red": (595, 615),
    "mCherry": (587, 610), "mScarlet": (569, 594), "RFP": (556, 583), "mKate2": (588, 633),
    "SiR": (652, 674), "Cy5": (649, 670), "Alexa Fluor 633": (632, 647),
    "Alexa Fluor 647": (650, 665), "ATTO 647N": (646, 664), "JF646": (646, 664),
    "Alexa Fluor 660": (663, 690), "Alexa Fluor 680": (679, 702), "Cy5.5": (675, 695),
    "Cy7": (743, 767), "Alexa Fluor 750": (749, 775), "iRFP670": (643, 670),
}  # fmt: skip

DYES = tuple(Dye(name, ex / 1000, em / 1000) for name, (ex, em) in _PEAKS_NM.items())
"""Common dyes, from blue to far red."""

_OTHER_NAMES = {"af": "alexafluor", "alexa": "alexafluor", "hoechst": "hoechst33342"}


def dye_named(text: str) -> Dye | None:
    """Return the dye that a channel's name states, such as "AF488" or "EGFP-T2"; else None.

    Names are compared without case, spaces and hyphens; of several that fit the longest is taken.
    """
    plain = _plain(text)
    short = re.fullmatch(r"(af|alexa)(\d{3})(?!\d).*", plain)
    if short:
        plain = f"alexafluor{short[2]}"
    elif plain in _OTHER_NAMES:
        plain = _OTHER_NAMES[plain]
    fitting = [dye for dye in DYES if plain.startswith(_plain(dye.name))]
    return max(fitting, key=lambda dye: len(dye.name), default=None)


def _plain(text: str) -> str:
    return re.sub(r"[\s\-_.]", "", text).casefold()
