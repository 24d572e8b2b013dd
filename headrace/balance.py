"""Whether everything that was accepted is accounted for: stored, duplicate or dead, the rest in flight."""

import time
from dataclasses import dataclass
from typing import Final

from headrace.endpoints import Endpoints
from headrace.published import PartUnavailable, read_accepting, read_lag, worker_urls
from schemas.codec import Codec
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse
from warehouse.verification.balance import Accounted, read_accounted
from warehouse.verification.findings import Findings

_POLL_SECONDS: Final = 0.5
#: A collector publishes its journal's count every two seconds, so that the ledger may be ahead of it for as long.
_PUBLISHED_SECONDS: Final = 3.0
_ACCOUNTED: Final = "stored + duplicate + dead"


@dataclass(frozen=True, slots=True)
class Balance:
    """Events accepted and events accounted for, at one moment."""

    accepted: int
    accounted: Accounted

    @property
    def in_flight(self) -> int:
        """Accepted and not in the ledger; below zero where the ledger has more than was accepted."""
        return self.accepted - self.accounted.events

    def as_json(self) -> dict[str, int]:
        """The figures under the names that every output has."""
        accounted = self.accounted
        return {
            "accepted": self.accepted,
            "stored": accounted.stored,
            "duplicate": accounted.duplicate,
            "dead": accounted.dead,
            "inFlight": self.in_flight,
        }


@dataclass(frozen=True, slots=True)
class Stack:
    """Where to read a balance. `accepted` is a number that replaces what the collector counted."""

    client: ClickHouse
    codec: Codec
    endpoints: Endpoints
    port_base: int | None
    accepted: int | None = None


def read_balance(stack: Stack) -> Balance:
    """The balance now; raises PartUnavailable, AcceptedUnknown, ClickHouseUnavailable.

    The ledger is read first: what is accepted in between then shows as in flight, not as doubled.
    """
    accounted = read_accounted(stack.client, stack.codec)
    accepted = stack.accepted
    if accepted is None:
        accepting = read_accepting(stack.endpoints.collector_url)
        accepted = accepting.accepted_since(accounted.first_received_at / 1000)
    return Balance(accepted, accounted)


def await_balance(stack: Stack, wait: float) -> tuple[Balance, Findings]:
    """The balance once nothing is in flight, or after `wait` seconds, and what is wrong with it."""
    began = time.monotonic()
    while True:
        balance = read_balance(stack)
        patience = max(wait, _PUBLISHED_SECONDS) if balance.in_flight < 0 and stack.accepted is None else wait
        if balance.in_flight == 0 or time.monotonic() - began >= patience:
            return balance, judge(stack, balance)
        time.sleep(_POLL_SECONDS)


def judge(stack: Stack, balance: Balance) -> Findings:
    """In flight is no fault while the log or the spool has records that are not stored; lost when neither has any."""
    findings = Findings("accepted", compared=balance.accepted)
    accepted, accounted, in_flight = balance.accepted, balance.accounted.events, balance.in_flight
    if in_flight < 0:
        findings.differ(COLLECTED, f"{_ACCOUNTED}: doubled", accepted, accounted)
    if in_flight <= 0:
        return findings
    try:
        lag = read_lag(worker_urls(stack.endpoints, stack.port_base))
        spooled = read_accepting(stack.endpoints.collector_url).spooled
    except PartUnavailable as error:
        findings.differ(COLLECTED, f"{_ACCOUNTED}: in flight or lost", accepted, accounted)
        findings.notes.append(f"{in_flight} events are in flight or lost: {error}")
        return findings
    if lag.records or spooled:
        findings.notes.append(
            f"{in_flight} events are in flight: {lag.records} records on the log, the oldest {lag.seconds:.1f} s old, "
            f"{spooled} on the collector's disk"
        )
    else:
        findings.differ(COLLECTED, f"{_ACCOUNTED}: lost", accepted, accounted)
    return findings
