"""Which faults a run injects when: a pure function of its seed."""

import random
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """Kinds that hold at the same time, for how long (s), whether recovery is waited for, the pause after (s)."""

    kinds: tuple[str, ...]
    hold: float
    recover: bool
    pause: float
    seed: int


def plan(seed: int, kinds: Sequence[str], alone: Collection[str], recovering: float = 0.6) -> Iterator[Step]:
    """Steps without end. Every kind comes once before any comes again; a third of the steps are two faults at once.

    `recovering` is the share of steps after which recovery is waited for.
    """
    rng = random.Random(seed)
    deck: list[str] = []
    while True:
        if not deck:
            deck = rng.sample(kinds, len(kinds))
        chosen = [deck.pop()]
        if chosen[0] not in alone and deck and deck[-1] not in alone and rng.random() < 0.34:
            chosen.append(deck.pop())
        hold = rng.choice((0.0, 0.5, 1.0, 2.0, 4.0))
        yield Step(tuple(chosen), hold, rng.random() < recovering, rng.random() * 2, rng.getrandbits(32))
