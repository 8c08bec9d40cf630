"""The choices of a training: PSF, image, preset, settings and structures."""

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
from napari_rln.gui.copy_button import Run, image_of, psf_b_of, psf_of
from napari_rln.gui.forms import Form
from napari_rln.gui.layers import LayerImage, is_psf, is_raw
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.training.interrupted import InterruptedTraining
from napari_rln.gui.training.second_psf import SecondPsf, SecondViewForm
from napari_rln.gui.training.training_run import TrainingPlan
from napari_rln.networks.library import file_name
from napari_rln.networks.model import SUFFIX, UNIVERSAL, Model
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.training_set import choose_settings
from napari_rln.train.training_settings import Preset, TrainSettings

_PRESETS: dict[str, tuple[Preset, str]] = {
    "Quick adaptation": (
        "quick",
        "An existing model is adapted to this PSF, in minutes. The result is never worse on the "
        "held-out volumes than that model.",
    ),
    "Full training": (
        "full",
        "New weights for this PSF only: half an hour or more.",
    ),
    "As in the paper": (
        "paper",
        "The settings of the paper: the network's input is the image, not an initial estimate. "
        "Takes hours; use a GPU.",
    ),
}
_NEW = "new weights"


class TrainingForm(QWidget):
    """The choices of a training.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._model: Model | None = None  # initial model
        self.psf = VolumePicker(viewer, prefer=is_psf)
        self.image = VolumePicker(
            viewer, prefer=is_raw, optional="none: light and noise by default"
        )
        self.preset = QComboBox()
        self.preset.addItems([*_PRESETS])
        self.explanation = QLabel()
        self.explanation.setWordWrap(True)
        self.begin = QComboBox()
        self.second = SecondViewForm(viewer)
        self.name = QLineEdit()
        self.form = Form(
            TrainSettings, top=("minutes", "steps"), hidden=("variant", "views", "device")
        )
        self.structures = Form(StructureSettings, top=("structures",))
        self.preview_button = QPushButton("Preview a pair")
        self.another_button = QPushButton("Another")
        self.another_button.setEnabled(False)
        self._lay_out()
        self.psf.changed.connect(self._show_name)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.begin.currentIndexChanged.connect(self._on_begin)
        self.form.changed.connect(self._show_budget)
        self._on_preset()
        self._show_name()

    @property
    def chosen_preset(self) -> Preset:
        """The chosen preset."""
        return _PRESETS[self.preset.currentText()][0]

    def plan(self) -> TrainingPlan:
        """Return the chosen training, with nothing read yet.

        Raises
        ------
        RlnError
            If something is missing, or settings contradict each other.
        """
        psf = self._psf()
        return TrainingPlan(
            name=file_name(self.name.text() or self.name.placeholderText()),
            psf=psf,
            image=self._image(),
            second=self._second(psf),
            settings=self.form.settings(device=preferences.device(), views=self.second.views),
            structures=self.structures.settings(),
            begin=self._model,
        )

    def resumed_plan(self, training: InterruptedTraining) -> TrainingPlan:
        """Return a training to resume, and choose its layers as far as the viewer has them.

        The settings shown stay those of the next new training.

        Raises
        ------
        RlnError
            If there is no PSF.
        """
        pickers = {
            self.psf: training.psf,
            self.image: training.image,
            self.second.psf: training.psf_b,
        }
        for picker, name in pickers.items():
            if name is not None and name in self._viewer.layers:
                picker.layer = self._viewer.layers[name]
        if training.image is None:
            self.image.layer = None
        psf, second = self._psf(), None
        if training.dual is not None:
            second = SecondPsf(psf=self.second.psf.source_beside(psf), settings=training.dual)
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
        """Return the training as a command or a script.

        Raises
        ------
        RlnError
            As :meth:`plan`.
        """
        plan = self.plan()
        arguments: dict[str, Any] = {
            "out": Path(f"{plan.name}{SUFFIX}"),
            **psf_of(plan.psf),
            "preset": self.chosen_preset,
            "begin": self._begin(),
            "settings": plan.settings,
            "structures": plan.structures,
        }
        if plan.image is not None:
            arguments |= image_of(plan.image, "like")
        if plan.second is not None:
            arguments |= {
                name: getattr(plan.second.settings, name) for name in ("rotation", "voxels")
            }
            arguments |= psf_b_of(plan.second.psf, arguments)
        return "train", arguments

    def refresh_models(self) -> None:
        """Update the list of initial models; the chosen one stays."""
        names = [_NEW]
        if self.chosen_preset == "quick":
            names = [*preferences.library().names()]
        chosen = self.begin.currentText()
        if [self.begin.itemText(i) for i in range(self.begin.count())] == names:
            return
        self.begin.blockSignals(True)
        self.begin.clear()
        self.begin.addItems(names)
        self.begin.setCurrentText(chosen if chosen in names else names[0])
        self.begin.blockSignals(False)
        self.begin.setEnabled(len(names) > 1)
        if self.begin.currentText() != chosen:
            self._on_begin()

    def _psf(self) -> LayerImage:
        source = self.psf.source("the PSF")
        self._check_psf(source, "PSF")
        return source

    def _image(self) -> LayerImage | None:
        return None if self.image.layer is None else self.image.source("the image")

    def _second(self, psf: LayerImage) -> SecondPsf | None:
        second = self.second.second(psf)
        if second is not None:
            self._check_psf(second.psf, "second PSF")
        return second

    def _check_psf(self, source: LayerImage, what: str) -> None:
        if source.layer is self.image.layer:
            raise RlnError(
                f"{source.name} is chosen as the {what} and as the image; choose another."
            )

    def _begin(self) -> str | None:
        """Return path or name of the initial model; none for the preset's own."""
        name = self.begin.currentText()
        if name in (_NEW, UNIVERSAL):
            return None
        return str(preferences.library().path(name) or name)

    def _on_preset(self) -> None:
        self.explanation.setText(_PRESETS[self.preset.currentText()][1])
        self.begin.blockSignals(True)
        self.begin.clear()
        self.begin.blockSignals(False)
        self.refresh_models()

    def _on_begin(self) -> None:
        try:
            settings, self._model = choose_settings(self.chosen_preset, None, self._begin())
        except RlnError as error:  # its file is damaged or gone
            self.explanation.setText(str(error))
            return
        self.form.show_settings(settings)
        if self._model is None:
            self.second.show_views(self.second.views, fixed=False)
        else:
            self.second.show_views(settings.views, fixed=True)
        self._show_budget()

    def _show_budget(self) -> None:
        by_minutes = self.form.fields["steps"].is_word
        self.form.show_only(("minutes", "steps") if by_minutes else ("steps",))

    def _show_name(self) -> None:
        layer = self.psf.layer
        self.name.setPlaceholderText(file_name(layer.name) if layer is not None else "model")

    def _lay_out(self) -> None:
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow(QLabel("PSF that the model is for"))
        rows.addRow(self.psf)
        rows.addRow(QLabel("Image whose voxels, light and noise are imitated"))
        rows.addRow(self.image)
        rows.addRow("Training", self.preset)
        rows.addRow(self.explanation)
        rows.addRow("Begin with", self.begin)
        rows.addRow("Views", self.second.box)
        rows.addRow(self.second)
        rows.addRow("Name", self.name)
        buttons = QHBoxLayout()
        buttons.addWidget(self.preview_button, 1)
        buttons.addWidget(self.another_button)
        box = QGroupBox("Synthetic volumes")
        inside = QVBoxLayout(box)
        inside.addWidget(self.structures)
        inside.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.addLayout(rows)
        layout.addWidget(self.form)
        layout.addWidget(box)
        layout.addStretch(1)
