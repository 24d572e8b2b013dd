"""`headrace collector`: wires the HTTP side, the journal and the log, and serves until SIGTERM."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from schemas.settings import HeadraceSettings


class JournalSettings(HeadraceSettings):
    """The collector's journal on local disk."""

    journal: Literal["when_away", "always"] = Field(
        "when_away",
        description="when_away: only while the log is away (the spool); always: for a log that may forget, "
        "kept until ClickHouse has the events",
    )
    journal_dir: Path = Field(Path("data/journal"), description="folder of the journal, on a disk that survives")
    journal_max_bytes: int = Field(
        1 << 30, ge=1 << 20, description="bytes of the journal at the most; full: the collector answers 503"
    )
    log_ack_seconds: float = Field(5.0, gt=0, description="the log is away when it has not acknowledged after this")
