"""Child processes of the supervisor that end with it, even when it is killed: no orphan keeps the database open."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """For ``preexec_fn``: the kernel sends SIGTERM to this process when its parent is gone (prctl(2), Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
