"""Import of modules in a thread, during which napari's window stays responsive."""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_rln.core.errors import ComputeError

# Of torch, in the order in which it loads them.
_LIBRARIES = ("torch_global_deps", "c10", "torch_cpu")


def load(modules: Sequence[str]) -> None:
    """Import modules; call it in a thread.

    Measured on two cores from an empty cache of the file system on: torch's libraries, loaded by
    its import, block the window for 0.8 s, and a collection of garbage among the many new objects
    for 0.2 s (``benchmarks/gui.py``).
    """
    if "torch" not in sys.modules:
        _load_libraries()
    try:
        with _without_collections():
            for module in modules:
                importlib.import_module(module)
    except RuntimeError as error:  # which superqt takes for the deletion of the worker
        raise ComputeError(str(error)) from error


def are_loaded(modules: Sequence[str]) -> bool:
    """Return whether all modules are imported already."""
    return all(module in sys.modules for module in modules)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Put off collections of garbage, each of which goes through all that is imported."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load_libraries() -> None:
    """Load torch's libraries without Python's lock, which an import holds meanwhile.

    A library that cannot be loaded in this way is left to the import.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None or sys.platform == "win32":
        return  # on Windows torch's own import does without the lock
    folder = Path(found.origin).parent / "lib"
    ending = "dylib" if sys.platform == "darwin" else "so"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for name in _LIBRARIES:
        path = folder / f"lib{name}.{ending}"
        if path.exists():
            dlopen(bytes(path), ctypes.DEFAULT_MODE | _NOW)


_NOW = 2  # resolve all symbols at once, as imports do; the same on Linux and macOS
