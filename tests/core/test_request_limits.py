from collector.ids import RandomPool, mint_uuid7
from collector.limits import RateLimiter
from tests.collecting import Clock


def test_two_seconds_worth_of_events_pass_at_once_and_the_next_waits() -> None:
    rates = RateLimiter(Clock())
    assert rates.take("acme", 10, 20) == 0
    assert rates.take("acme", 10, 1) == 1


def test_tokens_come_back_with_time_and_never_exceed_the_burst() -> None:
    clock = Clock()
    rates = RateLimiter(clock)
    rates.take("acme", 10, 20)
    clock.now += 0.5
    assert rates.take("acme", 10, 6) == 1
    assert rates.take("acme", 10, 5) == 0
    clock.now += 1_000
    assert rates.take("acme", 10, 20) == 0
    assert rates.take("acme", 10, 1) > 0


def test_a_request_larger_than_the_burst_passes_and_leaves_a_debt() -> None:
    clock = Clock()
    rates = RateLimiter(clock)
    assert rates.take("acme", 10, 1_000) == 0
    assert rates.take("acme", 10, 1) == 99
    clock.now += 99
    assert rates.take("acme", 10, 1) == 0


def test_who_is_in_debt_is_refused_before_the_events_are_counted() -> None:
    rates = RateLimiter(Clock())
    assert rates.take("acme", 10, 0) == 0
    rates.take("acme", 10, 30)
    assert rates.take("acme", 10, 0) == 1


def test_tenants_do_not_share_a_rate_and_none_is_no_limit() -> None:
    rates = RateLimiter(Clock())
    rates.take("acme", 10, 20)
    assert rates.take("bolt", 10, 20) == 0
    assert rates.take("free", None, 1_000_000) == 0


def test_a_minted_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    assert mint_uuid7(0x0192_F0C1_7A7A, b"\xff" * 10) == "0192f0c1-7a7a-7fff-bfff-ffffffffffff"
    assert mint_uuid7(1, b"\x00" * 10) < mint_uuid7(2, b"\x00" * 10)


def test_a_pool_of_random_bytes_gives_as_many_as_asked_for_and_none_of_them_twice() -> None:
    pool = RandomPool()
    given = [pool(10) for _ in range(2_000)]
    assert {len(each) for each in given} == {10}
    assert len(set(given)) == len(given)
    assert len(pool(4_096)) == 4_096
