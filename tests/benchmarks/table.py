"""The results as a table.

Rule: each figure is the median of that figure over the runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from tests.benchmarks.run import Run
from tests.benchmarks.scenarios import Scenario

__all__ = ["BASELINES", "BUSY", "Row", "frames_table", "rows", "table"]

# The baseline of a scenario: the first of these with figures.
BASELINES = ("pyasyncore select", "pyasyncore poll")

BUSY = (
    "* the load generator was busier than the server: rates and latencies are its own, "
    "figures per CPU second are the server's"
)


class Row(NamedTuple):
    """A server in a scenario.

    Attributes:
        remark: the reason why there are no figures.
        rate: counted units per second.
        efficiency: the same per CPU second of the server.
        ratio: of the efficiency to the baseline's; None where that has no figures.
        p50, p99: latency in milliseconds; None where it is not measured.
        server_share, generator_share: CPU time per second.
        size: bytes for a connection; None where it is not measured.
        generator: the load generator's language.
    """

    server: str
    remark: str | None = None
    rate: float = math.nan
    efficiency: float = math.nan
    ratio: float | None = None
    p50: float | None = None
    p99: float | None = None
    server_share: float = math.nan
    generator_share: float = math.nan
    size: float | None = None
    generator: str = ""

    @property
    def generator_was_busier(self) -> bool:
        return self.generator_share > self.server_share


def rows(
    servers: Iterable[str], runs: Iterable[Run], remarks: Mapping[str, str]
) -> list[Row]:
    """Return a row for each server, from the runs of one scenario."""
    runs = list(runs)
    found = []
    for server in servers:
        own = [run for run in runs if run.server == server]
        errors = [run.error for run in own if run.error]
        if server in remarks:
            found.append(Row(server, remarks[server]))
        elif errors or not own:
            found.append(Row(server, f"error: {errors[0]}" if errors else "not run"))
        else:
            found.append(_row(server, own))
    with_figures = {row.server: row for row in found if row.remark is None}
    for name in BASELINES:
        if name in with_figures:
            base = with_figures[name].efficiency
            return [row._replace(ratio=row.efficiency / base) for row in found]
    return found


def _row(server: str, runs: Sequence[Run]) -> Row:
    figures = [run.figures for run in runs]

    def middle(name: str) -> float | None:
        values = [each[name] for each in figures if each.get(name) is not None]
        return median(values) if values else None

    return Row(
        server,
        None,
        median(each["deliveries"] / each["seconds"] for each in figures),
        median(each["deliveries"] / each["server_cpu"] for each in figures),
        None,
        middle("p50"),
        middle("p99"),
        median(each["server_cpu"] / each["seconds"] for each in figures),
        median(each["generator_cpu"] / each["seconds"] for each in figures),
        middle("bytes_per_connection"),
        "/".join(sorted({each.get("generator", "") for each in figures})),
    )


def table(scenario: Scenario, of: Sequence[Row]) -> str:
    """Return the rows of one scenario as text."""
    if scenario.kind == "memory":
        head = ["server", "kB each", "joined/s"]
        cells = [_memory_cells(row) for row in of]
    else:
        base = next(
            (row.server for row in of if row.ratio == 1 and row.server in BASELINES),
            "pyasyncore",
        )
        head = ["server", f"{scenario.unit}/s", "per CPU s", f"× {base}"]
        head += ["p50 ms", "p99 ms", "server CPU", "load CPU"]
        cells = [_cells(row) for row in of]
    whole = [line for line in (head, *cells) if len(line) == len(head)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    # A remark may exceed the columns of figures.
    widths[0] = max(len(line[0]) for line in cells)
    lines = [f"{scenario.name}: {scenario.about}"]
    for first, *rest in (head, *cells):
        if len(rest) < len(head) - 1:
            lines.append("  ".join([first.ljust(widths[0]), *rest]))
            continue
        figures = [
            cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
        ]
        lines.append("  ".join([first.ljust(widths[0]), *figures]).rstrip())
    if any(row.generator_was_busier for row in of) and scenario.kind != "memory":
        lines.append(BUSY)
    if languages := sorted({row.generator for row in of if row.generator}):
        lines.append(f"load generator: {', '.join(languages)}")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    if row.remark is not None:
        return [row.server, row.remark]
    return [
        row.server,
        f"{row.rate:,.0f}",
        f"{row.efficiency:,.0f}",
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        "-" if row.p50 is None else f"{row.p50:.2f}",
        "-" if row.p99 is None else f"{row.p99:.2f}",
        f"{row.server_share:.0%}",
        f"{row.generator_share:.0%}{'*' if row.generator_was_busier else ' '}",
    ]


def _memory_cells(row: Row) -> list[str]:
    if row.remark is not None or row.size is None:
        return [row.server, row.remark or "-"]
    return [row.server, f"{row.size / 1000:.1f}", f"{row.rate:,.0f}"]


def frames_table(scenario: Scenario, runs: Sequence[Run]) -> str:
    """Return the frame loops of one scenario as text; the first is the baseline."""
    lines = [f"{scenario.name}: {scenario.about}"]
    lines += [f"error: {run.error}" for run in runs if run.error]
    found = [run for run in runs if not run.error]
    names = list(dict.fromkeys(run.server for run in found))
    if not names:
        return "\n".join(lines)
    kinds = list(found[0].figures)
    width = max(map(len, names))
    head = [f"{kind:>12}  {'×':>5}" for kind in kinds]
    lines.append("  ".join(["loop".ljust(width), *head]))
    for name in names:
        cells = [name.ljust(width)]
        for kind in kinds:
            spent, base = (
                median(run.figures[kind] for run in found if run.server == each)
                for each in (name, names[0])
            )
            cells.append(f"{spent:12.1f}  {spent / base:5.2f}")
        lines.append("  ".join(cells))
    return "\n".join(lines)
