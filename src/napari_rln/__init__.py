"""Richardson-Lucy deconvolution and the Richardson-Lucy Network for 3D fluorescence microscopy.

Everything that a script needs, by the names of the commands; imported when first used, so that
importing the package costs nothing:

>>> import napari_rln as rln
>>> image = rln.read_volume("nucleus.tif")
>>> optics = rln.MicroscopeSettings(na=1.45, immersion_index=1.512, wavelength_um=0.461)
>>> psf = rln.compute_psf(optics, image.voxel_um)
>>> result = rln.deconvolve(image, psf)
>>> rln.write_volume(result, "deconvolved.ome.tif")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from napari_rln.comparison import Comparison, CompareSettings, compare
    from napari_rln.errors import ComputeError, RlnError, RlnWarning
    from napari_rln.figures import figure, save_figure
    from napari_rln.io import read_volume, write_volume
    from napari_rln.psf.compute import MicroscopeSettings
    from napari_rln.psf.compute import compute as compute_psf
    from napari_rln.psf.doctor import PsfReport
    from napari_rln.psf.doctor import examine as examine_psf
    from napari_rln.psf.doctor import fit_for as fit_psf
    from napari_rln.psf.doctor import repair as repair_psf
    from napari_rln.psf.measure import MeasureSettings
    from napari_rln.psf.measure import measure as measure_psf
    from napari_rln.psf.prepare import PrepareSettings
    from napari_rln.psf.prepare import prepare as prepare_psf
    from napari_rln.record import Record
    from napari_rln.rld import RldReport, RldSettings, deconvolve, iterate
    from napari_rln.view import FigureSettings
    from napari_rln.volume import Volume

# Exported name: module, and the name there.
_EXPORTS = {
    "Volume": ("volume", "Volume"),
    "Record": ("record", "Record"),
    "RlnError": ("errors", "RlnError"),
    "RlnWarning": ("errors", "RlnWarning"),
    "ComputeError": ("errors", "ComputeError"),
    "read_volume": ("io", "read_volume"),
    "write_volume": ("io", "write_volume"),
    "MicroscopeSettings": ("psf.compute", "MicroscopeSettings"),
    "compute_psf": ("psf.compute", "compute"),
    "MeasureSettings": ("psf.measure", "MeasureSettings"),
    "measure_psf": ("psf.measure", "measure"),
    "PrepareSettings": ("psf.prepare", "PrepareSettings"),
    "prepare_psf": ("psf.prepare", "prepare"),
    "PsfReport": ("psf.doctor", "PsfReport"),
    "examine_psf": ("psf.doctor", "examine"),
    "repair_psf": ("psf.doctor", "repair"),
    "fit_psf": ("psf.doctor", "fit_for"),
    "RldSettings": ("rld", "RldSettings"),
    "RldReport": ("rld", "RldReport"),
    "deconvolve": ("rld", "deconvolve"),
    "iterate": ("rld", "iterate"),
    "CompareSettings": ("comparison", "CompareSettings"),
    "Comparison": ("comparison", "Comparison"),
    "compare": ("comparison", "compare"),
    "FigureSettings": ("view", "FigureSettings"),
    "figure": ("figures", "figure"),
    "save_figure": ("figures", "save_figure"),
}

__all__ = [*_EXPORTS, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
