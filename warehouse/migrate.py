"""Applies the numbered SQL files of `migrations/` in order and records each in `schema_migrations`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warehouse.client import ClickHouse

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Inserts under a token are recognised as repeated while they are among the newest of a table.
DEDUPLICATION_WINDOW: Final = 10_000
#: personOf(visitor): the linked user if any, then that user's person if aliased.
_PERSON_OF = re.compile(r"personOf\(((?:[^()]|\([^()]*\))*)\)")
_ENGINE = re.compile(r"\{(\w*MergeTree):(\w+)(?:,(\w+))?\}")


@dataclass(frozen=True, slots=True)
class Target:
    """What the SQL files leave open: where the tables live, and on how many servers."""

    database: str
    cluster: str = ""
    retention_months: int = 24
    username: str = "default"
    password: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """The files of `migrations/`, in order."""
    files = sorted(MIGRATIONS.glob("*.sql"))
    return [Migration(int(file.stem.split("_")[0]), file.stem, file.read_text()) for file in files]


def statements(sql: str, target: Target) -> Iterator[str]:
    """A file's statements for one target: engines, cluster clause, database and retention filled in."""
    text = re.sub(r"^--.*\n", "", sql, flags=re.MULTILINE)
    text = _ENGINE.sub(lambda match: _engine(match, target), text)
    text = _PERSON_OF.sub(lambda match: _person_of(match[1]), text)
    window = "replicated_deduplication_window" if target.cluster else "non_replicated_deduplication_window"
    filled = {
        "{on_cluster}": _on_cluster(target),
        "{deduplication}": f"{window} = {DEDUPLICATION_WINDOW}",
        "{retention_months}": str(target.retention_months),
        "{database}": target.database,
        "{dictionary_user}": _dictionary_user(target),
    }
    for name, value in filled.items():
        text = text.replace(name, value)
    yield from (part.strip() for part in text.split(";\n") if part.strip())


def _engine(match: re.Match[str], target: Target) -> str:
    engine, table, version = match.groups()
    if not target.cluster:
        return f"{engine}({version or ''})"
    path = f"'/clickhouse/tables/{{shard}}/{target.database}/{table}', '{{replica}}'"
    return f"Replicated{engine}({path}{', ' + version if version else ''})"


def _person_of(visitor: str) -> str:
    user = f"dictGetOrDefault('{{database}}.visitor_users', 'user', {visitor}, {visitor})"
    return f"dictGetOrDefault('{{database}}.user_persons', 'person', {user}, {user})"


def _dictionary_user(target: Target) -> str:
    if not target.password:
        return ""
    return f"USER {_quoted(target.username)} PASSWORD {_quoted(target.password)}"


def set_retention(client: ClickHouse, target: Target, months_of: Mapping[str, int]) -> None:
    """Keep events for the target's months, and those of the tenants in `months_of` for theirs; rollups stay."""
    clauses = [
        f"toDateTime(timestamp) + toIntervalMonth({months}) DELETE WHERE companyId = {_quoted(company)}"
        for company, months in sorted(months_of.items())
    ]
    others = f" DELETE WHERE companyId NOT IN ({', '.join(map(_quoted, sorted(months_of)))})" if months_of else ""
    clauses.append(f"toDateTime(timestamp) + toIntervalMonth({target.retention_months}){others}")
    for table in ("events", "event_ids"):
        # A change of the TTL rewrites the table, so it is made only where there is one.
        (stated,) = client.rows(
            "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
            {"name": table},
        )[0]
        if all(clause in stated for clause in clauses) and stated.count("toIntervalMonth(") == len(clauses):
            continue
        client.command(f"ALTER TABLE {table} {_on_cluster(target)} MODIFY TTL {', '.join(clauses)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _on_cluster(target: Target) -> str:
    return f"ON CLUSTER '{target.cluster}'" if target.cluster else ""


def apply_migrations(client: ClickHouse, target: Target) -> list[str]:
    """Creates the database and applies what is not applied yet; returns the names applied now."""
    on_cluster = _on_cluster(target)
    client.command(f"CREATE DATABASE IF NOT EXISTS {target.database} {on_cluster}", database="default")
    engine = _engine(_ENGINE.match("{MergeTree:schema_migrations}"), target)  # type: ignore[arg-type]
    client.command(
        f"CREATE TABLE IF NOT EXISTS schema_migrations {on_cluster} (number UInt32, name String, "
        f"appliedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')) ENGINE = {engine} ORDER BY number"
    )
    done = {row[0] for row in client.rows("SELECT number FROM schema_migrations")}
    applied = []
    for migration in migrations():
        if migration.number in done:
            continue
        for statement in statements(migration.sql, target):
            client.command(statement)
        client.command(
            "INSERT INTO schema_migrations (number, name) VALUES ({number:UInt32}, {name:String})",
            parameters={"number": migration.number, "name": migration.name},
        )
        applied.append(migration.name)
    return applied
