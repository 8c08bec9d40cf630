"""The form of a training: PSF, image, preset, settings and structures."""

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
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.training.interrupted import IMAGE, PSF, PSF_B, InterruptedTraining
from napari_rln.gui.training.second_psf import SecondPsf, SecondViewForm
from napari_rln.gui.training.training_run import TrainingPlan
from napari_rln.networks.architectures.registry import ArchitectureName, class_of
from napari_rln.networks.library import file_name
from napari_rln.networks.model import SUFFIX, UNIVERSAL, Model
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.training_set import choose_settings
from napari_rln.train.training_settings import Preset, TrainSettings

_PRESETS: dict[str, tuple[Preset, str]] = {
    "Quick adaptation": (
        "quick",
        "Adapts an existing model to this PSF within minutes. On the held-out volumes, the result "
        "is never worse than that model.",
    ),
    "Full training": ("full", "Trains new weights for this PSF only: half an hour or more."),
    "As in the paper": (
        "paper",
        "Settings of the paper: the network's input is the image, not an initial estimate. Takes "
        "hours; use a GPU.",
    ),
}
_NEW = "new weights"
_ARCHITECTURES: dict[str, ArchitectureName] = {
    "RLN": "rln",
    "CARE": "care",
    "3D-RCAN": "rcan",
    "DenseDeconNet": "ddn",
    "ISTA-Net+": "ista",
    "ISTA-Net+, large": "ista-large",
    "ADMM-Net": "admm",
    "Kernel learning (KLD)": "kld",
}
_RIVAL = (
    "For comparison with RLN: new weights, which start from the image, with the same volumes and "
    "in the same time."
)
_RIVAL_PAPER = (
    "For comparison with RLN: settings of the network's authors, as far as published. Takes hours; "
    "use a GPU."
)


class TrainingForm(QWidget):
    """The inputs and settings of a training."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._model: Model | None = None  # initial model
        self._unusable: RlnError | None = None  # why the chosen one cannot be used
        self.psf = VolumePicker(viewer, prefer=is_psf)
        self.image = VolumePicker(viewer, prefer=is_raw, optional="none: default light and noise")
        self.preset = QComboBox()
        self.preset.addItems([*_PRESETS])
        self.architecture = QComboBox()
        self.architecture.addItems([*_ARCHITECTURES])
        self.explanation = QLabel(wordWrap=True)
        self.initial_model = QComboBox()
        self.second = SecondViewForm(viewer)
        self.name = QLineEdit()
        self.training = Form(
            TrainSettings,
            top=("minutes", "steps"),
            hidden=("architecture", "variant", "views", "device", "refine", "refine_rate"),
        )
        self.structures = Form(StructureSettings, top=("structures",))
        self.preview_button = QPushButton("Preview a pair")
        self.another_button = QPushButton("Another", enabled=False)
        self._lay_out()
        self.psf.changed.connect(self._show_name)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.architecture.currentIndexChanged.connect(self._on_preset)
        self.initial_model.currentIndexChanged.connect(self._on_initial_model)
        self.training.changed.connect(self._show_budget)
        self._on_preset()
        self._show_name()

    @property
    def chosen_preset(self) -> Preset:
        """The chosen preset."""
        return _PRESETS[self.preset.currentText()][0]

    @property
    def chosen_architecture(self) -> ArchitectureName:
        """The chosen architecture."""
        return _ARCHITECTURES[self.architecture.currentText()]

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
        names = [] if self.chosen_architecture == "rln" else [_NEW]
        title = class_of(self.chosen_architecture).title
        if self.chosen_preset == "quick":
            entries = preferences.library().entries()
            names += [e.name for e in entries if not e.error and e.architecture == title]
        names = names or [_NEW]
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
        if name in (_NEW, UNIVERSAL):
            return None
        return str(preferences.library().path(name) or name)

    def _on_preset(self) -> None:
        self._explain()
        self.initial_model.blockSignals(True)
        self.initial_model.clear()
        self.initial_model.blockSignals(False)
        self.refresh_models()

    def _explain(self) -> None:
        explanation = _PRESETS[self.preset.currentText()][1]
        if self.chosen_architecture != "rln":
            explanation = _RIVAL_PAPER if self.chosen_preset == "paper" else _RIVAL
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
        self._show_budget()

    def _show_budget(self) -> None:
        by_minutes = self.training.fields["steps"].is_keyword
        self.training.show_only(("minutes", "steps") if by_minutes else ("steps",))

    def _show_name(self) -> None:
        layer = self.psf.layer
        self.name.setPlaceholderText(file_name(layer.name) if layer is not None else "model")

    def _lay_out(self) -> None:
        rows = fill(
            QFormLayout(),
            QLabel("PSF of the model"),
            self.psf,
            QLabel("Image whose voxels, light and noise are simulated"),
            self.image,
            ("Architecture", self.architecture),
            ("Training", self.preset),
            self.explanation,
            ("Initial model", self.initial_model),
            ("Views", self.second.box),
            self.second,
            ("Name", self.name),
        )
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        buttons = fill(QHBoxLayout(), (self.preview_button, 1), self.another_button)
        box = QGroupBox("Synthetic volumes")
        fill(QVBoxLayout(box), self.structures, buttons)
        fill(QVBoxLayout(self), rows, self.training, box).addStretch(1)
