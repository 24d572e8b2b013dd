"""`python -m bench`: every scenario, or some, as one table and one JSON file; `profile` and `publish` beside it."""

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.context import Bench
from bench.profiling import PROGRAMS, Profile, profile
from bench.publishing import REFERENCE, merge_results, pages_of, read_results
from bench.report import table_of
from bench.results import ROOT, Result, load_average, machine_facts
from bench.scenarios import SCENARIOS

_RESULTS = ROOT / "bench/results"
app = typer.Typer(add_completion=False, help="Measures the version that is checked out.")


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SCENARIOS)}; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="Every scenario in small: accounting, no figures.")] = False,
    out: Annotated[Path | None, typer.Option(help="The JSON file. Default: bench/results/TIME.json.")] = None,
) -> None:
    """Run the scenarios. Exit 1 where an event is not accounted for or `headrace verify` does not exit 0."""
    if context.invoked_subcommand:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the stack is stopped
    if unknown := set(only or ()) - set(SCENARIOS):
        raise typer.BadParameter(f"There is no scenario {', '.join(sorted(unknown))}.")
    file = out or _RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    facts, results = machine_facts(), list[Result]()
    for name in only or SCENARIOS:
        with _progress() as progress:
            bench = Bench(quick, progress, progress.add_task(name, total=None))
            results += SCENARIOS[name](bench)
        _write(file, facts, results)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table_of(results))
    console.print(f"Load average {load_average()} now; written to {file}.")
    raise typer.Exit(0 if all(result.sound for result in results) else 1)


@app.command("profile")
def show_profile(
    program: Annotated[str, typer.Argument(help=f"One of {', '.join(PROGRAMS)}.")],
    per_request: Annotated[int, typer.Option(help="Events a request.")] = 20,
    seconds: Annotated[float, typer.Option(help="How long to sample.")] = 30.0,
    flame: Annotated[Path | None, typer.Option(help="Write the stacks there, folded, for a flame graph.")] = None,
) -> None:
    """CPU µs an event of one process in the running pipeline, by stage and by function."""
    with _progress() as progress:
        bench = Bench(seconds < 10, progress, progress.add_task(program, total=None))
        found = profile(bench, program, per_request, seconds)
    if flame:
        flame.write_text(found.folded())
    _print_profile(found)


@app.command("publish")
def publish(
    results: Annotated[list[Path], typer.Argument(help="Files that the bench wrote; a later one's figures win.")],
) -> None:
    """Make these results the reference, and put their figures into docs/performance.md and docs/guide/sizing.md."""
    document = merge_results([read_results(file) for file in results])
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    for path, text in pages_of(document).items():
        path.write_text(text)


def _print_profile(found: Profile) -> None:
    print(f"{found.program}: {found.cpu_us:.1f} µs/event, {found.events:,} events, load average {load_average()}")
    for title, rows in (
        ("by stage", found.stages()),
        ("by function, its own", found.functions(own=True)[:30]),
        ("by function, with what it calls", found.functions(own=False)[:60]),
    ):
        print(f"\n{title}")
        for name, cost in rows:
            print(f"{cost:8.2f} {cost / found.cpu_us:6.1%}  {name}")


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _write(file: Path, facts: Any, results: list[Result]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": facts, "results": results})))


if __name__ == "__main__":
    app()
