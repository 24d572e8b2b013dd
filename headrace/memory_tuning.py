"""How a server of ours uses memory, apart from what it keeps."""

import ctypes
import gc
from typing import Final

_M_ARENA_MAX: Final = -8  # of malloc.h


def tune_memory() -> None:
    """Look for cycles rarely: the servers make many short-lived objects and hardly any cycles (docs: Python's gc).

    One heap for all threads where the C library is glibc, which gives each its own: the same megabytes of a block
    would be kept in every one of them (`man mallopt`, M_ARENA_MAX; a third of a busy worker's memory).
    """
    gc.set_threshold(200_000, 50, 1_000)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)
