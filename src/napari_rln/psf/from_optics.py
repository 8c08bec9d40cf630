"""PSFs from the optics that an image's file states, completed by the user and by assumptions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.optics import MISSING, Modality, Optics, as_words

_PER_CHANNEL = ("wavelength_um", "excitation_um")


@dataclass(frozen=True, kw_only=True)
class GivenOptics:
    """Optics that the user states, where the image's file lacks them or is wrong.

    Parameters
    ----------
    modality
        Type of microscope, of a PSF computed from the image's optics.
    na
        Numerical aperture of the objective.
    immersion_index
        Refractive index of the immersion medium (oil 1.515, glycerol 1.47, water 1.33, air 1).
    sample_index
        Refractive index of the sample or mounting medium.
    wavelength_um
        Emission wavelength in vacuum; one, or one per channel.
    excitation_um
        Excitation wavelength in vacuum; one, or one per channel.
    depth_um
        Depth of the structure below the coverslip; relevant where the indices differ.
    pinhole_au
        Confocal pinhole diameter in Airy units.
    sheet_fwhm_um
        Thickness of the light sheet, full width at half maximum.
    """

    modality: Modality | None = None
    na: float | None = None
    immersion_index: float | None = None
    sample_index: float | None = None
    wavelength_um: tuple[float, ...] = ()
    excitation_um: tuple[float, ...] = ()
    depth_um: float | None = None
    pinhole_au: float | None = None
    sheet_fwhm_um: float | None = None

    def of_channel(self, channel: int) -> dict[str, Any]:
        """Return what is given for a channel, as settings of :class:`MicroscopeSettings`.

        Raises :class:`RlnError` if there are several wavelengths, but none for the channel.
        """
        found = {}
        for field in fields(GivenOptics):
            value = getattr(self, field.name)
            if field.name in _PER_CHANNEL and value:
                if 1 < len(value) <= channel:
                    raise RlnError(
                        f"`{field.name}` has {len(value)} values but there is a channel {channel}; "
                        "give one, or one per channel."
                    )
                found[field.name] = value[channel if len(value) > 1 else 0]
            elif value not in (None, ()):
                found[field.name] = value
        return found

    def as_json(self) -> dict[str, Any]:
        """Return what is given, in JSON's types."""
        return {name: value for name, value in as_dict(self).items() if value not in (None, [])}


@dataclass(frozen=True, kw_only=True)
class CompletedOptics:
    """The microscope of one channel, and where each of its values is from.

    Attributes
    ----------
    settings
        The microscope.
    channel
        Name of the channel, or of the objective; may be empty.
    stated, given
        Values that the file states, and that the user gave instead or in addition.
    assumed
        A sentence for everything else.
    """

    settings: MicroscopeSettings
    channel: str
    stated: dict[str, Any]
    given: dict[str, Any]
    assumed: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """Return a line for each source of values."""
        shown = (("stated by the file", self.stated), ("given", self.given))
        named = [f"{source}: {as_words(values)}" for source, values in shown if values]
        return (*named, *(f"assumed: {sentence}" for sentence in self.assumed))

    def psf(self, voxel_um: VoxelUm, planes: int | None, name: str = "computed PSF") -> Volume:
        """Return the PSF, whose record tells the sources of its values; of a plane for a plane.

        Parameters and errors are those of :func:`compute_psf`.
        """
        psf = compute_psf(self.settings, voxel_um, planes=planes, name=name)
        if planes == 1 and self.settings.size is None:
            _, height, width = psf.shape
            in_focus = replace(self.settings, size=(1, height, width))
            psf = compute_psf(in_focus, voxel_um, name=name)
        assert psf.record is not None
        sources = {"stated": self.stated, "given": self.given, "assumed": list(self.assumed)}
        if self.channel:
            sources["channel"] = self.channel
        facts = psf.record.facts | {"optics": sources}
        return replace(psf, record=replace(psf.record, facts=facts))


def complete_optics(
    stated: Optics,
    given: GivenOptics,
    *,
    channel: int = 0,
    name: str = "the file",
    otherwise: str = ", or the file of a PSF (`psf`)",
) -> CompletedOptics:
    """Return the microscope of a channel by its file, the user and assumptions.

    Parameters
    ----------
    stated
        Optics as the file states them.
    given
        Optics that the user states instead or in addition.
    channel
        Number of the channel, from 0.
    name
        Name of the file in messages.
    otherwise
        What else the user can do if too little is known, as the end of a sentence.

    Raises
    ------
    RlnError
        If too little is known for a PSF, or the values contradict each other.
    """
    own = given.of_channel(channel)
    extra = {field: own[field] for field in ("depth_um", "sheet_fwhm_um") if field in own}
    whole = replace(stated, **{field: own[field] for field in own if field not in extra})
    if not whole.is_known:
        lacking = " and ".join(f"{MISSING[field]} (`{field}`)" for field in whole.missing)
        where = f"{name}, channel {channel}" + f" ({stated.channel})" * bool(stated.channel)
        raise RlnError(
            f"{where}: the PSF cannot be computed without the {lacking}, which the file does not "
            f"state; give it{otherwise}."
        )
    settings, assumed = whole.microscope(extra.pop("sheet_fwhm_um", None))
    return CompletedOptics(
        settings=replace(settings, **extra),
        channel=stated.channel,
        stated={field: value for field, value in stated.stated.items() if field not in own},
        given=own,
        assumed=assumed,
    )


def sources_of(
    settings: MicroscopeSettings, stated: Optics, names: Collection[str], *, name: str = "the file"
) -> CompletedOptics:
    """Return a whole microscope with where its values are from: the file, assumptions or the user.

    Parameters
    ----------
    settings
        The microscope.
    stated
        Optics as the file states them.
    names
        Settings that have a meaning for this type of microscope.
    name
        Name of the file in messages.

    Raises
    ------
    RlnError
        If the values contradict each other.
    """
    values = {each: getattr(settings, each) for each in names}
    of_file = stated.stated
    given = {each: value for each, value in values.items() if value != of_file.get(each, value)}
    lacking = replace(stated, **given).missing
    given |= {each: values[each] for each in lacking}
    likely = _complete(stated, given, name).settings
    given |= {each: value for each, value in values.items() if value != getattr(likely, each)}
    return replace(_complete(stated, given, name), settings=settings)


def _complete(stated: Optics, given: Mapping[str, Any], name: str) -> CompletedOptics:
    several: dict[str, Any] = {
        each: (value,) if each in _PER_CHANNEL else value for each, value in given.items()
    }
    return complete_optics(stated, GivenOptics(**several), name=name)
