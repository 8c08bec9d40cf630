"""Reuse of freed memory within the process, on systems with glibc.

glibc requests every buffer above 32 MB from the system and returns it when freed, so that each
operation on large tensors waits for its pages: this halves the speed of the networks.
"""

import ctypes
import sys

# From malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Make the C library keep freed buffers for reuse; return whether it accepted the settings.

    For the whole process, and for buffers allocated from then on; further calls change nothing. No
    effect without glibc: other allocators either do so by default or cannot be configured.
    :func:`release_freed_memory` returns the kept memory to the system. Buffers above ``limit``
    bytes are still returned when freed.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {
        _MMAP_THRESHOLD: limit,
        _TRIM_THRESHOLD: limit,
        _TOP_PAD: 64 << 20,
        # Arenas of other threads are limited to 64 MB, which is of no use to worker threads.
        _ARENA_MAX: 1,
    }
    accepted = [mallopt(key, value) for key, value in settings.items()]
    return all(accepted)


def release_freed_memory() -> None:
    """Return unused memory of the process to the system."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return a function of the C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
