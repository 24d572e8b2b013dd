"""Whether everything that was accepted is accounted for: stored, duplicate or dead, the rest in flight."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from headrace.endpoints import Endpoints
from headrace.published import AcceptedUnknown, Accepting, PartUnavailable, read_accepting, read_lag, worker_urls
from headrace.waiting import count_waiting, read_positions
from schemas.codec import Codec
from schemas.settings import BrokerSettings
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
    """Events accepted and accounted for, at one moment; `waiting` records are on a log that keeps, or spooled."""

    accepted: int
    accounted: Accounted
    waiting: int = 0

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
    """Where to read a balance. `accepted` is a number that replaces what the collector counted.

    `log` is one that keeps, to be counted itself; None where the collector's journal has counted every event.
    """

    client: ClickHouse
    codec: Codec
    endpoints: Endpoints
    port_base: int | None
    accepted: int | None = None
    log: BrokerSettings | None = None


def read_balance(stack: Stack) -> Balance:
    """The balance now; raises PartUnavailable, AcceptedUnknown, BrokerUnavailable, ClickHouseUnavailable.

    The ledger is read first: what is accepted in between then shows as in flight, not as doubled.
    """
    positions = read_positions(stack.client)
    accounted = read_accounted(stack.client, stack.codec)
    if stack.accepted is not None:
        return Balance(stack.accepted, accounted)
    accepting = read_accepting(stack.endpoints.collector_url)
    if stack.log is None:
        return Balance(accepting.accepted_since(accounted.first_received_at / 1000), accounted)
    waiting = accepting.spooled + asyncio.run(count_waiting(stack.log, positions))
    return Balance(max(accounted.events + waiting, _told(accepting, accounted)), accounted, waiting)


def _told(accepting: Accepting, accounted: Accounted) -> int:
    """What the collector knows to have accepted: at least so many have to be accounted for. 0 where it began later."""
    try:
        return accepting.accepted_since(accounted.first_received_at / 1000)
    except AcceptedUnknown:
        return 0


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
    if balance.waiting:
        findings.notes.append(f"{balance.waiting} records are on the log or the collector's disk and not stored yet")
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
