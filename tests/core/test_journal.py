"""The journal keeps what it acknowledged through anything that can happen to a process or a disk."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.journal import Journal
from collector.journal_directory import JournalInUse
from collector.journal_format import BadHeader, Frame, Header, decode_header, encode_frame, encode_header, frames_in
from collector.segment_file import JournalDamaged
from collector.sink import SinkUnavailable

TOPICS = ("events.collected", "events.dead_letter")
HEADER = Header(UUID(int=7), 41, 1_000, 1_760_000_000_000, TOPICS)

a_frame = st.builds(
    Frame,
    topic=st.integers(0, 255),
    events=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**64 - 1),
    key=st.binary(max_size=60),
    value=st.binary(max_size=200),
)
some_frames = st.lists(a_frame, max_size=8)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


class Disk:
    """Stands in for os.pwrite: takes `space` more bytes, then refuses as a full disk does, in mid-write."""

    def __init__(self, space: int) -> None:
        self.space = space
        self._pwrite = os.pwrite

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        if self.space <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._pwrite(fd, memoryview(data)[: self.space], at)
        self.space -= written
        return written


def no_sync(_fd: int) -> None:
    """fdatasync for tests that do not cut the power."""


def open_journal(directory: Path, sync: Callable[[int], None] = no_sync, **options: int) -> Journal:
    return Journal.open(directory, TOPICS, clock=Clock(), sync=sync, **options)


def next_frames(journal: Journal, count: int = 1, size: int = 20) -> list[Frame]:
    first = journal.next_sequence
    return [Frame(0, 2, n, b"key", n.to_bytes(8, "big") * (size // 8 + 1)) for n in range(first, first + count)]


async def append(journal: Journal, count: int = 1, size: int = 20) -> None:
    await journal.append(next_frames(journal, count, size))


async def fill(journal: Journal) -> None:
    for _ in range(100):
        await append(journal, 1, size=300)


def segments_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def kept(journal: Journal) -> list[int]:
    """The sequences in the journal as a forwarder reads them."""
    found: list[int] = []
    segment = journal.segments.first
    while True:
        found += [frame.sequence for frame, _ in segment.read(segment.start, 1 << 20)]
        following = journal.segments.after(segment)
        if following is None:
            return found
        segment = following


# The format.


@given(some_frames)
def test_frames_are_read_as_they_were_written(frames: list[Frame]) -> None:
    data = b"".join(map(encode_frame, frames))
    read = list(frames_in(data))
    assert [frame for frame, _ in read] == frames
    assert not read or read[-1][1] == len(data)


@given(some_frames, st.integers(min_value=0))
def test_what_is_cut_off_anywhere_leaves_the_frames_before(frames: list[Frame], cut: int) -> None:
    encoded = list(map(encode_frame, frames))
    data = b"".join(encoded)
    data = data[: cut % (len(data) + 1)]
    whole = sum(1 for n in range(len(encoded)) if sum(map(len, encoded[: n + 1])) <= len(data))
    assert [frame for frame, _ in frames_in(data)] == frames[:whole]


@given(st.lists(a_frame, min_size=1, max_size=8), st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_leaves_the_frames_before(frames: list[Frame], place: int, change: int) -> None:
    encoded = list(map(encode_frame, frames))
    data = bytearray(b"".join(encoded))
    place %= len(data)
    data[place] ^= change
    whole = sum(1 for n in range(len(encoded)) if sum(map(len, encoded[: n + 1])) <= place)
    assert [frame for frame, _ in frames_in(bytes(data))] == frames[:whole]


@given(some_frames, st.binary(max_size=100))
def test_zeros_after_the_frames_are_not_frames(frames: list[Frame], rubbish: bytes) -> None:
    data = b"".join(map(encode_frame, frames)) + bytes(100) + rubbish
    assert [frame for frame, _ in frames_in(data)] == frames


def test_a_header_is_read_as_it_was_written() -> None:
    data = encode_header(HEADER)
    assert decode_header(data + b"frames") == (HEADER, len(data))


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_header_is_refused(place: int, change: int) -> None:
    data = bytearray(encode_header(HEADER))
    data[place % len(data)] ^= change
    with pytest.raises(BadHeader):
        decode_header(bytes(data))


@given(st.integers(min_value=0))
def test_a_header_that_is_cut_short_is_refused(cut: int) -> None:
    data = encode_header(HEADER)
    with pytest.raises(BadHeader):
        decode_header(data[: cut % len(data)])


# Numbers, counts and identity.


async def test_the_identity_the_numbers_and_the_counts_go_on_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, 3)
    await journal.close()
    again = open_journal(tmp_path)
    assert (again.id, again.next_sequence, again.accepted_events) == (journal.id, 4, 6)
    await append(again)
    assert kept(again) == [1, 2, 3, 4]
    await again.close()


async def test_the_counts_survive_the_deletion_of_every_segment_that_had_records(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=500)
    for _ in range(20):
        await append(journal, 5)
    journal.segments.active.filled_at -= 3_600
    await journal.end_aged_segment()
    while journal.segments.first is not journal.segments.active:
        await journal.delete_first()
    assert journal.segments.records == 0
    await journal.close()
    again = open_journal(tmp_path)
    assert (again.next_sequence, again.accepted_events, again.segments.records) == (101, 200, 0)
    await again.close()


async def test_an_empty_segment_is_not_left_behind_by_restarts(tmp_path: Path) -> None:
    for _ in range(5):
        await open_journal(tmp_path).close()
    assert len(segments_in(tmp_path)) == 1


async def test_a_directory_serves_one_process(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(JournalInUse, match="give each collector its own"):
        open_journal(tmp_path)
    await journal.close()
    await open_journal(tmp_path).close()


async def test_a_record_with_another_number_than_the_next_is_a_mistake(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(ValueError, match="is numbered 9"):
        await journal.append([Frame(0, 1, 9, b"", b"")])
    await journal.close()


# Groups and segments.


async def test_senders_at_the_same_time_share_an_fsync(tmp_path: Path) -> None:
    syncs: list[int] = []
    journal = open_journal(tmp_path, syncs.append)
    await asyncio.gather(*(append(journal) for _ in range(200)))
    assert len(syncs) <= 3
    assert kept(journal) == list(range(1, 201))
    await journal.close()


async def test_nothing_can_be_read_before_it_is_synced(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    journal = open_journal(tmp_path, lambda _fd: seen.append(kept(journal)))
    await append(journal, 3)
    await append(journal)
    assert seen == [[], [1, 2, 3]]
    await journal.close()


async def test_a_segment_ends_by_size_and_by_age_but_never_empty(tmp_path: Path) -> None:
    clock = Clock()
    journal = Journal.open(tmp_path, TOPICS, segment_bytes=300, segment_seconds=5, clock=clock, sync=no_sync)
    await append(journal, 10)
    await append(journal)
    assert len(segments_in(tmp_path)) == 2
    clock.now += 4
    await journal.end_aged_segment()
    assert len(segments_in(tmp_path)) == 2
    clock.now += 1
    await journal.end_aged_segment()
    clock.now += 100
    await journal.end_aged_segment()
    assert len(segments_in(tmp_path)) == 3
    await journal.close()


# Damage.


async def test_a_torn_tail_is_cut_and_its_numbers_are_not_given_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, 3)
    await journal.close()
    (path,) = segments_in(tmp_path)
    torn = encode_frame(Frame(0, 1, 4, b"key", bytes(50)))[:-1]
    path.write_bytes(path.read_bytes() + torn)
    again = open_journal(tmp_path)
    assert kept(again) == [1, 2, 3]
    assert again.next_sequence > 4
    await append(again)
    assert kept(again)[3:] == [again.next_sequence - 1]
    await again.close()


async def test_frames_that_a_failed_write_left_are_not_read_beside_the_segment_that_follows(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=100)
    await append(journal, 3)
    await append(journal, 3)
    await journal.close()
    first = segments_in(tmp_path)[0]
    first.write_bytes(first.read_bytes() + encode_frame(Frame(0, 1, 4, b"left", b"over")))
    again = open_journal(tmp_path)
    assert kept(again) == [1, 2, 3, 4, 5, 6]
    assert again.accepted_events == 12
    await again.close()


async def test_a_segment_without_its_header_stops_the_start(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, 3)
    await journal.close()
    (path,) = segments_in(tmp_path)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(JournalDamaged, match="Move the journal's directory away"):
        open_journal(tmp_path)


# Full and failing disks.


async def test_a_full_disk_refuses_whole_records_and_takes_them_again_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    await append(journal, 2)
    disk = Disk(space=1_000)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    results = await asyncio.gather(*(append(journal, 1, size=400) for _ in range(10)), return_exceptions=True)
    assert [type(result) for result in results] == [SinkUnavailable] * 10
    assert "No space left" in str(results[0])
    writable = [journal.writable]
    assert kept(journal) == [1, 2]
    with pytest.raises(SinkUnavailable):
        await append(journal)
    disk.space = 1 << 20
    await journal.end_aged_segment()
    writable.append(journal.writable)
    assert writable == [False, True]
    await append(journal, 2)
    assert kept(journal) == [1, 2, 3, 4]
    await journal.close()
    monkeypatch.undo()
    again = open_journal(tmp_path)
    assert (kept(again), again.accepted_events, again.next_sequence) == ([1, 2, 3, 4], 8, 5)
    await again.close()


async def test_a_failed_fsync_ends_the_segment_before_the_records_it_was_for(tmp_path: Path) -> None:
    failing = False

    def sync(_fd: int) -> None:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = open_journal(tmp_path, sync)
    await append(journal)
    failing = True
    with pytest.raises(SinkUnavailable, match="Input/output error"):
        await append(journal)
    failing = False
    await append(journal)
    assert kept(journal) == [1, 2]
    assert len(segments_in(tmp_path)) == 2
    await journal.close()


async def test_a_full_journal_refuses_until_a_segment_is_deleted(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, max_bytes=4_000, segment_bytes=1_000)
    with pytest.raises(SinkUnavailable, match="full") as refused:
        await fill(journal)
    assert refused.value.retry_after > 0
    before = kept(journal)
    await journal.delete_first()
    await append(journal, 1, size=300)
    assert kept(journal)[-1] == before[-1] + 1
    await journal.close()
