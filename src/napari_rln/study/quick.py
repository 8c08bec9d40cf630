"""A study of a few choices, for the PSF at hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import write
from napari_rln.networks.architectures.registry import TITLES, ArchitectureName
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.structures import Structure

# The rest of a study is imported where it is used: napari opens the dock faster.
if TYPE_CHECKING:
    from napari_rln.study.config import StudySettings

Classical = Literal[
    "Richardson-Lucy", "Wiener-Butterworth", "masked Wiener", "total variation",
    "gradient consensus", "Wiener filter",
]  # fmt: skip
"""Classical methods, those of back projectors and of total variation with Richardson-Lucy."""

Trained = Literal["rln", "rln-paper", ArchitectureName]
"""Networks to train: the architectures, and the paper's variant of the first."""

_WB, _MASKED = {"back_projector": "wiener-butterworth"}, {"back_projector": "masked-wiener"}
_CLASSICAL: Mapping[Classical, tuple[dict[str, Any], ...]] = {
    "Richardson-Lucy": (
        {"name": "RLD, automatic stop", "kind": "rld", "stop": "auto"},
        {"name": "RLD, best stop", "kind": "rld", "stop": "best"},
        {"name": "RLD 100", "kind": "rld", "stop": 100},
        {"name": "RLD 100, not accelerated", "kind": "rld", "acceleration": "none", "stop": 100},
    ),
    "Wiener-Butterworth": (
        {"name": "WB, automatic stop", "kind": "rld", "stop": "auto", **_WB},
        {"name": "WB, best stop", "kind": "rld", "stop": "best", **_WB},
    ),
    "masked Wiener": (
        {"name": "masked Wiener, automatic stop", "kind": "rld", "stop": "auto", **_MASKED},
        {"name": "masked Wiener, best stop", "kind": "rld", "stop": "best", **_MASKED},
    ),
    "total variation": (
        {"name": "RL-TV, automatic stop", "kind": "rld", "stop": "auto", "tv": 0.005},
    ),
    "gradient consensus": (
        {"name": "gradient consensus 100", "kind": "rld", "stop": 100, "consensus": True},
    ),
    "Wiener filter": ({"name": "Wiener", "kind": "wiener", "clip": True},),
}
_NETWORKS: dict[Trained, str] = {"rln-paper": "RLN, as in the paper"}
_NETWORKS.update(TITLES.items())
_TRAINED = {"rln-paper": {"architecture": "rln", "variant": "paper"}}
_Z_STEP: dict[str, Any] = {"name": "z step +10 %", "factors": {"z_step": 1.1}}
_WRONG_PSF: tuple[dict[str, Any], ...] = (
    {"name": "wavelength +10 %", "factors": {"wavelength_um": 1.1}},
    {"name": "NA -5 %", "factors": {"na": 0.95}},
    _Z_STEP,
)
_TISSUE = 1.40  # index of refraction
_DEEP: dict[str, Any] = {
    "name": "20 um deep in tissue", "optics": {"sample_index": _TISSUE, "depth_um": 20.0},
}  # fmt: skip
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
        Structures of the test images; networks are trained on each of them. Choose those that
        resemble your samples.
    photons
        Photons of the brightest structures in faint, usual and bright images; networks are trained
        on usual ones. Give those of your images.
    images
        Number of test images of each kind, and of trainings. Raise it for a surer answer, in as
        many times the time.
    classical
        Classical methods to compare. Choose those that you would use.
    networks
        Networks to train for the PSF. Leave all out for an answer without training.
    minutes
        Minutes of each training. Raise it for better networks.
    """

    structures: tuple[Structure, ...] = ("filaments", "nuclei")
    photons: Annotated[tuple[float, float, float], {"label": "Photons (faint, usual, bright)"}] = (
        30.0,
        100.0,
        300.0,
    )
    images: Annotated[int, {"min": 1, "max": 100, "label": "Images of each kind"}] = 1
    classical: Annotated[tuple[Classical, ...], {"label": "Classical methods"}] = (
        "Richardson-Lucy", "Wiener-Butterworth", "total variation",
    )  # fmt: skip
    networks: Annotated[tuple[Trained, ...], {"label": "Networks to train", "words": _NETWORKS}] = (
        "rln",
        "care",
    )
    minutes: Annotated[
        float, {"min": 0.1, "max": 10_000.0, "label": "Time per training (minutes)"}
    ] = 3.0

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

        A PSF that was computed is computed again, so that its optics can be a little wrong; any
        other is written into the folder, and has only another distance of planes.

        Raises
        ------
        RlnError
            If a setting is invalid.
        OSError
            If the PSF cannot be written.
        """
        from napari_rln.study.config_file import study_of

        if not (self.classical or self.networks or models):
            raise RlnError(
                "tick some `classical` or `networks`, or a model on the page Deconvolve."
            )
        described: dict[str, Any] = {"name": psf.name or "PSF", "voxel_um": list(psf.voxel_um)}
        conditions = list(_CAMERAS)
        record = psf.record
        if record is not None and record.method == "psf compute":
            known = as_dict(MicroscopeSettings())
            described |= {k: v for k, v in record.settings.items() if k in known and v is not None}
            if described.get("modality") != "gaussian":
                conditions += _WRONG_PSF
                deep, index = described.get("depth_um"), described.get("immersion_index", 1.0)
                if not deep and abs(index - _TISSUE) > 0.01:
                    conditions.append(_DEEP)
        else:
            if psf.shape[0] > 1:
                conditions.append(_Z_STEP)
            file = f"psf-{psf.hash}.ome.tif"  # an earlier study keeps its own
            write(psf, folder / file)
            described["file"] = file
        methods = [method for name in self.classical for method in _CLASSICAL[name]]
        methods += [
            {"name": name, "kind": "model", "model": model} for name, model in models.items()
        ]
        methods += [
            {"name": f"{name} trained", "kind": "train"}
            | _TRAINED.get(name, {"architecture": name})
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
