"""When the embedded ClickHouse reloads a dictionary, on a clock of the test's own."""

from headrace.embedded.clickhouse_dictionaries import DictionaryReloader


class Engine:
    """One dictionary whose rows change all the time and whose reload takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.reloads: list[float] = []

    def ask(self, sql: str, output_format: str) -> str:  # noqa: ARG002
        if "system.dictionaries" in sql:
            return '["d", "users", "uuid", 1, 2]'
        if "create_table_query" in sql:
            return "SOURCE(CLICKHOUSE(INVALIDATE_QUERY 'SELECT 1'))"
        if sql.startswith("SYSTEM RELOAD"):
            self.reloads.append(self.now)
            self.now += self.seconds
        return str(self.now)


def reloads_in_a_minute(seconds: float) -> list[float]:
    engine = Engine(seconds)
    reloader = DictionaryReloader(engine.ask, lambda least, most: (least + most) / 2, lambda: engine.now)
    while engine.now < 60:
        assert reloader.reload_due() == {}
        engine.now += 0.5
    return engine.reloads


def test_a_small_dictionary_follows_its_lifetime() -> None:
    assert len(reloads_in_a_minute(0.01)) == 40


def test_reloading_a_large_dictionary_takes_a_fifth_of_the_time_at_the_most() -> None:
    assert len(reloads_in_a_minute(3)) == 4


def test_a_dictionary_that_takes_very_long_is_not_older_than_half_a_minute() -> None:
    first, second = reloads_in_a_minute(20)[:2]
    assert second - (first + 20) <= 31
