"""Times as clients send them: ISO 8601 text, or a number of milliseconds since the epoch."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def epoch_ms(sent: Any) -> int:
    """Milliseconds since the epoch; text without an offset is UTC. Raises ValueError for what is no time.

    The standard library's parser costs a microsecond less per event than pydantic's datetime.
    """
    if isinstance(sent, str):
        moment = datetime.fromisoformat(sent)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000  # cheaper than a division
    if isinstance(sent, int | float) and not isinstance(sent, bool) and _FIRST <= sent <= _LAST:
        return int(sent)
    raise ValueError("neither ISO 8601 text nor milliseconds since the epoch, of the years 1 to 9999")


def epoch_ms_or_none(sent: Any) -> int | None:
    """As `epoch_ms`, None where there is none or it cannot be read."""
    try:
        return None if sent is None else epoch_ms(sent)
    except ValueError:
        return None
