"""The bench in small: scenarios run, account for every event, and leave a stack that verifies. No times."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.bodies import Bodies
from bench.publishing import REFERENCE, pages_of, read_results
from bench.results import ROOT
from bench.sizing import Costs, needs_of
from bench.stages import stage_of
from bench.traces import read_stacks

#: The others are as `python -m bench --quick` runs them, for minutes.
SHORT = ("plain", "import")


@pytest.mark.timeout(300)
def test_a_scenario_accounts_for_every_event_and_its_stack_verifies(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    only = [part for name in SHORT for part in ("--only", name)]
    command = [sys.executable, "-m", "bench", "--quick", *only, "--out", str(file)]
    environment = {**os.environ, "BENCH_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(file.read_text())["results"]
    assert len(results) >= len(SHORT)
    assert [(each["scenario"], each["verify"], each["faults"]) for each in results] == [
        (each["scenario"], 0, []) for each in results
    ]
    assert all(figure["value"] == figure["value"] for each in results for figure in each["figures"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["worker", "collector"])
def test_a_profile_gives_nearly_all_of_a_process_to_named_stages(program: str) -> None:
    command = [sys.executable, "-m", "bench", "profile", program, "--seconds", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("by stage\n")[2].partition("\n\n")[0].splitlines()
    shares = {line.split(maxsplit=2)[2]: float(line.split()[1].rstrip("%")) for line in lines}
    assert sum(share for stage, share in shares.items() if stage != "elsewhere") >= 90


def test_a_body_is_what_a_client_sends_and_is_made_for_what_becomes_of_it() -> None:
    bodies = Bodies(events=20, visitors=3, bad=True)
    ids: list[str] = []
    for _ in range(50):
        made = bodies.make(time.time_ns() // 1_000_000)
        batch = json.loads(made.body)["batch"]
        assert made.events == len(batch) == 20
        assert made.rejected == sum("type" not in event for event in batch)
        assert made.dead == sum(event["properties"].get("term") == 7 for event in batch)
        ids += [event["eventId"] for event in batch]
    assert len(ids) - len(set(ids)) == 50, "one second copy a body"


def test_a_stack_is_of_the_stage_of_its_innermost_frame_that_has_one() -> None:
    stack = ("Pipeline.prepare (streams.pipeline)", "validate (streams.core.validate)", "decode (json.decoder)")
    assert stage_of("worker", stack) == "validate"
    assert stage_of("worker", ("main (somewhere)",)) == "elsewhere"


def test_what_a_thread_used_before_it_waited_goes_to_what_it_was_seen_doing(tmp_path: Path) -> None:
    file = tmp_path / "stacks"
    file.write_text("loop;run (m);a (m) 30\nloop;run (m);b (m) 10\nloop;EpollSelector.select (selectors) 40\n")
    assert read_stacks(file) == {("run (m)", "a (m)"): 60, ("run (m)", "b (m)"): 20}


def test_the_documents_show_the_figures_of_the_reference() -> None:
    for path, text in pages_of(read_results(REFERENCE)).items():
        assert path.read_text() == text, f"{path.name} is not what `python -m bench publish` makes of the reference"


def test_sizing_grows_with_the_load_and_never_asks_for_less_than_one_of_each() -> None:
    costs = Costs({"collector": 10.0, "worker": 20.0, "broker": 5.0, "clickhouse": 10.0}, 150.0, 200.0, 300.0)
    small, large = needs_of(costs, 1_000_000), needs_of(costs, 100_000_000_000)
    assert (small.collectors, small.workers, small.partitions) == (1, 1, 4)
    assert large.workers == 7  # 192,901 events/s at the peak, 20 µs each, 60% of a core used
    assert large.partitions >= 2 * large.workers
    assert large.disk_gb == pytest.approx(150 * 100_000 * 24 / 1000)
