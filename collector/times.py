"""Times as clients send them: ISO 8601 text, or a number of milliseconds since the epoch."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def epoch_ms(sent: Any) -> int:
    """Milliseconds since the epoch; text without an offset is UTC. Raises ValueError for what is no time."""
    if isinstance(sent, str):
        milliseconds = _MILLISECONDS.get(sent[19:])
        if milliseconds is not None and (second := _second(sent[:19])) is not None:
            return second + milliseconds
        moment = datetime.fromisoformat(sent)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000  # cheaper than a division
    if isinstance(sent, int | float) and not isinstance(sent, bool) and _FIRST <= sent <= _LAST:
        return int(sent)
    raise ValueError("neither ISO 8601 text nor milliseconds since the epoch, of the years 1 to 9999")


_MILLISECONDS: Final = {f".{number:03}Z": number for number in range(1000)}


@lru_cache(maxsize=4096)  # events are many in a second
def _second(text: str) -> int | None:
    """The second in a time as JavaScript writes it, None where it has another form."""
    separators = text[4:5] + text[7:8] + text[10:11] + text[13:14] + text[16:17]
    return epoch_ms(f"{text}Z") if separators == "--T::" else None


def epoch_ms_or_none(sent: Any) -> int | None:
    """As `epoch_ms`, None where there is none or it cannot be read."""
    try:
        return None if sent is None else epoch_ms(sent)
    except ValueError:
        return None
