"""The short form of `make chaos`: half a minute of faults, and the schedule that a seed makes."""

from itertools import islice
from pathlib import Path

import pytest

from headrace.faults import POINTS
from tests.chaos.kinds import ALONE, KINDS
from tests.chaos.run import run
from tests.chaos.schedule import plan
from tests.stack import BROKERS, new_stack

SHORT = (
    "kill worker",
    "kill collector",
    "kill clickhouse",
    "kill broker",
    "cut broker",
    "lose clickhouse's answers",
    "lose collector's answers",
    "a view throws",
    "disk full",
    "die after events",
    "die before commit",
)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", BROKERS)
def test_under_faults_of_every_sort_nothing_is_lost_doubled_or_miscounted(tmp_path: Path, broker: str) -> None:
    with new_stack(tmp_path, broker) as stack:
        report = run(stack, seed=11, seconds=25, kinds=SHORT, recovering=0.15)
    print(report.table())
    assert report.outcome.faults == [], f"the data is in {tmp_path}"
    assert report.record.accepted
    assert report.injected


def test_a_seed_makes_one_schedule_and_another_seed_another() -> None:
    first, again, other = (list(islice(plan(seed, tuple(KINDS), ALONE), 100)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_schedule_deals_every_kind_and_mixes_none_that_has_to_be_alone() -> None:
    steps = list(islice(plan(5, tuple(KINDS), ALONE), len(KINDS)))
    assert {kind for step in steps for kind in step.kinds} == set(KINDS)
    assert [step for step in steps if len(step.kinds) > 1 and ALONE & set(step.kinds)] == []
    assert {f"die {point.replace('_', ' ')}" for point in POINTS} <= set(KINDS)
