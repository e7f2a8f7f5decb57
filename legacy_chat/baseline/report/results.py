"""Reports of results: text, JSON, and JUnit's XML for a CI server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from compat.replacing import replacing
from compat.trace.render.messages import count
from legacy_chat.baseline.model.format import visible_json
from legacy_chat.baseline.replay.check import Result
from legacy_chat.baseline.report.text import seen, seen_error

__all__ = ["as_json", "lines", "status", "summary", "write_junit"]


def lines(result: Result) -> Iterator[str]:
    """Yield the lines about a result, escaped by *seen*; none if it is the same."""
    return map(seen_error, _lines(result))


def summary(results: Sequence[Result], seconds: float) -> str:
    """Return the last line: ``117 conversations: 117 the same, in 2.1 s``."""
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
    """Return the exit status: 0 for all the same, 1 for a difference, 2 for an error.

    An error outweighs a difference, because the server's answer is unknown. The status
    is 2 also if nothing was played.
    """
    outcomes = {result.outcome for result in results}
    if "error" in outcomes or not outcomes - {"skipped"}:
        return 2
    return 1 if "different" in outcomes else 0


def as_json(results: Sequence[Result], seconds: float) -> str:
    """Return the results as one JSON object."""
    counts = Counter(result.outcome for result in results)
    text = json.dumps(
        {
            "conversations": len(results),
            "outcomes": dict(counts),
            "seconds": round(seconds, 3),
            "results": [result.as_json() for result in results],
        },
        ensure_ascii=False,
        indent=2,
    )
    return visible_json(text)


def write_junit(path: Path, results: Sequence[Result], seconds: float) -> None:
    """Write JUnit's XML with a test case for each transcript and server."""
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
    ElementTree.indent(suite)
    with replacing(str(path)) as write:
        write("<?xml version='1.0' encoding='utf-8'?>\n")
        write(ElementTree.tostring(suite, "unicode"))


def _case(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        # Escaped, because XML cannot represent some characters.
        classname=seen(f"baseline.{result.on or 'server'}"),
        name=seen(result.name),
        time=f"{result.seconds:.3f}",
    )
    tags = {"different": "failure", "error": "error", "skipped": "skipped"}
    if result.outcome in tags:
        said = "\n".join(lines(result))
        message = said.partition("\n")[0]
        ElementTree.SubElement(case, tags[result.outcome], message=message).text = said


def _lines(result: Result) -> Iterator[str]:
    where = f"{result.name}{f' on {result.on}' if result.on else ''}"
    if result.difference is not None:
        first, *others = result.difference.lines()
        yield f"{where}, {first}"
        yield from others
    elif result.error:
        yield f"{where}: could not be played: {result.error}"
    elif result.skipped:
        yield f"{where}: skipped: {result.skipped}"
    if result.note:
        yield f"{where}: {result.note}"
