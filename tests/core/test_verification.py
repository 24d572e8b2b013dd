"""What verification decides without a database: retention's cutoff, and what differs between two tables."""

from datetime import date

import pytest

from warehouse.verification.findings import FIRST, Difference, Findings
from warehouse.verification.scope import Retention, quote


@pytest.mark.parametrize(
    ("today", "months", "cutoff"),
    [
        (date(2026, 11, 24), 24, date(2024, 11, 24)),
        (date(2026, 3, 31), 1, date(2026, 2, 28)),
        (date(2024, 3, 31), 1, date(2024, 2, 29)),
        (date(2026, 1, 5), 1, date(2025, 12, 5)),
        (date(2026, 1, 5), 1200, date(1970, 1, 1)),
    ],
)
def test_the_cutoff_is_so_many_calendar_months_ago(today: date, months: int, cutoff: date) -> None:
    assert Retention(months, today).cutoff() == cutoff


def test_a_tenant_with_months_of_its_own_has_its_own_cutoff() -> None:
    retention = Retention(24, date(2026, 11, 24), {"short": 1})
    assert retention.cutoff("short") == date(2026, 10, 24)
    assert retention.cutoff("other") == date(2024, 11, 24)


def test_the_first_kept_moment_is_the_day_after_the_cutoff() -> None:
    assert Retention(1, date(1970, 2, 1)).kept_from("any") == 86_400_000


def test_a_tenants_name_cannot_leave_its_literal() -> None:
    assert quote("a'b\\") == "'a\\'b\\\\'"
    condition = Retention(24, date(2026, 11, 24), {"o'neil": 1}).keeps("day")
    assert "['o\\'neil']" in condition


def compared(expected: dict[tuple[str], tuple[int, int]], found: dict[tuple[str], tuple[int, int]]) -> Findings:
    findings = Findings("rollup")
    findings.compare_rows(("app",), ("total", "users"), expected, found)
    return findings


def test_equal_tables_agree() -> None:
    findings = compared({("web",): (3, 2)}, {("web",): (3, 2)})
    assert (findings.agrees, findings.compared) == (True, 1)


def test_each_figure_that_differs_is_named_with_its_row() -> None:
    findings = compared({("web",): (3, 2)}, {("web",): (4, 2)})
    assert findings.first == [Difference("rollup", "app=web", "total", "3", "4")]


def test_a_row_that_is_missing_and_one_too_many_are_differences() -> None:
    findings = compared({("web",): (3, 2)}, {("shop",): (1, 1)})
    assert findings.first == [
        Difference("rollup", "app=web", "row", "total=3 users=2", "no row"),
        Difference("rollup", "app=shop", "row", "no row", "total=1 users=1"),
    ]


def test_all_differences_are_counted_and_the_first_are_kept() -> None:
    findings = compared({(str(number),): (1, 1) for number in range(100)}, {})
    assert (findings.differing, len(findings.first)) == (100, FIRST)
