"""The command ``napari-rln``: every verb of the package without a window."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

from cyclopts import App, Parameter

from napari_rln import __version__
from napari_rln.errors import ComputeError, RlnError, RlnWarning

# Threads of torch that wait by spinning make a busy machine a hundred times slower; to be said
# before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How a run ended, for scripts: the mistakes of the command line itself end with 2, as usual.
DONE, CANNOT_BE_USED, FAILED, INTERRUPTED = 0, 1, 3, 130

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the input cannot be used; 2 wrong command line; 3 the computation or a "
    "file operation failed; 130 interrupted."
)

# Commands are imported when they are called, so that help comes at once.
app = App(
    name="napari-rln",
    help="Deconvolution of 3D fluorescence microscopy. Lengths are in micrometres, axes z y x.",
    help_epilogue=_EXIT_CODES,
    version=__version__,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(consume_multiple=True),  # --structures dots rods
)
app.command("napari_rln.cli.rld:rld", name="rld")
app.command("napari_rln.cli.rln:rln", name="rln")
app.command("napari_rln.cli.dual:dual", name="dual")
app.command("napari_rln.cli.train:train", name="train")
app.command("napari_rln.cli.simulate:simulate", name="simulate")
app.command("napari_rln.cli.compare:compare", name="compare")
app.command("napari_rln.cli.check:check", name="check")
app.command("napari_rln.cli.models:model", name="model")
app.command("napari_rln.cli.models:import_tf", name="import-tf")
app.command("napari_rln.cli.demo:demo", name="demo")

batch = App(name="batch", help="Deconvolve many images; go on where a batch was interrupted.")
batch.command("napari_rln.cli.batch:rld", name="rld")
batch.command("napari_rln.cli.batch:rln", name="rln")
app.command(batch)

psf = App(name="psf", help="Compute, measure, examine and repair point spread functions.")
psf.command("napari_rln.cli.psf:compute", name="compute")
psf.command("napari_rln.cli.psf:measure", name="measure")
psf.command("napari_rln.cli.psf:info", name="info")
psf.command("napari_rln.cli.psf:repair", name="repair")
app.command(psf)


def main(tokens: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(tokens))


def run(tokens: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Parameters
    ----------
    tokens
        The words after ``napari-rln``; those of the process when none.
    """
    try:
        with warnings.catch_warnings(), _terminated_as_interrupted():
            # Ours are for the user; those of the libraries below are for us.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", RlnWarning)
            warnings.showwarning = _show_warning
            app(tokens, result_action="return_value", exit_on_error=True)
    except RlnError as error:
        _say(f"Error: {error}")
        return CANNOT_BE_USED
    except ComputeError as error:
        _say(f"Error: {error}")
        return FAILED
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        _say(f"Error: {error}")
        return FAILED
    except MemoryError:
        _say("Error: out of memory; compare or prepare a smaller part.")
        return FAILED
    except KeyboardInterrupt as stop:
        kept = str(stop) or "nothing half-written was left"
        _say(f"Interrupted; {kept}.")
        return INTERRUPTED
    return DONE


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """End by SIGTERM, as batch systems send it, as by Ctrl-C: what is finished is kept."""

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
    """Print a message for a person, whatever a file's name may hold."""
    from napari_rln.cli.terminal import as_options

    safe = as_options(text).encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    print(safe.decode(sys.stderr.encoding or "utf-8"), file=sys.stderr)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say(f"Warning: {message}")
