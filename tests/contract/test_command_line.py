"""The program as a whole: which commands there are, and what one of them has to load."""

import json
import subprocess
import sys

import pytest
from typer.main import get_group

from headrace.cli import COMMANDS, new_app

_LOADED = """
import json, sys
from headrace.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_the_program_has_each_command_by_its_name() -> None:
    assert set(get_group(new_app()).commands) == set(COMMANDS)
    assert set(get_group(new_app(["dead-letters"])).commands) == {"dead-letters"}


@pytest.mark.parametrize(
    ("command", "needless"), [("collector", "streams.writer"), ("send", "clickhouse_connect"), ("up", "streams.writer")]
)
def test_a_command_loads_nothing_that_only_others_need(command: str, needless: str) -> None:
    words = [sys.executable, "-c", _LOADED, command, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert f"headrace.commands.{command}" in loaded
    assert needless not in loaded


def test_a_command_that_does_not_exist_is_told_beside_those_that_do() -> None:
    done = subprocess.run([sys.executable, "-m", "headrace", "sned"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'sned'" in done.stderr
