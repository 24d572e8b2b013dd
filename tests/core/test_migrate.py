"""The migrations' SQL for one server and for a cluster."""

import re

from warehouse.migrate import Target, migrations, statements


def all_statements(target: Target) -> list[str]:
    return [sql for migration in migrations() for sql in statements(migration.sql, target)]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_nothing_is_left_open_in_any_statement() -> None:
    for target in (Target("d"), Target("d", cluster="c", password="p'w")):
        for sql in all_statements(target):
            assert not re.search(r"\{\w*(MergeTree|on_cluster|dedup\w*|retention\w*|database|dictionary_user)", sql), (
                sql
            )
            assert "personOf" not in sql


def test_on_a_cluster_every_table_is_replicated_and_created_on_it() -> None:
    for sql in all_statements(Target("d", cluster="events cluster")):
        assert "ON CLUSTER 'events cluster'" in sql, sql
        if sql.startswith("CREATE TABLE"):
            assert re.search(
                r"ENGINE = Replicated\w*MergeTree\('/clickhouse/tables/\{shard\}/d/\w+', '\{replica\}'", sql
            )
            assert "\n    replicated_deduplication_window" in sql.replace("SETTINGS ", "\n    ")


def test_on_one_server_no_table_is_replicated() -> None:
    for sql in all_statements(Target("d")):
        assert "Replicated" not in sql
        assert "ON CLUSTER" not in sql


def test_every_target_of_a_view_has_a_deduplication_window() -> None:
    sql = all_statements(Target("d"))
    targets = [found[1] for statement in sql if (found := re.search(r"MATERIALIZED VIEW .* TO (\w+) AS", statement))]
    assert len(targets) >= 9
    for name in targets:
        (table,) = [statement for statement in sql if re.match(rf"CREATE TABLE IF NOT EXISTS {name}\s", statement)]
        assert "non_replicated_deduplication_window = 10000" in table


def test_every_table_that_events_are_written_to_is_merged_seldom() -> None:
    sql = all_statements(Target("d"))
    targets = {found[1] for statement in sql if (found := re.search(r"MATERIALIZED VIEW .* TO (\w+) AS", statement))}
    seldom = {
        found[1]
        for statement in sql
        if (found := re.match(r"ALTER TABLE (\w+)\s+MODIFY SETTING merge_selector_base = 20", statement))
    }
    assert targets | {"events"} == seldom - {"session_overrides"} | {"identity_aliases"}
