"""Keeping freed memory in the process, where the C library gives it back at once.

glibc takes every buffer above 32 MB fresh from the system and returns it when freed, so that each
operation on large tensors first waits for its pages: for the networks this halves the speed.
"""

import ctypes
import sys

# From malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Make the C library keep freed buffers for reuse; return whether it took the settings.

    For the whole process, and for buffers allocated from then on; more calls change nothing. On
    systems without glibc nothing happens: their allocators either do so by themselves or cannot be
    told. :func:`release_freed_memory` gives back what was kept.

    Parameters
    ----------
    limit
        Bytes. Larger buffers are still taken from the system and returned to it.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {
        _MMAP_THRESHOLD: limit,
        _TRIM_THRESHOLD: limit,
        _TOP_PAD: 64 << 20,
        # Heaps of further arenas, one per thread, end at 64 MB: a worker thread would gain nothing.
        _ARENA_MAX: 1,
    }
    taken = [mallopt(key, value) for key, value in settings.items()]
    return all(taken)


def release_freed_memory() -> None:
    """Give memory that is kept but not in use back to the system."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return a function of the C library if that is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
