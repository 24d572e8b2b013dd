"""How many partitions the embedded log of a data folder has."""

from pathlib import Path

import pytest

from headrace.stack_logs import note_partitions


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_PARTITIONS", raising=False)


@pytest.mark.parametrize(("workers", "partitions"), [(1, 1), (2, 2), (5, 5)])
def test_a_new_folder_has_one_for_each_worker(tmp_path: Path, workers: int, partitions: int) -> None:
    assert note_partitions(tmp_path, workers) == partitions


def test_a_folder_keeps_the_number_that_it_began_with(tmp_path: Path) -> None:
    note_partitions(tmp_path, 3)
    assert note_partitions(tmp_path, 8) == 3


def test_a_folder_of_before_the_number_was_noted_keeps_four(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    assert note_partitions(tmp_path, 1) == 4


def test_what_is_set_counts_and_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PARTITIONS", "6")
    assert note_partitions(tmp_path, 1) == 6
    monkeypatch.delenv("HEADRACE_PARTITIONS")
    assert note_partitions(tmp_path, 1) == 6
