"""Where `headrace up` notes what it runs, so that the other commands find the stack by its port base alone."""

import json
import os
import tempfile
from pathlib import Path
from typing import TypedDict


class RunFile(TypedDict):
    """What is noted of a stack: `pids` by program; the log's address, whether it is gone with its broker.

    `workers` is how many it has, also those that do not run now; `started` is true once everything was up.
    """

    supervisor: int
    data: str
    tenants_file: str
    broker: str
    log_forgets: bool
    workers: int
    started: bool
    pids: dict[str, int]


def run_file_path(port_base: int) -> Path:
    """The note of the stack at this port base; a user sees only their own."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"headrace-{os.getuid()}"
    return folder / f"{port_base}.json"


def write_run_file(port_base: int, content: RunFile) -> None:
    """Replace the note whole."""
    path = run_file_path(port_base)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)


def read_run_file(port_base: int) -> RunFile | None:
    """The note, None where there is none that can be read."""
    try:
        content: RunFile = json.loads(run_file_path(port_base).read_text())
    except (OSError, ValueError):
        return None
    return content


def remove_run_file(port_base: int) -> None:
    """Forget the stack."""
    run_file_path(port_base).unlink(missing_ok=True)
