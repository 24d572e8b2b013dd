"""The tenants file: who may send, who may read, and each tenant's limits and tracking plan."""

import hashlib
import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from schemas.plan import TrackingPlan

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: the same, four times slower
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

log = structlog.get_logger(__name__)

# A colon would end the companyId inside a record's key, and the user inside Basic authentication.
CompanyId = Annotated[str, StringConstraints(pattern=r"^[^\s:]{1,200}$")]
WriteKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,200}$")]
TokenHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Origin = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]


class TenantsError(Exception):
    """The tenants file cannot be used; the message names the file, the tenant and the field."""


class Tenant(BaseModel):
    """One tenant. `rate_limit` is events per second, `retention_months` months; None: the installation's own.

    `accept_dead_letters`: however many of its events become dead letters, no partition is paused for them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    company_id: CompanyId
    write_keys: tuple[WriteKey, ...] = ()
    read_tokens: tuple[TokenHash, ...] = ()
    allowed_origins: tuple[Origin, ...] = ("*",)
    rate_limit: Annotated[int, Field(ge=1)] | None = None
    retention_months: Annotated[int, Field(ge=1, le=600)] | None = None
    accept_dead_letters: bool = False
    plan: TrackingPlan | None = None

    def has_read_token(self, token: str) -> bool:
        """Whether the token is one of this tenant's."""
        return hash_token(token) in self.read_tokens


class Tenants(NamedTuple):
    """Every tenant, by write key and by companyId."""

    by_write_key: Mapping[str, Tenant]
    by_company: Mapping[str, Tenant]

    @property
    def retention_months(self) -> dict[str, int]:
        """The months for which events are kept, of the tenants that say so."""
        return {company: t.retention_months for company, t in self.by_company.items() if t.retention_months}


def hash_token(token: str) -> str:
    """What the tenants file holds of a read token."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def index_tenants(tenants: Iterable[Tenant]) -> Tenants:
    """Tenants by their keys; raises TenantsError where two share a write key or a companyId."""
    by_write_key: dict[str, Tenant] = {}
    by_company: dict[str, Tenant] = {}
    for tenant in tenants:
        if by_company.setdefault(tenant.company_id, tenant) is not tenant:
            raise TenantsError(f"tenant {tenant.company_id} is there twice.")
        for key in tenant.write_keys:
            other = by_write_key.setdefault(key, tenant).company_id
            if other != tenant.company_id:
                raise TenantsError(
                    f"tenants {other} and {tenant.company_id} share a key in writeKeys; a write key names one tenant."
                )
    return Tenants(MappingProxyType(by_write_key), MappingProxyType(by_company))


def load_tenants(path: Path) -> Tenants:
    """Read the tenants file; raises TenantsError."""
    try:
        return _parse_tenants(path.read_bytes())
    except OSError as error:
        raise TenantsError(f"The tenants file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a date that does not exist
        raise TenantsError(f"The tenants file {path} is not YAML: {_problem_in(error)}.") from error
    except TenantsError as error:
        raise TenantsError(f"The tenants file {path}: {error}") from error


def _problem_in(error: Exception) -> str:
    """What YAML found and where, without the lines themselves, which may hold keys."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return str(error).partition("\n")[0].rstrip(".")


class _Loader(_SafeLoader):
    """YAML's safe loader that refuses a key given twice, where the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise TenantsError(f"{key.value} is there twice, again in line {key.start_mark.line + 1}; keep one.")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse_tenants(text: bytes) -> Tenants:
    top = yaml.load(text, _Loader)  # a SafeLoader
    entries = top.get("tenants") if isinstance(top, dict) else None
    if not isinstance(entries, dict) or set(top) != {"tenants"}:
        raise TenantsError("it has to hold `tenants:` and nothing else, a mapping of companyId to its fields.")
    return index_tenants(_parse_tenant(company_id, fields) for company_id, fields in entries.items())


def _parse_tenant(company_id: object, fields: object) -> Tenant:
    if not isinstance(company_id, str):
        raise TenantsError(f"companyId {company_id} is not text; put it in quotes.")
    if not isinstance(fields, dict) or "companyId" in fields or "company_id" in fields:
        raise TenantsError(f"tenant {company_id}: it has to be a mapping of fields, such as writeKeys (not companyId).")
    try:
        return Tenant.model_validate({"companyId": company_id, **fields}, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "its fields"
        raise TenantsError(f"tenant {company_id}, field {field}: {first['msg']}.") from error


class TenantsFile:
    """The tenants as the file has them now, read again when it changes.

    `check_every` is in seconds of `clock`. The first reading raises TenantsError; a later one that fails keeps the
    tenants there were, and warns once for each broken version.
    """

    def __init__(self, path: Path, check_every: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._check_every, self._clock = path, check_every, clock
        self._checked = clock()
        # Before reading: a change in between is then seen as one.
        self._stamp = _stamp(path)
        self._tenants = load_tenants(path)

    def current(self) -> Tenants:
        """The tenants of the newest version of the file that could be read."""
        now = self._clock()
        if now - self._checked >= self._check_every:
            self._checked = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._tenants

    def _reload(self) -> None:
        try:
            self._tenants = load_tenants(self._path)
        except TenantsError as error:
            log.warning("tenants_file_broken", file=str(self._path), error=str(error), action="the old tenants stay")
        else:
            log.info("tenants_file_read", file=str(self._path), tenants=len(self._tenants.by_company))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


_FIRST_FILE = """\
# Who may send (writeKeys) and read (readTokens, as sha256:<hex of the token's SHA-256>). Read again on change.
# A tenant may also have: allowedOrigins, rateLimit (events/s), retentionMonths, acceptDeadLetters, plan.
"""


def write_tenants(path: Path, company_id: str, write_key: str, read_token: str) -> Tenant:
    """Create a tenants file with one tenant, readable by its owner alone; only the hash of the token is stored.

    Raises TenantsError where the file exists or a value is not usable.
    """
    fields = {"writeKeys": [write_key], "readTokens": [hash_token(read_token)], "allowedOrigins": ["*"]}
    tenant = _parse_tenant(company_id, fields)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(_FIRST_FILE + yaml.safe_dump({"tenants": {company_id: fields}}, sort_keys=False))
            os.fsync(file.fileno())
        os.link(draft, path)  # whole or not at all, and never over a file that is there
    except FileExistsError as error:
        raise TenantsError(f"The tenants file {path} exists already; it was left as it is.") from error
    finally:
        draft.unlink(missing_ok=True)
    return tenant
