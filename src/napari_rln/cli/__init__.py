"""The command line, ``napari-rln``."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from cyclopts import App, Parameter

from napari_rln import __version__
from napari_rln.core.errors import ComputeError, RlnError, RlnWarning

# Threads of torch that wait by spinning make a busy machine a hundred times slower; to be set
# before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Exit codes for scripts; mistakes on the command line itself end with 2, as usual.
DONE, CANNOT_BE_USED, FAILED, INTERRUPTED = 0, 1, 3, 130

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the input cannot be used; 2 wrong command line; 3 the computation or a "
    "file operation failed; 130 interrupted."
)

# Commands are imported when they are called, so that help appears at once.
app = App(
    name="napari-rln",
    help="Deconvolution of 3D fluorescence microscopy. Lengths are in micrometres, axes z y x.",
    help_epilogue=_EXIT_CODES,
    version=__version__,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        consume_multiple=True,  # --structures dots rods
        negative_iterable=(),
    ),
)
# Each with its summary, the first line of its docstring, so that help imports no command.
for _name, _place, _summary in (
    ("rld", "deconvolve_commands:rld", "Deconvolve an image by Richardson-Lucy."),
    ("wiener", "deconvolve_commands:wiener", "Deconvolve an image by a Wiener filter."),
    ("rln", "deconvolve_commands:rln", "Deconvolve an image by a Richardson-Lucy Network."),
    ("dual", "deconvolve_commands:dual",
     "Deconvolve two views of one object together, as of a diSPIM."),
    ("run", "deconvolve_commands:run", "Run a job from a JSON file."),
    ("info", "info_command:info",
     "Describe an image's file: its sizes, its channels, and the optics of a PSF."),
    ("train", "train_command:train",
     "Train a network for a PSF, on synthetic structures blurred with it."),
    ("simulate", "simulate_command:simulate",
     "Simulate images of synthetic structures, with the ground truth."),
    ("compare", "compare_command:compare",
     "Compare an image with results made from it: a table and a lateral/axial figure."),
    ("study", "study_command:study",
     "Compare methods on simulated images, or on a public problem: tables and a report."),
    ("study-image", "study_image_command:study_image",
     "Study several methods on a real image: residual, repeatability, agreement, a reference."),
    ("check", "check_command:check",
     "Check how well a deconvolved image, blurred again, explains the raw one."),
    ("model", "model_commands:model",
     "Describe a model, or all models that come with the package."),
    ("import-tf", "model_commands:import_tf",
     "Turn a checkpoint of the paper's authors' TensorFlow code into a model file."),
    ("demo", "demo_command:demo",
     "Deconvolve the shipped sample, a hollow bead, and show raw, RLD and RLN side by side."),
):  # fmt: skip
    app.command(f"napari_rln.cli.{_place}", name=_name, help=_summary)

batch = App(name="batch", help="Deconvolve many images; an interrupted batch continues.")
for _name, _summary in (
    ("rld", "Deconvolve many images by Richardson-Lucy; one that fails does not stop the others."),
    (
        "wiener",
        "Deconvolve many images by Wiener filters; one that fails does not stop the others.",
    ),
    ("rln", "Deconvolve many images by networks; one that fails does not stop the others."),
):
    batch.command(f"napari_rln.cli.batch_commands:{_name}", name=_name, help=_summary)
app.command(batch)

psf = App(name="psf", help="Compute, measure, examine and repair point spread functions.")
for _name, _summary in (
    ("compute", "Compute a PSF from the optics."),
    ("measure", "Measure a PSF from a stack of sub-resolution beads."),
    ("info", "Examine a PSF: its size, its defects and how to repair them."),
    ("repair", "Repair the defects of a PSF and write it ready for use."),
):
    psf.command(f"napari_rln.cli.psf_commands:{_name}", name=_name, help=_summary)
app.command(psf)
app.register_install_completion_command()


def main(tokens: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(tokens))


def run(tokens: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Parameters
    ----------
    tokens
        Arguments after ``napari-rln``; those of the process if None.
    """
    try:
        with warnings.catch_warnings(), _terminated_as_interrupted():
            # Warnings of this package are for the user; those of libraries are for developers.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", RlnWarning)
            warnings.showwarning = _once()
            app(tokens, result_action="return_value", exit_on_error=True)
    except RlnError as error:
        _say(f"Error: {error}")
        return CANNOT_BE_USED
    except ComputeError as error:
        _say(f"Error: {error}")
        return FAILED
    except BrokenPipeError:  # the reader of the output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        _say(f"Error: {error}")
        return FAILED
    except MemoryError:
        _say("Error: out of memory; crop the image (--crop).")
        return FAILED
    except KeyboardInterrupt as stop:
        kept = str(stop) or "no partial file is left"
        _say(f"Interrupted; {kept}.")
        return INTERRUPTED
    return DONE


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM, as sent by batch systems, as Ctrl-C: finished parts are kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    """Print a message, with any characters in file names."""
    from napari_rln.cli.terminal import as_options

    safe = as_options(text).encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    print(safe.decode(sys.stderr.encoding or "utf-8"), file=sys.stderr)


def _once() -> Callable[..., None]:
    """Return a function that shows each warning once, since a file is opened several times."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            _say(f"Warning: {message}")

    return show
