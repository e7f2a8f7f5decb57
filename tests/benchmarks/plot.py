"""The figure of the README: work per CPU second, relative to the baseline.

Rule: it is readable on white and on black: a transparent background, mid-tones, and
text in the reader's fonts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.table import BASELINES, Row

__all__ = ["plot"]

# About as far from white as from black.
INK = "#7d8590"

# Families by colour, their members by marker.
STYLES = {
    "legacy-chat selectors": ("#d1495b", "D"),
    "legacy-chat poll": ("#d1495b", "s"),
    "legacy-chat select": ("#d1495b", "v"),
    "pyasyncore select": ("#7d8590", "|"),
    "pyasyncore poll": ("#7d8590", "s"),
    "pyftpdlib": ("#7d8590", "^"),
    "asyncio protocol": ("#2f81f7", "o"),
    "asyncio buffered": ("#2f81f7", "s"),
    "uvloop": ("#2f81f7", "D"),
    "gevent": ("#2da44e", "o"),
    "twisted": ("#bf8700", "o"),
    "plain epoll": ("#8957e5", "x"),
    "plain epoll coalescing": ("#8957e5", "*"),
    "C epoll": ("#6e7681", "x"),
    "C epoll coalescing": ("#6e7681", "*"),
}


def plot(results: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw a group of points for each scenario that has a baseline."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    groups = {
        name: {
            row.server: row.ratio for row in rows if row.remark is None and row.ratio
        }
        for name, rows in results.items()
        if not name.startswith("memory")
    }
    groups = {name: ratios for name, ratios in groups.items() if ratios}
    servers = [name for name in STYLES if any(name in each for each in groups.values())]
    settings = {
        "svg.fonttype": "none",
        # The same results make the same file.
        "svg.hashsalt": "tests.benchmarks",
        "font.size": 11,
        "font.family": "sans-serif",
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK
        ),
    }
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(figsize=(9.5, 1.4 + 0.5 * max(len(groups), 7)))
        for place, ratios in enumerate(groups.values()):
            # Spread over the height of the group, so that no point hides another.
            for step, (server, ratio) in enumerate(
                sorted(ratios.items(), key=lambda item: servers.index(item[0]))
            ):
                colour, marker = STYLES[server]
                height = place + 0.36 * (2 * step / max(1, len(ratios) - 1) - 1)
                axes.plot(ratio, height, marker, color=colour, markersize=6.5)
            axes.axhline(place + 0.5, color=INK, linewidth=0.4, alpha=0.5)
        axes.axvline(1, color=INK, linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(max(len(groups), 1) - 0.5, -0.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", color=INK, linewidth=0.4, alpha=0.3)
        axes.set_xlabel(f"work per CPU second, {BASELINES[0]} = 1 (or its poll)")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for server in servers:
            colour, marker = STYLES[server]
            axes.plot([], [], marker, color=colour, label=server)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        figure.savefig(
            path,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata={"Date": None},
        )
        plt.close(figure)
