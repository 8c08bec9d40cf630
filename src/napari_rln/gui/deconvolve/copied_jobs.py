"""Runs of the page as jobs that read files, to copy as commands or Python."""

from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import Job, PsfFile, SecondView
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, Inputs, StatedPsf
from napari_rln.gui.deconvolve.result_destination import ResultDestination
from napari_rln.gui.deconvolve.second_view import ViewLayers
from napari_rln.gui.layer_jobs import image_file, psf_file
from napari_rln.psf.from_optics import GivenOptics


def jobs_of(
    inputs: Inputs,
    views: ViewLayers | None,
    methods: list[ChosenMethod],
    destination: ResultDestination,
    *,
    on_disk: bool,
) -> list[Job]:
    """Return a job for every method.

    Raises :class:`RlnError` if a file cannot provide the input.
    """
    image, psf, repair = inputs.image, inputs.psf, inputs.repair
    if image.box is not None and views is None:
        raise RlnError("a region is chosen but a job reads whole files; choose the whole image.")
    file, second = image_file(image), None
    psfs: tuple[PsfFile, ...] = ()
    optics = None
    if isinstance(psf, StatedPsf):
        optics = GivenOptics()
    elif psf is not None:
        psfs = (psf_file(psf, repair=repair),)
    if views is not None:
        other = image_file(views.second)
        if file.time != other.time:
            raise RlnError("a job reads one time point of both views; choose the same in both.")
        second = SecondView(
            image=other, psf=psf_file(views.psf_second, repair=repair), views=views.settings
        )
    dual = "" if second is None else "dual "

    def output(chosen: ChosenMethod) -> Output:
        if on_disk:
            return destination.output(image, chosen.name)
        return Output(path=Path(f"{image.name} {dual}{chosen.name}.ome.tif"))

    return [
        Job(
            image=file,
            psfs=psfs,
            optics=optics,
            second=second,
            methods=(chosen.method,),
            output=output(chosen),
            execution=destination.execution.settings() if on_disk else Execution(),
        )
        for chosen in methods
    ]
