"""Knowing a full disk when it is met, whatever library met it."""

import errno
import os
import re
from collections.abc import Iterator

REMEDY = (
    "the disk of the data folder is full: free space with `spikeproof gc`, or by deleting experiments with their files "
    "(DELETE /experiments/ID?files=true), then try again (POST /runs/ID/retry)"
)
_CODES = (errno.ENOSPC, errno.EDQUOT)
# Libraries that write by themselves tell only in words: safetensors, SQLite, PostgreSQL; np.save, which hides the code.
_WORDS = re.compile(
    f"{re.escape(os.strerror(errno.ENOSPC))}|{re.escape(os.strerror(errno.EDQUOT))}|database or disk is full|"
    r"\d+ requested and \d+ written"
)


def is_full(error: BaseException) -> bool:
    """Whether a full disk, or an exhausted quota, is behind the error."""
    return any(_says_so(one) for one in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _CODES:
        return True
    return _WORDS.search(str(error)) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
