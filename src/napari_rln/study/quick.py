"""A study of a few choices, for the PSF at hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import write
from napari_rln.networks.architectures.registry import ArchitectureName
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.structures import Structure

# The rest of a study is imported where it is used: napari opens the dock faster.
if TYPE_CHECKING:
    from napari_rln.study.config import StudySettings

_CLASSICAL: tuple[dict[str, Any], ...] = (
    {"name": "RLD, automatic stop", "kind": "rld", "stop": "auto"},
    {"name": "RLD, best stop", "kind": "rld", "stop": "best"},
    {"name": "RLD 100", "kind": "rld", "stop": 100},
    {"name": "RLD 100, not accelerated", "kind": "rld", "acceleration": "none", "stop": 100},
    {
        "name": "WB, best stop", "kind": "rld", "back_projector": "wiener-butterworth",
        "stop": "best",
    },
)  # fmt: skip
_WRONG_PSF: tuple[dict[str, Any], ...] = (
    {"name": "wavelength +10 %", "factors": {"wavelength_um": 1.1}},
    {"name": "NA -5 %", "factors": {"na": 0.95}},
    {"name": "z step +10 %", "factors": {"z_step": 1.1}},
)
_CAMERAS: tuple[dict[str, Any], ...] = (
    {"name": "EMCCD", "camera": {"detector": "emccd", "offset": 200.0, "gain": 5.0}},
)
_SIDE = (48, 64, 64)  # voxels of a test image


@dataclass(frozen=True, kw_only=True)
class QuickStudy:
    """Choices of a study for one PSF.

    Parameters
    ----------
    structures
        Structures of the test images; networks are trained on each of them.
    photons
        Photons of the brightest structures of faint, usual and bright images; networks are trained
        on usual ones.
    images
        Number of test images of each kind, and of trainings.
    networks
        Networks to train for the PSF.
    minutes
        Minutes of each training.
    """

    structures: tuple[Structure, ...] = ("filaments", "nuclei")
    photons: tuple[float, float, float] = (30.0, 100.0, 300.0)
    images: Annotated[int, {"min": 1, "max": 100, "label": "Images of each kind"}] = 1
    networks: tuple[ArchitectureName, ...] = ("rln", "care")
    minutes: Annotated[float, {"min": 0.1, "max": 10_000.0, "label": "Minutes per training"}] = 3.0

    def __post_init__(self) -> None:
        check_limits(self)
        if not self.structures:
            raise RlnError("tick at least one kind of `structures`.")
        if not all(0 < n < 1e7 for n in self.photons) or len({*self.photons}) < 3:
            raise RlnError(f"`photons` is {self.photons}; give three different positive numbers.")

    def settings(
        self, psf: Volume, folder: Path, models: Mapping[str, str] = {}
    ) -> "StudySettings":
        """Return the settings of the study, with trained models by name.

        A PSF that was computed is computed again, so that it can be a little wrong; any other is
        written into the folder.

        Raises
        ------
        RlnError
            If a setting is invalid.
        OSError
            If the PSF cannot be written.
        """
        from napari_rln.study.config_file import study_of

        described: dict[str, Any] = {"name": psf.name or "PSF", "voxel_um": list(psf.voxel_um)}
        conditions = list(_CAMERAS)
        record = psf.record
        if record is not None and record.method == "psf compute":
            known = as_dict(MicroscopeSettings())
            described |= {k: v for k, v in record.settings.items() if k in known and v is not None}
            if described.get("modality") != "gaussian":
                conditions += _WRONG_PSF
        else:
            file = f"psf-{psf.hash}.ome.tif"  # an earlier study keeps its own
            write(psf, folder / file)
            described["file"] = file
        methods = [*_CLASSICAL]
        methods += [
            {"name": name, "kind": "model", "model": model} for name, model in models.items()
        ]
        methods += [
            {"name": f"{name} trained", "kind": "train", "architecture": name}
            for name in self.networks
        ]
        _, usual, _ = self.photons
        return study_of(
            {
                "name": f"Methods for {described['name']}",
                "shape": list(_SIDE),
                "photons": list(self.photons),
                "seeds": list(range(self.images)),
                "train_photons": [usual],
                "train_structures": list(self.structures) if self.networks else [],
                "test_structures": list(self.structures),
                "budget": {"minutes": self.minutes},
                "psf": [described],
                "method": methods,
                "condition": conditions,
            },
            folder,
        )
