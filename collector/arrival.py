"""What a request's arrival says of all of its events: whose they are, who sent them, when."""

from collections.abc import Callable
from typing import NamedTuple


class Sender(NamedTuple):
    """What the HTTP request says of its sender; "" where it says nothing. `ip` is not masked yet."""

    ip: str = ""
    country: str = ""
    user_agent: str = ""


class Arrival(NamedTuple):
    """A request of the tenant that came in at `received_at` (ms since the epoch); `mint_id` makes a new id a call."""

    company_id: str
    sender: Sender
    received_at: int
    mint_id: Callable[[], str]
