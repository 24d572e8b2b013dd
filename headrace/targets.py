"""Where the sending commands send to: a collector's URL and a write key, given or those of the running stack."""

import os
from dataclasses import dataclass
from pathlib import Path

from headrace.endpoints import DEFAULT_PORT_BASE, Endpoints
from headrace.runfile import read_run_file
from schemas.settings import CommonSettings
from schemas.tenants import load_tenants


class NoWriteKey(Exception):
    """No write key was given and none can be found; one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """A collector and the key of the tenant whose events it gets."""

    url: str
    write_key: str


def find_target(url: str | None, write_key: str | None, port_base: int | None) -> Target:
    """What is given, else what the stack at `port_base` has. Raises NoWriteKey and TenantsError."""
    return Target(url or Endpoints.found(port_base).collector_url, write_key or _first_write_key(port_base))


def _first_write_key(port_base: int | None) -> str:
    given = os.environ.get("HEADRACE_PORT_BASE", DEFAULT_PORT_BASE) if port_base is None else port_base
    note = read_run_file(int(given))
    path = Path(note["tenants_file"]) if note else CommonSettings().tenants_file
    if note or path.exists():
        for key in load_tenants(path).by_write_key:
            return key
    raise NoWriteKey(
        "There is no write key: give --write-key, or start a stack with `headrace up` (and name its --port-base)."
    )
