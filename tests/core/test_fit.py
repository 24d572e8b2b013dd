"""When a ledger does not fit its log."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.blocks import Partition
from schemas.fit import LedgerExtent, LogExtent, Misfit, find_misfit

PARTITION = Partition("log", "events.collected", 3)


def misfit(ledger: LedgerExtent, log: LogExtent) -> Misfit:
    found = find_misfit(PARTITION, ledger, log)
    assert found is not None
    return found


def repair(ledger: LedgerExtent, log: LogExtent) -> str | None:
    found = find_misfit(PARTITION, ledger, log)
    return None if found is None else found.repair


def stored(end: int, claimed: int | None = None) -> LedgerExtent:
    return LedgerExtent(blocks=2, start=0, end=end, covered=end, claimed=claimed)


def test_an_empty_ledger_fits_every_log() -> None:
    assert repair(LedgerExtent(), LogExtent(0, 0)) is None
    assert repair(LedgerExtent(), LogExtent(500, 900)) is None


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_ledger_that_ends_within_its_log_fits(end: int, before: int, behind: int) -> None:
    assert repair(stored(end), LogExtent(max(end - before, 0), end + behind)) is None


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_claim_on_records_that_the_log_has_fits(end: int, claimed: int) -> None:
    assert repair(stored(end, claimed=end + claimed), LogExtent(0, end + claimed)) is None


def test_a_log_that_ends_before_its_ledger_is_another_one() -> None:
    found = misfit(stored(80), LogExtent(0, 79))
    assert found.repair == "new_log"
    assert "events.collected/3" in found.sentence
    assert "80" in found.sentence
    assert "79" in found.sentence


def test_a_log_that_ends_before_a_claim_is_another_one() -> None:
    assert repair(stored(80, claimed=90), LogExtent(0, 89)) == "new_log"


def test_records_that_expired_unread_are_a_gap() -> None:
    found = misfit(stored(80), LogExtent(95, 200))
    assert found.repair == "gap"
    assert "15 records expired" in found.sentence


def test_a_ledger_that_misses_a_block_has_a_gap() -> None:
    assert repair(LedgerExtent(blocks=2, start=0, end=80, covered=70), LogExtent(0, 200)) == "gap"


def test_blocks_that_overlap_cannot_be_mended_by_itself() -> None:
    assert repair(LedgerExtent(blocks=3, start=0, end=80, covered=90), LogExtent(0, 200)) == ""


@given(st.integers(0, 80))
def test_a_claim_that_ends_before_it_starts_is_damaged(claimed: int) -> None:
    assert repair(stored(80, claimed=claimed), LogExtent(0, 200)) == "claim"
