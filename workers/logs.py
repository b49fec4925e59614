"""What a worker writes to its log: one line for an error that leeward foresees, a traceback only for a defect."""

from __future__ import annotations

import logging
import sys

from temporalio.exceptions import ApplicationError

from activities.failures import Unexpected
from vault.errors import LeewardError
from workers.temporal_errors import of_a_worker


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("temporalio.activity").addFilter(_in_one_line)
    logging.getLogger("temporalio.worker._worker").addFilter(_without_what_temporal_said)


def tell(error: LeewardError) -> None:
    """Why a process ends, as commands say it: each line begins alike."""
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)


def _in_one_line(record: logging.LogRecord) -> bool:
    """The SDK logs every failed try with its traceback; a link that is down for an hour is no news each time."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ApplicationError) and error.type != Unexpected.__name__:
        about = getattr(record, "temporal_activity", {})
        record.msg = f"{about.get('activity_type', 'activity')}, try {about.get('attempt', '?')}: {error.message}"
        record.args, record.exc_info = (), None
    return True


def _without_what_temporal_said(record: logging.LogRecord) -> bool:
    """The SDK logs a refused worker with a traceback; the process ends with that error, and says it in one sentence."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RuntimeError) and of_a_worker(error) is not None:
        record.exc_info = None
    return True
