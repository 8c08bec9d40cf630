# What `import napari_rln` offers, and where each lies: read by type checkers and, at run time, by
# the lazy loader.

from .application import apply_model as apply_model
from .application import apply_steps as apply_steps
from .comparison import CompareSettings as CompareSettings
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .deconvolution import deconvolve as deconvolve
from .deconvolution import iterate as iterate
from .errors import ComputeError as ComputeError
from .errors import RlnError as RlnError
from .errors import RlnWarning as RlnWarning
from .figures import figure as figure
from .figures import save_figure as save_figure
from .io import read_volume as read_volume
from .io import write_volume as write_volume
from .large.forecast import Forecast as Forecast
from .large.request import LargeRun as LargeRun
from .large.run import forecast as forecast
from .large.run import run_large as run_large
from .large.settings import LargeReport as LargeReport
from .large.settings import LargeSettings as LargeSettings
from .model import Model as Model
from .model import load_model as load_model
from .psf.compute import compute_psf as compute_psf
from .psf.doctor import PsfReport as PsfReport
from .psf.doctor import examine_psf as examine_psf
from .psf.doctor import fit_psf as fit_psf
from .psf.doctor import repair_psf as repair_psf
from .psf.measure import MeasureSettings as MeasureSettings
from .psf.measure import measure_psf as measure_psf
from .psf.microscope import MicroscopeSettings as MicroscopeSettings
from .psf.prepare import PrepareSettings as PrepareSettings
from .psf.prepare import prepare_psf as prepare_psf
from .record import Record as Record
from .rld import RldReport as RldReport
from .rld import RldSettings as RldSettings
from .rln import RlnReport as RlnReport
from .rln import RlnSettings as RlnSettings
from .simulate.imaging import ImagingSettings as ImagingSettings
from .simulate.imaging import simulate_pair as simulate_pair
from .simulate.structures import StructureSettings as StructureSettings
from .stages import network_stages as network_stages
from .stores.source import Origin as Origin
from .train.loop import train_model as train_model
from .train.loop import train_steps as train_steps
from .train.setting import choose_settings as choose_settings
from .train.setting import setting_of as setting_of
from .train.settings import TrainReport as TrainReport
from .train.settings import TrainSettings as TrainSettings
from .trust import Trust as Trust
from .trust import check_result as check_result
from .view import FigureSettings as FigureSettings
from .volume import Volume as Volume

__version__: str
