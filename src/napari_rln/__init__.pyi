# What `import napari_rln` offers, and where each lies: read by type checkers and, at run time, by
# the lazy loader.

from . import psf as psf
from . import simulate as simulate
from . import train as train
from ._version import __version__ as __version__
from .core.errors import ComputeError as ComputeError
from .core.errors import RlnError as RlnError
from .core.errors import RlnWarning as RlnWarning
from .core.volume import Volume as Volume
from .deconvolution import views as views
from .deconvolution.classical import RichardsonLucy as RichardsonLucy
from .deconvolution.wiener import Wiener as Wiener
from .engine.execution import Execution as Execution
from .engine.execution import Output as Output
from .engine.in_memory import deconvolve as deconvolve
from .engine.in_memory import deconvolve_iter as deconvolve_iter
from .engine.job import Job as Job
from .engine.job import PsfFile as PsfFile
from .engine.job import SecondView as SecondView
from .engine.run import run as run
from .engine.run import run_iter as run_iter
from .evaluate.check import check as check
from .evaluate.comparison import compare as compare
from .evaluate.figure import figure as figure
from .io.image import ImageFile as ImageFile
from .io.image import open_image as open_image
from .io.volumes import read as read
from .io.volumes import write as write
from .networks.model import load_model as load_model
from .networks.network import Network as Network
from .registration.register import register as register
