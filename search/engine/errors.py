"""The error of a user's mistake: one sentence, no traceback, exit code 2."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the largest size allowed here",
}

# what the operating system may grant at the next try: of disks and networks, memory, processes and open files
_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENOTCONN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EBUSY),
}


class WorkFailed(RuntimeError):
    """A run that didn't end, for no fault of the user's: an exception, its process was killed, or a disk failed."""


class UserError(ValueError):
    """A mistake of the user, said in one sentence that names the value and the way out."""


class BudgetError(UserError):
    """A budget that can't be met: exit code 3."""


def whole_number(name: str, value: Any, least: int = 1, below: int | None = None) -> int:
    """``value``, if it is a whole number of at least ``least`` and less than ``below``.

    Raises:
        UserError: naming ``name`` and the value.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (below is not None and value >= below):
        limits = f"at least {least}" if below is None else f"at least {least} and less than {below}"
        raise UserError(f"{name}={value!r} must be a whole number of {limits}.")
    return int(value)


# what classes of torch and mmengine, and Python itself, raise for arguments that they can't use
_REFUSED = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError)


@contextmanager
def values_are_the_users(where: str) -> Iterator[None]:
    """Turns what a class says about its arguments, built inside the block, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except _REFUSED as error:
        # below its first line torch's C++ code tells where it was
        first = str(error).partition("\nException raised")[0]
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError | AttributeError | AssertionError) else ""
        raise UserError(f"{where} can't be built: {kind}{' '.join(first.split())}") from error


@contextmanager
def single_values_are_the_users() -> Iterator[None]:
    """Turns what a batch norm says of a map of one pixel and one image into a `UserError`."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "a batch norm can't normalise one image's map of one pixel, such as the image's mean in a segmentor's head: set "
            "batch_size=2 or more in train_dataloader and, of a search, arch_dataloader"
        ) from error


def disk_full(error: BaseException) -> str | None:
    """Says in words that `error` means a full disk; None for any other error."""
    return _FULL.get(error.errno or 0) if isinstance(error, OSError) else None


def passing(error: BaseException) -> bool:
    """Whether the cause is something that the operating system may grant at the next try.

    Such are a disk or a network that fails for a moment, and memory, processes or open files that are used up; not a wrong path
    or a full disk. An error of a data loader's process comes as text, with the traceback that it had there.
    """
    numbers = [int(number) for number in re.findall(r"^\w+: \[Errno (\d+)\]", str(error), re.MULTILINE)]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            numbers.append(cause.errno)
        cause = cause.__cause__
    return not _PASSING.isdisjoint(numbers)


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
