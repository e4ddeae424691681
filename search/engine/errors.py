"""The error of a user's mistake: one sentence, no traceback, exit code 2."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the largest size allowed here",
}


class UserError(ValueError):
    """A mistake of the user, said in one sentence that names the value and the way out."""


def disk_full(error: BaseException) -> str | None:
    """Says in words that `error` means a full disk; None for any other error."""
    return _FULL.get(error.errno or 0) if isinstance(error, OSError) else None


@contextmanager
def full_disk_is_the_users(work_dir: str) -> Iterator[None]:
    """Turns a full disk, wherever it is met inside the block, into a `UserError`.

    Logging handlers stay silent about it meanwhile: they would print a traceback for every line.
    """
    loud, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except OSError as error:
        words = disk_full(error)
        if words is None:
            raise
        raise UserError(
            f"Writing to {error.filename or work_dir} failed because {words}; the last checkpoint is "
            "whole: make room and go on with --resume."
        ) from error
    finally:
        logging.raiseExceptions = loud
