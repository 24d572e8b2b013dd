"""An event's time, corrected for a client whose clock is wrong."""

from typing import Final

#: A request takes up to this long from the client to the collector; only a larger difference is the clock's fault.
TOLERANCE_MS: Final = 5_000


def corrected(timestamp: int, received_at: int, sent_at: int | None) -> int:
    """The event's time by the collector's clock, milliseconds.

    The client's clock is off by `received_at - sent_at`, and so is the timestamp that it gave; without `sent_at`, or
    within the tolerance, the timestamp stands. No event happens after it was received.
    """
    if sent_at is not None:
        offset = received_at - sent_at
        if offset > TOLERANCE_MS or offset < -TOLERANCE_MS:
            timestamp += offset
    return min(timestamp, received_at)
