"""Prints results as one table, and as the Markdown table of docs/performance.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from bench.results import Figure, Result

_NAMES = ("work", "figure", "measured", "target", "reached")


def table_of(results: Sequence[Result]) -> Table:
    """For the terminal: every figure, and below each scenario its CPU and memory by process."""
    table = Table(*_NAMES, "sound", title="bench")
    for result in results:
        for row in _rows(result):
            table.add_row(*row, _soundness(result) if row[0] else "")
        loop = f"loop ms: {result.loop_ms}" if result.loop_ms else ""
        for words in filter(
            None, (_listed("CPU µs/event", result.cpu_us), _listed("memory MB", result.memory_mb), loop)
        ):
            table.add_row("", f"[dim]{words}[/dim]")
        table.add_section()
    return table


def markdown_of(results: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """What stands in docs/performance.md: the machine, then the table."""
    lines = [
        f"{facts['cores']} cores ({facts['processor']}), {facts['memoryMb'] / 1024:.0f} GB, Python {facts['python']}, "
        f"version {facts['version']}, {facts['at'][:10]}; the loop at rest: {facts['loopMs']} ms.",
        "",
        "| work | figure | measured | target | reached | CPU µs/event by process | load average | loop, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines += _markdown_rows(result)
    return "\n".join(lines) + "\n"


def _markdown_rows(result: Mapping[str, Any]) -> Iterable[str]:
    names = (result["scenario"], ", ".join(f"{name} {value:.1f}" for name, value in result["cpu_us"].items()))
    for at, figure in enumerate(result["figures"]):
        made = Figure(figure["name"], figure["value"], figure["unit"], None)
        target, reached = figure.get("target"), ""
        if target:
            kept = made.value >= target["bound"] if target["more"] else made.value <= target["bound"]
            reached = "yes" if kept else "no"
        bound = f"{'≥' if target['more'] else '≤'} {target['bound']:,g}" if target else ""
        name, cpu = names if at == 0 else ("", "")
        average, loop = (result["load_average"], result["loop_ms"] or "") if at == 0 else ("", "")
        yield f"| {name} | {made.name} | {shown(made)} | {bound} | {reached} | {cpu} | {average} | {loop} |"


def _rows(result: Result) -> Iterable[tuple[str, ...]]:
    for at, figure in enumerate(result.figures):
        target = figure.target
        reached = "" if target is None else "[green]yes[/green]" if target.kept(figure.value) else "[red]no[/red]"
        name = result.scenario if at == 0 else ""
        yield (name, figure.name, shown(figure), str(target or ""), reached)


def shown(figure: Figure) -> str:
    """With as many digits as it deserves, and its unit."""
    value = f"{figure.value:,.0f}" if abs(figure.value) >= 100 else f"{figure.value:.2f}"
    return f"{value} {figure.unit}".strip()


def _listed(what: str, figures: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {value:,.1f}" for name, value in sorted(figures.items(), key=lambda item: -item[1]))
    return f"{what}: {parts}" if parts else ""


def _soundness(result: Result) -> str:
    return "verified" if result.sound else f"[red]verify {result.verify}; {'; '.join(result.faults)}[/red]"
