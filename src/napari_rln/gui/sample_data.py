"""Sample data for napari's File > Open Sample, and the widget that simulates images."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QGroupBox, QLabel, QVBoxLayout, QWidget

from napari_rln import samples
from napari_rln.engine.progress import Progress
from napari_rln.gui.fields import Numbers
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.layers import LayerData, is_psf, layer_data
from napari_rln.gui.layouts import ScrollArea, fill
from napari_rln.gui.number import Number
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.structures import StructureSettings

if TYPE_CHECKING:
    import napari

_SHAPE = (64, 96, 96)
_VOXEL_UM = (0.2, 0.1, 0.1)


def bead() -> list[LayerData]:
    """Return the hollow bead as a layer."""
    return [layer_data(samples.bead(), colormap="magma")]


def bead_psf() -> list[LayerData]:
    """Return the hollow bead's PSF as a layer."""
    return [layer_data(samples.bead_psf(), colormap="magma")]


def nucleus() -> list[LayerData]:
    """Return widefield and confocal images of a nucleus, and the widefield PSF, as layers."""
    return [
        layer_data(samples.nucleus_psf(), colormap="magma", visible=False),
        layer_data(samples.nucleus_confocal(), visible=False),
        layer_data(samples.nucleus()),
    ]


def synthetic() -> list[LayerData]:
    """Return a widefield PSF, synthetic objects and their image; always the same."""
    optics = MicroscopeSettings(na=1.2, immersion_index=1.33, size=(63, 63, 63))
    psf = compute_psf(optics, _VOXEL_UM, name="synthetic PSF")
    structures = StructureSettings(structures=("filaments", "shells", "dots"), at_once=0)
    imaging = ImagingSettings(photons=(300, 300), background=(0.1, 0.1), read_noise=(1, 1))
    pair = simulate_pair(psf, structures, imaging, shape=_SHAPE, seed=3, name="synthetic")
    return [
        layer_data(psf, colormap="magma", visible=False),
        layer_data(pair.truth, visible=False),
        layer_data(pair.image),
    ]


class Simulate(QWidget):
    """Simulation of the image of synthetic objects, with the ground truth."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.psf = VolumePicker(napari_viewer, prefer=is_psf)
        self.structures = Form(StructureSettings, top=("structures", "density"))
        self.imaging = Form(ImagingSettings, top=("photons", "background"))
        self.shape = Numbers(value=_SHAPE, label="Shape (z, y, x)", min=1, max=4096)
        self.seed = Number(annotation=int, label="Seed", min=0)
        self.jobs = JobQueue(self)
        self.bar = RunBar(self.jobs, self.run, label="Simulate")
        objects, light, content = QGroupBox("Objects"), QGroupBox("Light and camera"), QWidget()
        fill(QVBoxLayout(objects), self.structures)
        fill(QVBoxLayout(light), self.imaging)
        numbers = ((number.label, number.native) for number in (self.shape, self.seed))
        rows = fill(QFormLayout(), *numbers)
        parts = (QLabel("PSF"), self.psf, objects, light, rows, self.bar)
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
        self.jobs.add(BackgroundJob(name, steps, key=key, done=self._show))

    def _show(self, pair: Pair) -> None:
        for volume in (pair.truth, pair.image):
            data, options, _ = layer_data(volume)
            self._viewer.add_image(data, **options)
