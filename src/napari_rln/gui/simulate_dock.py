"""The dock that simulates images of known structures with a PSF."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QGroupBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.engine.progress import Progress
from napari_rln.gui.fields import Numbers
from napari_rln.gui.forms import Form
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.layers import is_psf, layer_data
from napari_rln.gui.layouts import ScrollArea, fill
from napari_rln.gui.number import Number
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.examine import fit_psf
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.structures import StructureSettings

if TYPE_CHECKING:
    import napari

_SHAPE = (64, 96, 96)
_TIPS = {
    "size": "<p>Size of the image z, y, x. Give more planes than the PSF has.</p>",
    "seed": "<p>Equal seeds give equal images. Change it for another example.</p>",
}


class Simulate(QWidget):
    """Simulation of the image of synthetic objects, with the ground truth."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, of_psf=True)
        self.structures = Form(StructureSettings, top=("structures", "density"))
        self.imaging = Form(ImagingSettings, top=("photons", "background"))
        self.shape = Numbers(
            value=_SHAPE, label="Size (voxels)", min=1, max=4096, tooltip=_TIPS["size"]
        )
        self.seed = Number(annotation=int, label="Random seed", min=0, tooltip=_TIPS["seed"])
        self.jobs = JobQueue(self)
        self.bar = RunBar(self.jobs, self.run, label="Simulate")
        objects, light, content = QGroupBox("Structures"), QGroupBox("Light and camera"), QWidget()
        fill(QVBoxLayout(objects), self.structures)
        fill(QVBoxLayout(light), self.imaging)
        rows = fill(QFormLayout())
        for number in (self.shape, self.seed):
            rows.addRow(QLabel(number.label, toolTip=number.tooltip), number.native)
        help_button = HelpButton("rln", "synthetic-data-napari-rln-simulate")
        top = fill(QHBoxLayout(), (QLabel("PSF"), 1), help_button)
        parts = (top, self.psf, objects, light, rows, self.bar)
        fill(QVBoxLayout(content), *parts).addStretch(1)
        fill(QVBoxLayout(self), ScrollArea(content), margin=0)

    def run(self) -> None:
        """Queue a simulation.

        Raises :class:`RlnError` if no PSF is chosen or a setting is not valid.
        """
        psf = self.psf.source("the PSF")
        structures, imaging = self.structures.settings(), self.imaging.settings()
        (z, y, x), seed = self.shape.value, int(self.seed.value)
        shape = z, y, x
        name = f"simulated {seed}"

        def steps() -> Steps[Pair]:
            yield Update(Progress(activity="preparing the PSF"))
            ready, _ = fit_psf(psf.read())
            yield Update(Progress(activity="simulating"))
            pair = simulate_pair(ready, structures, imaging, shape=shape, seed=seed, name=name)
            yield None  # so that it may be cancelled
            return pair

        key = (id(psf.layer), structures, imaging, shape, seed)
        note = "The image and the truth are new layers."
        self.jobs.add(
            BackgroundJob(name, steps, key=key, done=self._show, end_note=note, is_named=True)
        )

    def _show(self, pair: Pair) -> None:
        for volume in (pair.truth, pair.image):
            data, options, _ = layer_data(volume)
            self._viewer.add_image(data, **options)
