"""The tab of the page PSF that computes a PSF from microscope settings."""

import dataclasses
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import ref

from napari.layers import Layer
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.core.volume import VoxelUm
from napari_rln.gui.copy_button import CopyButton, Run, image_arguments
from napari_rln.gui.fields import LABEL, VoxelField
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.psf.dye_choice import DyeChoice, excitation_um
from napari_rln.gui.psf.file_optics import FileOptics, file_optics
from napari_rln.gui.psf.template_choice import TemplateChoice
from napari_rln.gui.remembered import layer_key, remember, remembered
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.theme import NOTE, WARNING
from napari_rln.psf.dyes import Dye
from napari_rln.psf.from_optics import CompletedOptics, sources_of
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.optics import as_words
from napari_rln.psf.templates import OPTICS, MicroscopeTemplate

_OPTICS = ("na", "immersion_index", "sample_index", "wavelength_um", "depth_um")
_ROWS = {
    "widefield": _OPTICS,
    "confocal": (*_OPTICS, "excitation_um", "pinhole_au"),
    "two-photon": (*_OPTICS, "excitation_um"),
    "light-sheet": (*_OPTICS, "sheet_fwhm_um"),
    "gaussian": ("fwhm_um",),
}
_SHOWN = {*chain(*_ROWS.values())}
_TOP = ("modality", *(f.name for f in dataclasses.fields(MicroscopeSettings) if f.name in _SHOWN))
# Settings whose defaults are pointed out; the others rarely matter, or are asked for.
_ASKED = ("modality", "na", "immersion_index", "wavelength_um", "pinhole_au", "sheet_fwhm_um")
_STATED = (
    f'<span style="color: {NOTE}">\N{BLACK CIRCLE}</span>',
    "From the file. Type another value if it is wrong.",
)
_ASSUMED = (
    f'<span style="color: {WARNING}">\N{WHITE CIRCLE}</span>',
    "Assumed, as no file states it. Check it.",
)
_AGAIN = f' <a href="fill" style="color: {NOTE}">Use these again</a>'
_PLAIN = as_dict(MicroscopeSettings())
_KEY = "microscope"  # of what is remembered
_WAIT_MS = 500  # from a change until it is remembered, as more may follow


