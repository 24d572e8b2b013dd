"""Points in time as people give them to a command: ISO 8601, or so long ago."""

import re
from datetime import UTC, datetime
from typing import Final

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_time(text: str, now: int) -> int:
    """Milliseconds since the epoch of ISO 8601 text (UTC without an offset), or of `2h`, `30m`, `7d` before `now`.

    Raises ValueError with a sentence.
    """
    if ago := _AGO.fullmatch(text.strip().lower()):
        return now - int(float(ago[1]) * _SECONDS[ago[2]] * 1000)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no time; give ISO 8601, such as 2026-11-24T08:00, or how long ago: 30m, 2h, 7d."
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def show_time(at: int) -> str:
    """ISO 8601 with milliseconds, UTC; "" for 0, which stands for no time."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z" if at else ""
