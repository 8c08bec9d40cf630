"""The commands ``napari-rln psf``: compute, measure, info, repair."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageOptions, Out, Overwrite, PsfOptions
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.io.image import Image, files_read, open_image
from napari_rln.io.paths import check_outputs, check_tiff_output, title
from napari_rln.io.volumes import write
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.examine import examine_psf, repair_psf
from napari_rln.psf.findings import HARMFUL
from napari_rln.psf.from_optics import GivenOptics, complete_optics
from napari_rln.psf.measure import MeasureSettings, beads_text, measure_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.optics import Modality, common_optics
from napari_rln.psf.prepare import PrepareSettings, prepare_psf
from napari_rln.psf.shape import fwhm_um


@Flat
@dataclass(frozen=True, kw_only=True)
class ComputeOptions(GivenOptics):
    """Options of the PSF; without the optics those of the image's file, or typical ones.

    Parameters
    ----------
    model
        Diffraction model: vectorial is accurate at any aperture; scalar (Gibson-Lanni) is faster
        and accurate up to about NA 1.
    fwhm_um
        Full widths at half maximum (z y x) of a Gaussian PSF as it appears in the image.
    z_order
        Order of the planes: the first is nearest to the coverslip (from coverslip) or farthest
        from it (to coverslip).
    size
        Number of voxels (z y x), odd; chosen by the energy fraction by default.
    energy_fraction
        Fraction of the energy that an automatic size keeps.
    """

    # A Gaussian has no optics, which is why only this command has it.
    modality: Modality | Literal["gaussian"] | None = None  # type: ignore[assignment]
    model: Literal["vectorial", "scalar"] = "vectorial"
    fwhm_um: VoxelUm = MicroscopeSettings.fwhm_um
    z_order: Literal["from coverslip", "to coverslip"] = "from coverslip"
    size: tuple[int, int, int] | None = None
    energy_fraction: float = MicroscopeSettings.energy_fraction

    @property
    def settings(self) -> MicroscopeSettings:
        """The microscope without a file that states its optics."""
        return MicroscopeSettings(**self.of_channel(0), **self._others)

    @property
    def _others(self) -> dict[str, Any]:
        """What no file states."""
        names = {field.name for field in fields(self)} - {f.name for f in fields(GivenOptics)}
        return {name: getattr(self, name) for name in names}

    def psf(self, image: Image | None, voxel_um: VoxelUm, name: str, terminal: Terminal) -> Volume:
        """Return the PSF of an image, or on a voxel size."""
        planes = image.shape[0] if image else None
        stated = common_optics(image.optics if image else ())
        if image is None or self.modality == "gaussian" or not stated.stated:
            return compute_psf(self.settings, voxel_um, planes=planes, name=name)
        several = ", or choose a `channel`" * (image.channels > 1)
        known = complete_optics(stated, self, name=image.name, otherwise=several)
        terminal.optics(known)
        known = replace(known, settings=replace(known.settings, **self._others))
        return known.psf(voxel_um, planes, name)


ForImage = Annotated[Path | None, Parameter(name="--image")]


def compute(
    *,
    out: Out,
    image: ForImage = None,
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    options: ComputeOptions = ComputeOptions(),
    terminal: Terminal = Terminal(),
) -> None:
    """Compute a PSF from the optics.

    Parameters
    ----------
    out
        PSF file, .tif or .ome.tif.
    image
        Image of the PSF: sets the voxel size and, for a widefield PSF, the depth of the haze. The
        optics that its file states are used where none are given.
    overwrite
        Replace an existing file.
    """
    _check_output(out, [image], overwrite)
    target = open_image(image_options.of(image)) if image else None
    voxel_um = target.voxel_um if target else image_options.voxel_um
    if voxel_um is None:
        raise RlnError(
            "the voxel size is unknown; give it (`voxel_um`), or an image with it (`image`)."
        )
    _finish(options.psf(target, voxel_um, title(out), terminal), out, terminal)


def measure(
    beads: Path,
    *,
    out: Out,
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    settings: Annotated[MeasureSettings, Flat] = MeasureSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Measure a PSF from a stack of sub-resolution beads.

    Parameters
    ----------
    beads
        Stack of beads.
    out
        PSF file, .tif or .ome.tif.
    overwrite
        Replace an existing file.
    """
    _check_output(out, [beads], overwrite)
    psf = measure_psf(image_options.read(beads), settings, name=title(out))
    assert psf.record is not None
    terminal.say(f"{beads.name}: {beads_text(psf.record.facts)}")
    _finish(psf, out, terminal)


