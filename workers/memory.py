"""How a process that moves blocks keeps its memory."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""``M_TRIM_THRESHOLD``, ``M_TOP_PAD`` and ``M_MMAP_THRESHOLD`` of glibc's ``malloc.h``."""
KEPT = 64 << 20


def keep_freed_memory() -> None:
    """Let the C library keep up to 64 MiB that was freed.

    Blocks of about 1 MiB come and go all the time; given back to the kernel, each one costs 256 page faults when it
    comes again. Where there is no glibc, nothing happens: it is only slower."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT)
        mallopt(_TOP_PAD, 4 << 20)
        mallopt(_MMAP_THRESHOLD, KEPT // 4)
