"""What a block is after each half of the pipeline: prepared, then settled."""

from dataclasses import dataclass, field

from schemas.blocks import Accounts, BlockRows
from schemas.records import DeadLetter
from schemas.stages import EnrichedRun, Rejection


@dataclass(slots=True)
class Prepared:
    """A block after the stages that look at the event alone; `events` can be stored, second copies among them."""

    journals: dict[str, int]
    records: int
    redelivered: int = 0
    events: int = 0
    runs: list[EnrichedRun] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    first_received_at: int = 0
    last_received_at: int = 0

    def is_redelivered(self, journal: str, sequence: int) -> bool:
        """Whether the journal sent this record before; journals send in order, so the highest sequence tells."""
        if not journal:
            return False
        if sequence <= self.journals.get(journal, -1):
            self.redelivered += 1
            return True
        self.journals[journal] = sequence
        return False

    def note_received(self, at: int) -> None:
        """Keep the first and last time of receipt of the block."""
        self.first_received_at = min(self.first_received_at or at, at)
        self.last_received_at = max(self.last_received_at, at)

    def add(self, following: "Prepared") -> None:
        """Take over what was prepared of the records that follow."""
        self.journals = following.journals
        self.records += following.records
        self.redelivered += following.redelivered
        self.events += following.events
        self.runs += following.runs
        self.rejections += following.rejections
        self.letters += following.letters
        if following.last_received_at:
            self.note_received(following.first_received_at)
            self.note_received(following.last_received_at)

    def accounts(self, stored: int, dead: int = 0) -> Accounts:
        """The block's figures once `stored` of its events are rows, and `dead` of them letters."""
        return Accounts(
            records=self.records,
            redelivered=self.redelivered,
            stored=stored,
            duplicate=self.events + len(self.rejections) - stored - dead,
            dead=dead,
            journals=self.journals,
            first_received_at=self.first_received_at,
            last_received_at=self.last_received_at,
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """A block ready to be written."""

    rows: BlockRows
    accounts: Accounts
