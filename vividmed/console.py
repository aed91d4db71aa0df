"""Shared by all commands: exit statuses, errors of one line, and output that any terminal can show."""

import errno
import os
import sys
from collections.abc import Callable

from vividmed.errors import VividMedError

DONE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_USER_CAN_FIX = {
    errno.EACCES: "give a path that you may read and write",
    errno.EPERM: "give a path that you may read and write",
    errno.EROFS: "give a path on a writable disk; HF_HOME moves the cache",
    errno.ENOSPC: "make room or choose another path; HF_HOME moves the cache",
    errno.EDQUOT: "make room or choose another path; HF_HOME moves the cache",
    errno.ENAMETOOLONG: "give a shorter path",
}


def run_command(action: Callable[[], int | None]) -> int:
    """Run the body of a command and turn what ends it into an exit status.

    Input that the user can correct, and a disk that is full or read-only, end in one line on standard error.
    Characters that the terminal cannot show are replaced.

    Args:
        action: does the work; returns an exit status, or None for success.

    Returns:
        0 for success, 2 for bad input, 130 after Ctrl-C, or what ``action`` returned.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        status = action()
        sys.stdout.flush()
    except VividMedError as error:
        return report_error(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter must not flush into the closed pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in _USER_CAN_FIX:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return report_error(f"{where}{error.strerror}; {_USER_CAN_FIX[error.errno]}")
    return DONE if status is None else status


def report_error(message: str) -> int:
    """Write an error as one line on standard error; returns the status for bad input."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return BAD_INPUT