def info(
    psf: Path,
    *,
    image: ForImage = None,
    na: float | None = None,
    wavelength_um: float | None = None,
    immersion_index: float | None = None,
    psf_options: PsfOptions = PsfOptions(),
    image_options: ImageOptions = ImageOptions(),
    terminal: Terminal = Terminal(),
) -> None:
    """Examine a PSF: its size, its defects and how to repair them.

    Parameters
    ----------
    psf
        PSF file.
    image
        Image of the PSF; adds a comparison of voxel size and size.
    na
        Numerical aperture; with wavelength and index, adds the sampling against Nyquist.
    wavelength_um
        Emission wavelength, vacuum.
    immersion_index
        Refractive index of the immersion medium.
    """
    volume = _options_of_psf(psf_options, image_options, image).read(psf, image_options.channel)
    report = examine_psf(
        volume,
        image=image_options.read(image) if image else None,
        na=na,
        wavelength_um=wavelength_um,
        immersion_index=immersion_index,
    )
    terminal.table(volume.name, ("", ""), report.rows())
    terminal.findings(report.findings)
    fault = report.facts.fault
    if any(finding.repair for finding in report.findings) and (fault is None or fault.split):
        on_grid = f" --image {image}" if image else ""
        terminal.say(f"To repair: napari-rln psf repair {psf}{on_grid} -o NAME.tif")
    terminal.report(report.to_dict())


def repair(
    psf: Path,
    *,
    out: Out,
    image: ForImage = None,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    overwrite: Overwrite = False,
    psf_options: PsfOptions = PsfOptions(),
    image_options: ImageOptions = ImageOptions(),
    settings: Annotated[PrepareSettings, Flat] = PrepareSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Repair the defects of a PSF and write it ready for use.

    Parameters
    ----------
    psf
        PSF file.
    out
        Repaired PSF, .tif or .ome.tif.
    image
        Image of the PSF, to whose voxels the PSF is resampled.
    everything
        Apply every step, not only those that the findings require; also implied by any of the
        settings below that differs from its default.
    overwrite
        Replace an existing file.
    """
    _check_output(out, [psf, image], overwrite)
    volume = _options_of_psf(psf_options, image_options, image).read(psf, image_options.channel)
    target = image_options.read(image) if image else None
    voxel_um = target.voxel_um if target else None
    if everything or settings != PrepareSettings():
        repaired = prepare_psf(volume, settings, image_voxel_um=voxel_um)
    else:
        report = examine_psf(volume, image=target)
        terminal.findings(report.findings, repaired=(*HARMFUL, "note"))
        repaired = repair_psf(volume, report, image_voxel_um=voxel_um)
    _finish(repaired, out, terminal)


def _options_of_psf(psf: PsfOptions, image: ImageOptions, file: Path | None) -> PsfOptions:
    """Return the options of the PSF: without an image, those of the image apply to the PSF."""
    if file is not None:
        return psf
    return replace(
        psf,
        psf_voxel_um=psf.psf_voxel_um or image.voxel_um,
        psf_time=image.time if psf.psf_time is None else psf.psf_time,
        psf_series=image.series if psf.psf_series is None else psf.psf_series,
        psf_planes_are=psf.psf_planes_are or image.planes_are,
    )


def _check_output(out: Path, inputs: list[Path | None], overwrite: bool) -> None:
    """Raise unless a PSF can be written."""
    check_tiff_output(out)
    check_outputs([out], inputs=files_read(inputs), overwrite=overwrite)


def _finish(psf: Volume, out: Path, terminal: Terminal) -> None:
    """Write a PSF and print its properties."""
    write(psf, out)
    widths = fwhm_um(psf.data, psf.voxel_um)
    facts = psf.record.facts if psf.record else {}
    terminal.say(
        f"{out}: {' x '.join(map(str, psf.shape))} voxels of "
        f"{' x '.join(number(v) for v in psf.voxel_um)} um, FWHM "
        f"{' x '.join(number(float(w)) for w in widths)} um (z y x)"
    )
    terminal.report({"out": str(out), "fwhm_um": list(widths), "facts": facts})
