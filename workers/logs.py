"""What a worker writes to its log: one line for an error that leeward foresees, a traceback only for a defect."""

from __future__ import annotations

import logging
import sys

from temporalio.exceptions import ApplicationError

from activities.failures import Unexpected


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("temporalio.activity").addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    """The SDK logs every failed try with its traceback; a link that is down for an hour is no news each time."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ApplicationError) and error.type != Unexpected.__name__:
        about = getattr(record, "temporal_activity", {})
        record.msg = f"{about.get('activity_type', 'activity')}, try {about.get('attempt', '?')}: {error.message}"
        record.args, record.exc_info = (), None
    return True
