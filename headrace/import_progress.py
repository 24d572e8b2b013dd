"""How far an import is: what a progress file holds, and what becomes of it with every batch that is answered."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from headrace.importing import ImportBatch, Line, Position
from headrace.sending import Outcome, Refusal

#: Bytes at the beginning of a file that tell it from another.
_MARK: Final = 64 << 10
UNREADABLE: Final = "unreadable_line"


class ProgressError(Exception):
    """The progress file cannot be used; one sentence."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to `position` is answered: `accepted` events, and `rejected` ones by reason.

    `rejects_size` is how many bytes of the rejects file that is.
    """

    position: Position = field(default_factory=Position)
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejects_size: int = 0

    @property
    def rejections(self) -> int:
        """How many events were rejected, and lines that are none."""
        return sum(self.rejected.values())

    def after(self, batch: ImportBatch, outcome: Outcome) -> tuple[Self, bytes]:
        """The progress with one more batch that was answered, and what to add to the rejects file."""
        rejects = list(_rejects(batch, outcome))
        text = b"".join(orjson.dumps(reject, option=orjson.OPT_APPEND_NEWLINE) for reject in rejects)
        counts = Counter(self.rejected)
        counts.update(reject["reason"] for reject in rejects)
        last = batch.lines[-1]
        done = replace(
            self,
            position=Position(last.end, last.last),
            accepted=self.accepted + outcome.accepted,
            rejected=dict(counts),
            rejects_size=self.rejects_size + len(text),
        )
        return done, text


def _rejects(batch: ImportBatch, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The lines of a batch that were not taken, in their order."""
    refusals = {refusal.position: refusal for refusal in outcome.refused}
    if not refusals and len(batch.events) == len(batch.lines):
        return
    position = 0
    for line in batch.lines:
        if line.fault:
            yield _reject(line, Refusal(0, UNREADABLE, "", line.fault), line.event.decode(errors="replace"))
            continue
        if refusal := refusals.get(position):
            yield _reject(line, refusal, orjson.Fragment(line.event))
        position += 1


def _reject(line: Line, refusal: Refusal, event: Any) -> dict[str, Any]:
    where = {"line": line.number, "reason": refusal.reason, "field": refusal.field, "message": refusal.message}
    return {**where, "event": event}


class Mark(NamedTuple):
    """The first bytes of a file, hashed: they stay when lines are added to its end, and tell it from another."""

    size: int
    digest: str


def mark_of(path: Path, size: int = _MARK) -> Mark:
    """The mark of the first `size` bytes, or of as many as there are."""
    with path.open("rb") as file:
        first = file.read(size)
    return Mark(len(first), hashlib.sha256(first).hexdigest())


def load_progress(path: Path, source: Path | None) -> Progress:
    """What the progress file says, none where there is no file. Raises ProgressError."""
    try:
        content = json.loads(path.read_text())
        if source and mark_of(source, int(content["mark"][0])) != tuple(content["mark"]):
            raise ProgressError(f"{path} is the progress of another file; remove it, or name another one.")
        position = Position(int(content["offset"]), int(content["line"]))
        return Progress(position, int(content["accepted"]), dict(content["rejected"]), int(content["rejectsSize"]))
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgressError(f"The progress file {path} cannot be read: {error!r}; remove it to begin anew.") from error


def save_progress(path: Path, mark: Mark, progress: Progress) -> None:
    """Replace the progress file whole."""
    content = {
        "mark": mark,
        "offset": progress.position.offset,
        "line": progress.position.line,
        "accepted": progress.accepted,
        "rejected": dict(progress.rejected),
        "rejectsSize": progress.rejects_size,
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)
