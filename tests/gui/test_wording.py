"""Words of the whole window: labels, tooltips that say what to do, and pages of help that exist."""

import re
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QGroupBox, QLabel, QListWidget, QWidget
from test_forms import KINDS

from napari_rln.gui.deferred import Deferred
from napari_rln.gui.forms import Form
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.layouts import Collapsible

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("PSF", "Deconvolve", "Compare", "Train")
DOCKS = ("Lateral and axial views", "Simulate")
WIDEST = 330  # pixels of a page, so that the image keeps its room

ABBREVIATIONS = {
    "au", "bn", "db", "dtype", "eps", "gb", "lr", "max", "min", "num", "tv", "um", "wb",
}  # fmt: skip
OF_MICROSCOPES = {"two-photon", "light-sheet"}  # hyphens of the field, not of a setting
VERBS = {
    "add", "browse", "change", "choose", "click", "compare", "compute", "correct", "deconvolve",
    "drag", "fill", "give", "go", "hold", "keep", "leave", "look", "lower", "measure", "open",
    "press",    "raise", "read", "share", "start", "switch", "tick", "type", "untick", "widen",
}  # fmt: skip


def says_what_to_do(tip):
    """Tell whether the last sentence of a tooltip, or a clause of it, is an instruction."""
    text = re.sub("<[^>]+>", "", tip).strip()
    *_, last = re.split(r"(?<=[.:]) ", text)
    starts = [clause.split(" ")[0].lower() for clause in re.split("[;:,] ", last.rstrip("."))]
    return text.endswith(".") and not VERBS.isdisjoint(starts)


def is_plain(text):
    """Tell whether a label is in words instead of names of the code."""
    words = re.findall(r"[^\W_]+", re.sub(r"\([^)]*\)", "", text).lower())
    return "_" not in text and ABBREVIATIONS.isdisjoint(words)


def entries(box):
    """Return the entries of a combo box or list."""
    if isinstance(box, QComboBox):
        return [box.itemText(i) for i in range(box.count())]
    return [box.item(i).text() for i in range(box.count())] if isinstance(box, QListWidget) else []


def everything(open_dock):
    """Return all pages, windows and docks by name, with every form made and every part open."""
    shown = {name: open_dock(name)[1] for name in (*PAGES, *DOCKS)}
    page = shown["Deconvolve"]
    for key in ("wb", "wiener"):
        page.methods.add(key)
    for row in page.methods.rows:
        row.gear.setChecked(True)
    shown |= {"Batch": page.windows.batch, "Study": page.windows.study}
    for part in shown.values():
        for deferred in unmade(part):
            deferred.made()
        for collapsed in part.findChildren(Collapsible):
            collapsed.open()
    return shown


def unmade(part):
    """Yield the parts that are not made yet, also within those that were made meanwhile."""
    while waiting := [each for each in part.findChildren(Deferred) if not each.is_made]:
        yield from waiting


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_forms_have_labels_words_and_advice(qtbot, kind):
    form = Form(kind, top=())
    qtbot.addWidget(form)
    for name, field in form.fields.items():
        label = field.label
        assert re.match("[A-Z].{1,31}$", label), label
        assert is_plain(label), label
        assert not re.search(r"\b[a-w]$", label), label  # as in "Background b"
        assert says_what_to_do(field.tooltip), (name, field.tooltip)
        for text in entries(field.native):
            assert is_plain(text), text
            assert not re.search(r"[a-z]\d\d$", text), text  # as in "float32"
            assert text in OF_MICROSCOPES or not re.search("^[a-z]+-[a-z]", text), text


def test_every_tooltip_of_the_window_says_what_to_do(open_dock):
    silent = {
        (name, widget.toolTip())
        for name, part in everything(open_dock).items()
        for widget in part.findChildren(QWidget)
        if widget.toolTip() and not says_what_to_do(widget.toolTip())
    }
    assert not silent, "\n".join(map(str, sorted(silent)))


def test_texts_are_plain_and_pages_narrow(open_dock, viewer):
    shown = everything(open_dock)
    for name, part in shown.items():
        for widget in part.findChildren((QLabel, QAbstractButton, QGroupBox)):
            text = widget.title() if isinstance(widget, QGroupBox) else widget.text()
            assert is_plain(re.sub("<[^>]+>", " ", text)), (name, text)
            assert "the dock" not in text, (name, text)
    # With long voxel sizes of an image and of its PSF.
    for kind in ("image", "psf"):
        data, scale = np.ones((4, 8, 8), np.float32), (0.4994, 0.5119, 0.5119)
        viewer.add_image(data, name=kind, scale=scale, units=("um",) * 3)
    widths = {name: shown[name].minimumSizeHint().width() for name in (*PAGES, *DOCKS)}
    assert {name: width for name, width in widths.items() if width > WIDEST} == {}


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not there")
def test_help_opens_pages_and_headings_that_exist(open_dock):
    for name, part in everything(open_dock).items():
        buttons = part.findChildren(HelpButton)
        own = [button for button in buttons if button.window() is part.window()]
        assert len(own) == 1, name
        page, _, anchor = own[0].url.rsplit("/", 1)[1].partition(".html")
        headings = re.findall("^#+ (.*)$", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
        assert anchor.removeprefix("#") in {"", *map(anchor_of, headings)}, (name, own[0].url)


def anchor_of(heading):
    """Return the anchor that Sphinx makes of a heading."""
    return re.sub("[^a-z0-9]+", "-", heading.lower()).strip("-").lstrip("0123456789-")
