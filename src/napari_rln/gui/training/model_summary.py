"""Summary of a model: a row of a table, or rich text."""

import html
import math

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTreeWidgetItem

from napari_rln.networks.library import Entry

_UM = "\N{MICRO SIGN}m"
COLUMNS = ("Model", "For PSF", "Against RLD")
# Least gain in dB over the best RLD on the test volumes, and how it is called.
_GAINS = ((1.0, "much better"), (0.2, "better"), (-0.2, "equal"), (-math.inf, "worse"))
_KINDS = {
    "network": "this network",
    "rld": "best RLD",
    "wiener_butterworth": "best Wiener-Butterworth",
    "image": "the image",
}


def describe(entry: Entry) -> str:
    """Return a summary of a model with its validation, as rich text."""
    name = f"<b>{html.escape(entry.name)}</b>"
    if entry.error:
        return f"{name}: {html.escape(entry.error)}"
    use = "for any PSF" if entry.psf_name is None else f"for PSF {html.escape(entry.psf_name)}"
    if entry.voxel_um:
        use += f" on voxels of {_voxel(entry)} {_UM} (z y x)"
    start = "an initial estimate by the PSF" if entry.variant == "started" else "the image"
    if entry.variant != "started" and entry.needs_psf:
        start += " and the PSF"
    made = html.escape(entry.architecture)
    lines = [f"{name} ({made}), {use}, with {start} as input; trained {_date(entry)}."]
    if entry.validation:
        rows = "".join(
            f"<tr><td>{label}</td><td align='right'>{q['psnr_db']:.2f}</td>"
            f"<td align='right'>{q['ssim']:.3f}</td></tr>"
            for kind, label in _KINDS.items()
            if (q := entry.validation.get(kind))
        )
        head = (
            "<tr><td><i>On test volumes</i></td><td align='right'><i>PSNR (dB)</i>"
            "</td><td align='right'><i>SSIM</i></td></tr>"
        )
        lines.append(f"<table cellspacing='0' cellpadding='2' width='100%'>{head}{rows}</table>")
    else:
        lines.append("<br>Not tested; compare its result with RLD on your image.")
    return "".join(lines)


def row(entry: Entry) -> QTreeWidgetItem:
    """Return a model's row of the table."""
    if entry.error:
        cells = [entry.name, "", "damaged file"]
    else:
        cells = [entry.name, entry.psf_name or "any", _gain(entry)]
    item = QTreeWidgetItem(cells)
    item.setData(0, Qt.ItemDataRole.UserRole, entry)
    for column, text in enumerate(cells):
        item.setToolTip(column, text)
    return item


def _voxel(entry: Entry) -> str:
    return " ".join(f"{size:.3g}" for size in entry.voxel_um or ())


def _date(entry: Entry) -> str:
    return entry.time[:10]


def _gain(entry: Entry) -> str:
    """Return the gain of a network over the best RLD in words and dB."""
    validation = entry.validation
    if "network" not in validation or "rld" not in validation:
        return "not tested"
    gain = validation["network"]["psnr_db"] - validation["rld"]["psnr_db"]
    word = next(word for least, word in _GAINS if gain >= least)
    return f"{word}, {gain:+.1f} dB"
