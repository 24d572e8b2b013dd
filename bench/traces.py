"""Reads what the sampler wrote: stacks with how often each was seen, and their flame graph form."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

Stack = tuple[str, ...]
_FRAME: Final = re.compile(r'  File "(.+)", line \d+ in (.+)')
_ROOTS: Final = ("site-packages/", "lib/python3.", "/")


def read_stacks(path: Path) -> Counter[Stack]:
    """Stacks, outermost frame first, a frame as `function (module)`."""
    return Counter(_stacks(path.read_text(errors="replace")))


def _stacks(text: str) -> Iterator[Stack]:
    frames: list[str] = []
    for line in text.splitlines():
        if found := _FRAME.match(line):
            frames.append(f"{found[2]} ({_module(found[1])})")
        elif frames:
            yield tuple(reversed(frames))
            frames = []
    if frames:
        yield tuple(reversed(frames))


def _module(path: str) -> str:
    """schemas.codec for …/schemas/codec.py, wherever it is installed."""
    _, mark, tail = path.rpartition("site-packages/")
    if not mark:
        root = str(Path(__file__).parents[1]) + "/"
        tail = path.removeprefix(root) if path.startswith(root) else re.sub(r".*/lib/python3\.\d+/", "", path)
    return tail.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def folded(stacks: Counter[Stack]) -> str:
    """`frame;frame;… count` lines, the form that flame graph programs read."""
    return "".join(f"{';'.join(stack)} {seen}\n" for stack, seen in sorted(stacks.items()))
