"""The form of a training: PSF, image, preset, settings and structures."""

import contextlib
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.gui import preferences
from napari_rln.gui.copy_button import Run, image_arguments, psf_arguments, second_psf_arguments
from napari_rln.gui.forms import Form
from napari_rln.gui.layers import LayerImage, is_psf, is_raw
from napari_rln.gui.layouts import PAGE_MARGIN, Collapsible, fill
from napari_rln.gui.narrow_box import make_narrow
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.training.choices import ARCHITECTURES, NEW, PRESETS, RIVAL, RIVAL_PAPER, TIPS
from napari_rln.gui.training.expected_time import expected_time
from napari_rln.gui.training.interrupted import IMAGE, PSF, PSF_B, InterruptedTraining
from napari_rln.gui.training.second_psf import SecondPsf, SecondViewForm
from napari_rln.gui.training.training_run import TrainingPlan
from napari_rln.networks.architectures.registry import ArchitectureName, class_of
from napari_rln.networks.library import file_name
from napari_rln.networks.model import SUFFIX, UNIVERSAL, Model
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.training_set import choose_settings
from napari_rln.train.training_settings import Preset, TrainSettings


class TrainingForm(QWidget):
    """The inputs and settings of a training."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._model: Model | None = None  # initial model
        self._unusable: RlnError | None = None  # why the chosen one cannot be used
        self.psf = VolumePicker(viewer, prefer=is_psf, of_psf=True)
        self.image = VolumePicker(viewer, prefer=is_raw, optional="none: default light and noise")
        self.preset = QComboBox(toolTip=TIPS["preset"])
        self.preset.addItems([*PRESETS])
        self.architecture = QComboBox(toolTip=TIPS["network"])
        self.architecture.addItems([*ARCHITECTURES])
        self.explanation, self.time = QLabel(wordWrap=True), QLabel(wordWrap=True)
        self.initial_model = QComboBox(toolTip=TIPS["initial"])
        make_narrow(self.initial_model)
        self.second = SecondViewForm(viewer)
        self.name = QLineEdit(toolTip=TIPS["name"])
        self.training = Form(
            TrainSettings,
            top=("minutes",),
            hidden=("architecture", "variant", "views", "device", "refine", "refine_rate"),
        )
        self.structures = Form(StructureSettings, top=("structures",))
        tip = "<p>From the optics that the file of the image below states. Click to compute it.</p>"
        self.compute_button = QPushButton("Compute the PSF", toolTip=tip)
        self.preview_button = QPushButton("Preview a pair", toolTip=TIPS["pair"])
        self.another_button = QPushButton("Another", toolTip=TIPS["another"])
        self.back_button = QPushButton("Back to my image", toolTip=TIPS["back"])
        self._lay_out()
        self.psf.changed.connect(self._on_psf)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.architecture.currentIndexChanged.connect(self._on_preset)
        self.initial_model.currentIndexChanged.connect(self._on_initial_model)
        self.training.changed.connect(self._show_budget)
        self._on_preset()
        self._on_psf()

    @property
    def chosen_preset(self) -> Preset:
        """The chosen preset."""
        return PRESETS[self.preset.currentText()][0]

    @property
    def chosen_architecture(self) -> ArchitectureName:
        """The chosen architecture."""
        return ARCHITECTURES[self.architecture.currentText()]

    def plan(self) -> TrainingPlan:
        """Return the chosen training; nothing is read yet.

        Raises :class:`RlnError` if an input is missing, or settings contradict each other.
        """
        if self._unusable is not None:
            raise self._unusable
        psf = self._psf()
        return TrainingPlan(
            name=file_name(self.name.text() or self.name.placeholderText()),
            psf=psf,
            image=self._image(),
            second=self._second(psf),
            settings=self.training.settings(device=preferences.device(), views=self.second.views),
            structures=self.structures.settings(),
            initial_model=self._model,
        )

    def resumed_plan(self, training: InterruptedTraining) -> TrainingPlan:
        """Return a training to resume, and choose its layers if the viewer has them.

        The settings of the form remain those of the next new training.
        Raises :class:`RlnError` if no PSF is chosen.
        """
        for key, picker in ((PSF, self.psf), (IMAGE, self.image), (PSF_B, self.second.psf)):
            name = training.inputs.get(key)
            if name is not None and name in self._viewer.layers:
                picker.layer = self._viewer.layers[name]
        if IMAGE not in training.inputs:
            self.image.layer = None
        elif self.image.layer is None:
            raise RlnError(_missing(training, "image", IMAGE))
        if self.psf.layer is None:
            raise RlnError(_missing(training, "PSF", PSF))
        psf, second = self._psf(), None
        if training.dual is not None:
            second = SecondPsf(psf=self.second.psf.source_or(psf), settings=training.dual)
        return TrainingPlan(
            name=training.name,
            psf=psf,
            image=self._image(),
            second=second,
            settings=training.settings,
            structures=training.structures,
            interrupted=training,
        )

    def run(self) -> Run:
        """Return the training as a command or a script; see :meth:`plan` for errors."""
        plan = self.plan()
        arguments: dict[str, Any] = {
            "out": Path(f"{plan.name}{SUFFIX}"),
            **psf_arguments(plan.psf),
            "preset": self.chosen_preset,
            "initial_model": self._initial_model(),
            "settings": plan.settings,
            "structures": plan.structures,
        }
        if plan.image is not None:
            arguments |= image_arguments(plan.image, "like")
        if plan.second is not None:
            views = plan.second.settings
            arguments |= {"rotation": views.rotation, "voxels": views.voxels}
            arguments |= second_psf_arguments(plan.second.psf, arguments)
        return "train", arguments

    def refresh_models(self) -> None:
        """Update the list of initial models, and keep the choice."""
        names = [] if self.chosen_architecture == "rln" else [NEW]
        title = class_of(self.chosen_architecture).title
        if self.chosen_preset == "quick":
            entries = preferences.library().entries()
            names += [e.name for e in entries if not e.error and e.architecture == title]
        names = names or [NEW]
        chosen = self.initial_model.currentText()
        if [self.initial_model.itemText(i) for i in range(self.initial_model.count())] == names:
            return
        self.initial_model.blockSignals(True)
        self.initial_model.clear()
        self.initial_model.addItems(names)
        self.initial_model.setCurrentText(chosen if chosen in names else names[0])
        self.initial_model.blockSignals(False)
        self.initial_model.setEnabled(len(names) > 1)
        if self.initial_model.currentText() != chosen:
            self._on_initial_model()

    def _psf(self) -> LayerImage:
        return self._checked_psf(self.psf.source("the PSF"), "PSF")

    def _image(self) -> LayerImage | None:
        return None if self.image.layer is None else self.image.source("the image")

    def _second(self, psf: LayerImage) -> SecondPsf | None:
        second = self.second.second(psf)
        if second is not None:
            self._checked_psf(second.psf, "second PSF")
        return second

    def _checked_psf(self, source: LayerImage, role: str) -> LayerImage:
        if source.layer is self.image.layer:
            raise RlnError(
                f"{source.name} is chosen as the {role} and as the image; choose another."
            )
        return source

    def _initial_model(self) -> str | None:
        """Return path or name of the initial model; none for the preset's default."""
        name = self.initial_model.currentText()
        if name in (NEW, UNIVERSAL):
            return None
        return str(preferences.library().path(name) or name)

    def _on_preset(self) -> None:
        self._explain()
        self.initial_model.blockSignals(True)
        self.initial_model.clear()
        self.initial_model.blockSignals(False)
        self.refresh_models()

    def _explain(self) -> None:
        explanation = PRESETS[self.preset.currentText()][1]
        if self.chosen_architecture != "rln":
            explanation = RIVAL_PAPER if self.chosen_preset == "paper" else RIVAL
        self.explanation.setText(explanation)

    def _on_initial_model(self) -> None:
        try:
            settings, self._model = choose_settings(
                self.chosen_preset,
                None,
                self._initial_model(),
                architecture=self.chosen_architecture,
            )
        except RlnError as error:  # its file is damaged or missing
            self._unusable = error
            self.explanation.setText(str(error))
            return
        self._unusable = None
        self._explain()
        self.training.show_settings(settings)
        is_fixed = self._model is not None or settings.architecture != "rln"
        self.second.show_views(settings.views if is_fixed else self.second.views, fixed=is_fixed)
        if settings.views != "single":
            self.more.open()  # the second PSF has to be chosen there
        self._show_budget()

    def _show_budget(self) -> None:
        try:
            by_minutes = self.training.value("steps") is None
        except RlnError:  # invalid, and marked so
            by_minutes = False
        self.training.show_only(("minutes",) if by_minutes else ())
        self.show_time()

    def show_time(self) -> None:
        """Show how long the chosen training is expected to take."""
        layer, text = self.psf.layer, ""
        if layer is not None and layer.ndim > 2:
            with contextlib.suppress(RlnError):  # a setting is invalid: said when it is used
                settings = self.training.settings(device=preferences.device())
                z, y, x = layer.data.shape[-3:]
                text = str(expected_time(settings, (z, y, x)))
        self.time.setText(f"{text[:1].upper()}{text[1:]}{'.' if text else ''}")

    def _on_psf(self) -> None:
        layer = self.psf.layer
        self.name.setPlaceholderText(file_name(layer.name) if layer is not None else "model")
        self.show_time()

    def _lay_out(self) -> None:
        more = fill(
            QFormLayout(),
            ("Initial model", self.initial_model),
            QLabel("Other networks (for comparison)"),
            self.architecture,
            ("Views", self.second.box),
            self.second,
        )
        body = QWidget()
        body.setLayout(more)
        more.setContentsMargins(0, 0, 0, 0)
        rows = fill(
            QFormLayout(),
            QLabel("PSF of the model"),
            self.psf,
            self.compute_button,
            QLabel("Image whose light and noise are imitated"),
            self.image,
            ("Training", self.preset),
            self.explanation,
            self.training,
            self.time,
            ("Name", self.name),
        )
        for form in (rows, more):
            form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        buttons = fill(QHBoxLayout(), (self.preview_button, 1), self.another_button)
        box = QGroupBox("Structures in your sample")
        fill(QVBoxLayout(box), self.structures, buttons, self.back_button, margin=PAGE_MARGIN)
        self.more = Collapsible("More", body)
        fill(QVBoxLayout(self), rows, box, self.more, margin=PAGE_MARGIN).addStretch(1)


def _missing(training: InterruptedTraining, role: str, key: str) -> str:
    """Return that a layer of a training to resume is not open."""
    name = training.inputs.get(key, "of a file")
    return (
        f"{training.name} was started with the {role} {name}, which is not open; open it, then "
        "press Resume."
    )
