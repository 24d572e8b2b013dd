"""How many partitions the embedded log of a data folder has, and what workers are told of blocks with so many."""

from pathlib import Path

import pytest
import structlog

from headrace.stack_logs import block_settings, note_partitions
from schemas.topics import TopicError


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_PARTITIONS", raising=False)
    monkeypatch.delenv("HEADRACE_BLOCK_MAX_BYTES", raising=False)
    monkeypatch.delenv("HEADRACE_BLOCKS_AT_ONCE", raising=False)


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


@pytest.mark.parametrize("text", ["", "two", "0", "-1", "10001", "1.5", "9" * 5_000, "\ufffd"])
def test_a_note_that_is_no_number_of_partitions_ends_with_a_sentence_and_stays(tmp_path: Path, text: str) -> None:
    note = tmp_path / "partitions"
    note.write_text(text)
    with pytest.raises(TopicError) as raised:
        note_partitions(tmp_path, 1)
    assert str(raised.value).startswith(f"{note} holds {text[:40]!r} where the number of partitions")
    assert str(raised.value).endswith("or set HEADRACE_PARTITIONS.")
    assert note.read_text() == text


def test_a_note_that_is_no_text_ends_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "partitions").write_bytes(b"\xff\x00")
    with pytest.raises(TopicError, match="HEADRACE_PARTITIONS"):
        note_partitions(tmp_path, 1)


def test_a_broken_note_is_mended_by_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "partitions").write_text("two")
    monkeypatch.setenv("HEADRACE_PARTITIONS", "2")
    assert note_partitions(tmp_path, 1) == 2
    monkeypatch.delenv("HEADRACE_PARTITIONS")
    assert note_partitions(tmp_path, 1) == 2


@pytest.mark.parametrize(("workers", "idle"), [(2, False), (3, False), (8, True)])
def test_more_workers_than_partitions_are_told_of(tmp_path: Path, workers: int, idle: bool) -> None:
    (tmp_path / "partitions").write_text("3\n")
    with structlog.testing.capture_logs() as lines:
        assert note_partitions(tmp_path, workers) == 3
    told = {"event": "workers_idle", "log_level": "warning", "workers": workers, "partitions": 3}
    assert lines == ([told] if idle else [])


@pytest.mark.parametrize(
    ("partitions", "workers", "told"),
    [
        (1, 1, {"HEADRACE_BLOCK_MAX_BYTES": "12000000"}),
        (4, 1, {}),
        (2, 2, {"HEADRACE_BLOCK_MAX_BYTES": "12000000", "HEADRACE_BLOCKS_AT_ONCE": "1"}),
        (4, 2, {"HEADRACE_BLOCKS_AT_ONCE": "1"}),
    ],
)
def test_blocks_are_larger_with_one_partition_a_worker_and_stored_singly_by_several_workers(
    partitions: int, workers: int, told: dict[str, str]
) -> None:
    assert block_settings(partitions, workers) == told


def test_what_is_set_of_blocks_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BLOCK_MAX_BYTES", "8000000")
    assert block_settings(2, 2) == {"HEADRACE_BLOCKS_AT_ONCE": "1"}
    monkeypatch.setenv("HEADRACE_BLOCKS_AT_ONCE", "2")
    assert block_settings(2, 2) == {}
