"""Finds and drops deduplication tokens that ClickHouse has noted for rows it never stored.

A MergeTree table without replicas notes an insert's token in `deduplication_logs/`, and only then renames the insert's
part into place. A process that is killed between the two, and a rename that fails, leave a token without rows, and the
repetition that should store them would be dropped silently. Both steps are taken under one lock of the table, so only
the newest token can be of that kind. Form of a line, from ClickHouse's MergeTreeDeduplicationLog: operation (1 add,
2 drop), part's name, token's hash, with tabs between.
"""

import os
import re
import time
from pathlib import Path
from typing import Final

_PART: Final = re.compile(r"([^_]+)_(\d+)_(\d+)_\d+(?:_\d+)?")
_ADD: Final = b"1"
#: Seconds within which a running insert has long made its second step.
_SETTLED: Final = 0.1


def tokens_without_rows(path: Path) -> dict[Path, int]:
    """The logs of the data folder that end in such tokens, or in half a line, and the size (bytes) without them.

    While the engine runs, an insert between its two steps looks the same for a moment.
    """
    found = {}
    for folder in sorted(path.glob("store/*/*/deduplication_logs")):
        for log in _newest_first(folder):
            content = log.read_bytes()
            kept = _kept_size(content, folder.parent)
            if kept < len(content):
                found[log] = kept
            if content:
                break
    return found


def drop_tokens_without_rows(path: Path) -> list[str]:
    """Cut them off, so that a repeated insert stores its rows; the logs that were cut. The engine must not run."""
    found = tokens_without_rows(path)
    for log, size in found.items():
        with log.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    return [str(log.relative_to(path)) for log in found]


def has_lasting_token_without_rows(path: Path) -> bool:
    """Whether a failed insert left such a token behind; the running engine would drop the repetition by it."""
    before = tokens_without_rows(path)
    if not before:
        return False
    time.sleep(_SETTLED)
    return bool(before.items() & tokens_without_rows(path).items())


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("deduplication_log_*.txt"), key=lambda log: int(log.stem.rsplit("_", 1)[1]), reverse=True)


def _kept_size(content: bytes, table: Path) -> int:
    """How much of a log stands: not the newest part's lines where neither it nor a merge of it is in the table."""
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    newest = _added_part(lines[-1]) if lines else None
    if newest is None or _is_stored(newest, table):
        return len(whole)
    while lines and _added_part(lines[-1]) == newest:
        lines.pop()
    return sum(map(len, lines))


def _added_part(line: bytes) -> str | None:
    operation, name, _ = line.split(b"\t", 2)
    return name.decode() if operation == _ADD else None


def _is_stored(name: str, table: Path) -> bool:
    """Whether a part of the table covers the named one."""
    wanted = _PART.fullmatch(name)
    assert wanted is not None, f"ClickHouse names parts in a way this does not know: {name}"
    with os.scandir(table) as entries:
        parts = [_PART.fullmatch(entry.name) for entry in entries if entry.is_dir()]
    return any(
        part[1] == wanted[1] and int(part[2]) <= int(wanted[2]) and int(wanted[3]) <= int(part[3])
        for part in parts
        if part is not None
    )