class MicroscopePage(QWidget):
    """Microscope settings, and a button for their PSF on the voxels of the chosen image.

    They are filled in from the file of the image, unless the user changed them for that image.
    """

    created = Signal(object)

    def __init__(self, image: VolumePicker, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._image, self._jobs = image, jobs
        self._layer: ref[Layer] | None = None  # that the form was last filled in for
        self._file: FileOptics | None = None
        # What is shown as a default or from a file: other values are the user's.
        self._shown_by_itself = _PLAIN
        self._is_filling = False
        self.form = Form(MicroscopeSettings, top=_TOP)
        self.templates, self.dyes = TemplateChoice(self._template, bar.attempt), DyeChoice()
        self.voxel = VoxelField("?")
        self.voxel.value = (0.2, 0.1, 0.1)
        self.form.add_row("Microscope", self.templates, before="modality")
        self.form.add_row("Dye", self.dyes, before="wavelength_um")
        self.form.add_row(LABEL, self.voxel)
        self.source = QLabel(wordWrap=True)
        self.button = QPushButton("Compute PSF")
        self.copy = CopyButton(lambda: [self._run()], bar)
        buttons = fill(QHBoxLayout(), (self.button, 1), self.copy)
        fill(QVBoxLayout(self), self.form, self.source, buttons, margin=3)
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._timer.timeout.connect(self._remember)
        self._show_remembered(_KEY)
        self.button.clicked.connect(lambda: bar.attempt(self.compute))
        self.form.changed.connect(self._on_change)
        self.templates.chosen.connect(self._use_template)
        self.dyes.chosen.connect(self._use_dye)
        self.source.linkActivated.connect(lambda: self._use_file())
        image.changed.connect(self._on_image)
        self._on_image()

    def compute(self) -> None:
        """Queue the computation.

        Raises :class:`RlnError` if the settings contradict each other, or the voxel size is
        unknown.
        """
        settings = self.form.settings()
        image, voxel_um = self._grid()
        planes = image.shape[0] if image else None
        name = name_of(settings)
        known = self._completed(settings)
        remember(_KEY, as_dict(settings))
        key = (settings, voxel_um, planes)
        steps = one_step("computing", lambda: known.psf(voxel_um, planes, name))
        self._jobs.add(BackgroundJob(name, steps, key=key, done=self.created.emit))

    def _completed(self, settings: MicroscopeSettings) -> CompletedOptics:
        """Return the microscope of the form, and where its values are from."""
        names, layer = ("modality", *_ROWS[settings.modality]), self._image.layer
        if self._file is None or layer is None or settings.modality == "gaussian":
            shown = {name: getattr(settings, name) for name in names}
            given = {name: value for name, value in shown.items() if value is not None}
            return CompletedOptics(
                settings=settings, channel="", stated={}, given=given, assumed=()
            )
        return sources_of(settings, self._file.optics, names, name=layer.name)

    def _grid(self) -> tuple[LayerImage | None, VoxelUm]:
        """Return the chosen image, or none, and the voxel size."""
        if self._image.layer is None:
            return None, self.voxel.voxel_um("the PSF")
        image = self._image.source("the image")
        return image, image.voxel_um

    def _run(self) -> Run:
        image, voxel_um = self._grid()
        settings = self.form.settings()
        return "psf compute", {
            **(image_arguments(image) if image else {"voxel_um": voxel_um}),
            "out": Path(f"{name_of(settings)}.tif"),
            "settings": settings,
        }

    def _on_image(self) -> None:
        """Fill in the form if another image is chosen."""
        layer = self._image.layer
        if layer is None or self._layer is None or self._layer() is not layer:
            if self._timer.isActive():  # changes for the image before
                self._timer.stop()
                self._remember()
            self._layer = None if layer is None else ref(layer)
            self._file = None if layer is None else file_optics(layer)
            own = layer is not None and self._show_remembered(_key_of(layer))
            if own:
                self._shown_by_itself = {}
            elif self._file is not None:
                self._use_file()
        self._refresh()

    def _use_file(self) -> None:
        """Show what the file states, and ask for what nobody has given."""
        assert self._file is not None
        free = [name for name in self._shown_by_itself if not self._is_given(name)]
        lacking = [name for name in self._file.optics.missing if name in free]
        shown = {name: _PLAIN[name] for name in free} | self._file.settings  # none of another file
        self._fill(shown)
        for name in lacking:
            self.form.fields[name].ask()
        self._shown_by_itself = shown | dict.fromkeys(lacking)
        self._show_dye(self._file.dye)
        self._refresh()

    def _is_given(self, name: str) -> bool:
        """Return whether a value is one of the user, or of a microscope that he chose."""
        by_itself = self._shown_by_itself
        return name not in by_itself or not _same(self._value(name), by_itself[name])

    def _use_template(self, template: MicroscopeTemplate) -> None:
        self.dyes.list_first(template.dyes)
        self._fill(template.optics)
        kept = self._shown_by_itself.keys() - template.optics.keys()
        self._shown_by_itself = {name: self._shown_by_itself[name] for name in kept}
        if template.pixel_um is not None:
            pixel = template.pixel_um
            self.voxel.value = (self.voxel.value[0], pixel, pixel)
        self._on_change()

    def _use_dye(self, dye: Dye) -> None:
        excitation = excitation_um(dye, self.form.value("modality"))
        changed = {"wavelength_um": dye.emission_um}
        if excitation is not None:
            changed["excitation_um"] = excitation
        self._fill(changed)
        self._on_change()

    def _template(self, name: str) -> MicroscopeTemplate:
        """Return the template to save."""
        settings, before, dye = self.form.settings(), self.templates.template, self.dyes.dye
        dyes = before.dyes if before is not None else ()
        dyes += () if dye is None or dye in dyes else (dye,)
        pixel_um = None
        if settings.modality in ("widefield", "light-sheet"):  # others have a zoom
            _, (_, _, pixel_um) = self._grid()
        return MicroscopeTemplate(name=name, microscope=settings, pixel_um=pixel_um, dyes=dyes)

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Show values, which are not remembered as the user's."""
        self._is_filling = True
        try:
            self.form.show_values(values)
        finally:
            self._is_filling = False

    def _on_change(self) -> None:
        """Follow the user's changes."""
        if self._is_filling:
            return
        self._excite()
        self._timer.start()
        self._refresh()

    def _excite(self) -> None:
        """Fill in the dye's excitation where the type of microscope needs another one."""
        modality, now, dye = self._value("modality"), self._value("excitation_um"), self.dyes.dye
        needed = None if dye is None else excitation_um(dye, modality)
        if dye is None or needed is None:
            return
        if now is None or (now > dye.emission_um) == (modality == "confocal"):
            self._fill({"excitation_um": needed})

    def _remember(self) -> None:
        """Remember the settings, for the image and for the next session, if they are valid."""
        try:
            settings = as_dict(self.form.settings())
        except RlnError:
            return
        remember(_KEY, settings)
        layer = None if self._layer is None else self._layer()
        if layer is not None:
            remember(_key_of(layer), settings)

    def _show_remembered(self, key: str) -> bool:
        """Show remembered settings; return whether there are any."""
        value = remembered(key)
        try:
            settings = None if value is None else from_dict(MicroscopeSettings, value)
        except RlnError:  # another version's
            return False
        if settings is None:
            return False
        self._fill({name: getattr(settings, name) for name in self.form.fields})
        return True

    def _refresh(self) -> None:
        """Show the rows of the type of microscope, and where the values are from."""
        shown = {name: self._value(name) for name in self.form.fields}
        modality = self.form.value("modality")
        self.form.show_only(("modality", *_ROWS[modality]))
        self.form.show_row(self.dyes, modality != "gaussian")
        self.form.show_row(self.voxel, self._image.layer is None)
        self.templates.show_optics({name: shown[name] for name in OPTICS})
        self._show_dye(self.dyes.dye)
        file = self._file
        names = [name for name in ("modality", *_ROWS[modality]) if name in _ASKED]
        plain = {name: shown[name] for name in names if not self._is_given(name)}
        stated, assumed = ({}, plain) if file is None else (file.stated, file.assumed)
        marks = {
            name: mark
            for values, mark in ((stated, _STATED), (assumed, _ASSUMED))
            for name, value in values.items()
            if _same(shown[name], value)
        }
        self.form.mark(marks)
        differs = file is not None and len(marks) < len(file.settings)
        text = _defaults_text(as_words(assumed)) if file is None else file.text
        self.source.setText(text + (_AGAIN if differs else ""))
        self.source.setVisible(bool(text))

    def _value(self, name: str) -> Any:
        """Return the value of a field; None if it is invalid."""
        try:
            return self.form.value(name)
        except RlnError:
            return None

    def _show_dye(self, dye: Dye | None) -> None:
        """Show a dye if the emission is that of the dye, else none."""
        emission = self._value("wavelength_um")
        fits = dye is not None and _same(dye.emission_um, emission)
        self.dyes.show_dye(dye if fits else None)


def name_of(settings: MicroscopeSettings) -> str:
    """Return the name of a microscope's PSF."""
    if settings.modality == "gaussian":
        return "PSF gaussian"
    return f"PSF {settings.modality} NA {settings.na:g}"


def _defaults_text(values: str) -> str:
    """Return that settings of the form are defaults; empty if there are none."""
    return f"Assumed, as no file states them: {values}. Check or type them." if values else ""


def _key_of(layer: Layer) -> str:
    return f"{_KEY} of {layer_key(layer)}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
