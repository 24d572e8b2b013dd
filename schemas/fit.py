"""Whether a partition's ledger fits its log: offsets that were used before must not be mistaken for stored ones."""

from dataclasses import dataclass

from schemas.blocks import Partition

REPAIR = "`headrace repair` shows what is wrong and what would be done, `headrace repair --apply` does it"


class LedgerRefused(Exception):
    """The ledger and the log contradict each other; going on would lose or double. The message names the repair."""


@dataclass(frozen=True, slots=True)
class LedgerExtent:
    """The blocks of one partition in the ledger: how many, the offsets they span, and how many of those they cover.

    `claimed` is the end of the claim that starts at `end`; None where there is none.
    """

    blocks: int = 0
    start: int = 0
    end: int = 0
    covered: int = 0
    claimed: int | None = None


@dataclass(frozen=True, slots=True)
class LogExtent:
    """The offsets [begin, end) that the log holds of a partition."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit, as a sentence, and which repair mends it."""

    repair: str  # new_log, gap, claim; empty: none by itself
    sentence: str


def find_misfit(partition: Partition, ledger: LedgerExtent, log: LogExtent) -> Misfit | None:
    """The first reason why a worker must not go on with this partition, None when it may."""
    reached = max(ledger.end, ledger.claimed or 0)
    where = f"{partition.topic}/{partition.number} of log {partition.log_id}"
    if ledger.blocks and ledger.covered > ledger.end - ledger.start:
        return Misfit("", f"The ledger of {where} has blocks that overlap; `headrace verify` lists them.")
    if ledger.blocks and ledger.covered < ledger.end - ledger.start:
        missing = ledger.end - ledger.start - ledger.covered
        return Misfit("gap", f"The ledger of {where} misses {missing} offsets between {ledger.start} and {ledger.end}.")
    if ledger.claimed is not None and ledger.claimed <= ledger.end:
        return Misfit(
            "claim", f"The claim of {where} at offset {ledger.end} ends at {ledger.claimed}, before it starts."
        )
    if reached > log.end:
        return Misfit(
            "new_log",
            f"The ledger of {where} reaches offset {reached}, but the log ends at {log.end}: it was created anew, or "
            "lost records that it had acknowledged.",
        )
    if ledger.blocks and log.begin > ledger.end:
        return Misfit(
            "gap",
            f"The ledger of {where} ends at offset {ledger.end}, but the log begins at {log.begin}: "
            f"{log.begin - ledger.end} records expired before they were stored.",
        )
    return None
