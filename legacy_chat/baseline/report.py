"""Results, for people, for programs, and for a CI server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from compat.trace.words import count
from legacy_chat.baseline.check import Result

__all__ = ["as_json", "lines", "status", "summary", "write_junit"]

# What XML has no way to write, not even escaped.
NOT_IN_XML = {code: f"\\x{code:02x}" for code in range(32) if chr(code) not in "\t\n\r"}


def lines(result: Result) -> Iterator[str]:
    """What is worth saying of one: nothing, if it is the same."""
    where = f"{result.name}{f' on {result.on}' if result.on else ''}"
    if result.difference is not None:
        first, *others = result.difference.lines()
        yield f"{where}, {first}"
        yield from others
    elif result.error:
        yield f"{where}: could not be played: {result.error}"
    elif result.skipped:
        yield f"{where}: skipped: {result.skipped}"


def summary(results: Sequence[Result], seconds: float) -> str:
    """The last line: ``117 conversations: 117 the same, in 2.1 s``."""
    names = {"same": "the same", "error": "could not be played"}
    counts = Counter(result.outcome for result in results)
    said = [
        f"{counts[each]:,} {names.get(each, each)}"
        for each in ("same", "different", "error", "skipped")
        if counts[each] or each == "same"
    ]
    return (
        f"{count(len(results), 'conversation')}: {', '.join(said)}, in {seconds:.1f} s"
    )


def status(results: Sequence[Result]) -> int:
    """The exit status: 0 all the same, 1 something different, 2 could not be played.

    What could not be played weighs more: of it nothing is known.
    """
    outcomes = {result.outcome for result in results}
    if "error" in outcomes or not outcomes - {"skipped"}:
        return 2
    return 1 if "different" in outcomes else 0


def as_json(results: Sequence[Result], seconds: float) -> str:
    """One JSON object."""
    counts = Counter(result.outcome for result in results)
    return json.dumps(
        {
            "conversations": len(results),
            "outcomes": dict(counts),
            "seconds": round(seconds, 3),
            "results": [result.as_json() for result in results],
        },
        ensure_ascii=False,
        indent=2,
    )


def write_junit(path: Path, results: Sequence[Result], seconds: float) -> None:
    """The results as JUnit's XML: a test case for each transcript and server."""
    counts = Counter(result.outcome for result in results)
    suite = ElementTree.Element(
        "testsuite",
        name="legacy-chat baseline",
        tests=str(len(results)),
        failures=str(counts["different"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{seconds:.3f}",
    )
    for result in results:
        _case(suite, result)
    tree = ElementTree.ElementTree(suite)
    ElementTree.indent(tree)
    tree.write(path, "utf-8", xml_declaration=True)


def _case(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"baseline.{result.on or 'server'}",
        name=result.name,
        time=f"{result.seconds:.3f}",
    )
    tags = {"different": "failure", "error": "error", "skipped": "skipped"}
    if result.outcome in tags:
        said = "\n".join(lines(result)).translate(NOT_IN_XML)
        message = said.partition("\n")[0]
        ElementTree.SubElement(case, tags[result.outcome], message=message).text = said
