"""Ending a process that has spoken to Temporal."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process now, with everything written and nothing torn down.

    The Temporal SDK's runtime has threads of its own that call into Python; when one of them does so while the
    interpreter finalizes, the process aborts ("PyGILState_Release: thread state must be current"). All of leeward's
    own work is closed by context managers before this is called, so there is nothing left to finalize.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
