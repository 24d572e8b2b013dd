"""An event's time, corrected for a client whose clock is wrong."""

from typing import Final

#: A request takes up to this long from the client to the collector; only a larger difference is the clock's fault.
TOLERANCE_MS: Final = 5_000


def corrected(timestamp: int, received_at: int, sent_at: int | None) -> int:
    """The event's time by the collector's clock, milliseconds. No event happens after it was received."""
    return min(timestamp + clock_error(received_at, sent_at), received_at)


def clock_error(received_at: int, sent_at: int | None) -> int:
    """By how many milliseconds the client's clock is behind.

    It is off by `received_at - sent_at`, and so is every timestamp that it gave; without `sent_at`, or within the
    tolerance, the timestamps stand.
    """
    if sent_at is None:
        return 0
    error = received_at - sent_at
    return error if error > TOLERANCE_MS or error < -TOLERANCE_MS else 0
