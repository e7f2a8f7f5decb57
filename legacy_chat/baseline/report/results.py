"""Reports of results: text, JSON, and JUnit's XML for a CI server.

Rule: a difference is shown with both sides, around the first byte that differs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from compat.replacing import replacing
from legacy_chat.baseline.model.compare import (
    ActionMismatch,
    Mismatch,
    character_start,
    first_difference,
)
from legacy_chat.baseline.model.fields import json_data
from legacy_chat.baseline.model.format import visible_json
from legacy_chat.baseline.model.transcript import Action, Received
from legacy_chat.baseline.replay.check import Result
from legacy_chat.baseline.report.text import (
    escaped,
    escaped_error,
    plural,
    readable,
    received_text,
    sentence,
    width,
)

__all__ = ["as_json", "lines", "mismatch_lines", "status", "summary", "write_junit"]

# Bytes that are shown before the first difference, and after it.
BEFORE = 24
AFTER = 40

# Clients of one step that are shown: in a full room, all miss the same data.
SHOWN = 3


def lines(result: Result) -> Iterator[str]:
    """Yield the escaped lines about a result; none if it is the same."""
    where = f"{result.name}{f' on {result.on}' if result.on else ''}"
    if result.difference is not None:
        first, *others = mismatch_lines(result.difference)
        yield f"{escaped(where)}, {first}"
        yield from others
    elif result.error:
        yield escaped_error(f"{where}: could not be played: {result.error}")
    elif result.skipped:
        yield escaped(f"{where}: skipped: {result.skipped}")
    if result.note:
        yield escaped(f"{where}: {result.note}")


def summary(results: Sequence[Result], seconds: float) -> str:
    """Return the last line: ``117 conversations: 117 the same, in 2.1 s``."""
    names = {"same": "the same", "error": "could not be played"}
    counts = Counter(result.outcome for result in results)
    parts = [
        f"{counts[each]:,} {names.get(each, each)}"
        for each in ("same", "different", "error", "skipped")
        if counts[each] or each == "same"
    ]
    played = plural(len(results), "conversation")
    return f"{played}: {', '.join(parts)}, in {seconds:.1f} s"


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
    table = {
        "conversations": len(results),
        "outcomes": dict(Counter(result.outcome for result in results)),
        "seconds": round(seconds, 3),
        "results": [_result_json(result) for result in results],
    }
    return visible_json(json.dumps(table, ensure_ascii=False, indent=2))


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
        _add_case(suite, result)
    ElementTree.indent(suite)
    with replacing(str(path)) as write:
        write("<?xml version='1.0' encoding='utf-8'?>\n")
        write(ElementTree.tostring(suite, "unicode"))


def _add_case(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        # Escaped, because XML cannot represent some characters.
        classname=escaped(f"baseline.{result.on or 'server'}"),
        name=escaped(result.name),
        time=f"{result.seconds:.3f}",
    )
    tags = {"different": "failure", "error": "error", "skipped": "skipped"}
    if result.outcome in tags:
        text = "\n".join(lines(result))
        message = text.partition("\n")[0]
        ElementTree.SubElement(case, tags[result.outcome], message=message).text = text


def _result_json(result: Result) -> dict[str, Any]:
    optional = {key: getattr(result, key) for key in ("error", "skipped", "note")}
    if result.difference is not None:
        optional["difference"] = _mismatch_json(result.difference)
    return {
        "transcript": result.name,
        "on": result.on,
        "outcome": result.outcome,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        **{key: value for key, value in optional.items() if value},
    }


def mismatch_lines(
    found: Mismatch | ActionMismatch, left: str = "recorded", right: str = "now"
) -> Iterator[str]:
    """Yield escaped lines: the step, then both sides for each client that differs."""
    return map(escaped_error, _lines(found, left, right))


def _mismatch_json(found: Mismatch) -> dict[str, Any]:
    """Return the difference as a JSON object."""
    return {
        "at": found.at,
        "client": found.action.client,
        "do": found.action.do,
        "data": json_data(found.action.data),
        "clients": {
            name: {
                "recorded": _received_json(recorded),
                "now": _received_json(now),
                "byte": first_difference(recorded.data, now.data),
            }
            for name, recorded, now in found.clients()
        },
    }


def _received_json(received: Received) -> dict[str, Any]:
    return {"got": json_data(received.data), "end": received.end}


def _lines(found: Mismatch | ActionMismatch, left: str, right: str) -> Iterator[str]:
    if isinstance(found, ActionMismatch):
        yield f"step {found.at}: {_or_end(found.left)} / {_or_end(found.right)}"
        return
    yield f"step {found.at}: {sentence(found.action)}"
    if found.error:
        yield f"  {right}: {found.error}"
        return
    clients = list(found.clients())
    for name, recorded, now in clients[:SHOWN]:
        if recorded.data == now.data:
            sides = f"{left} {received_text(recorded)}, {right} {received_text(now)}"
            yield f"  {name}: {sides}"
        else:
            yield from _both_sides(name, {left: recorded, right: now})
    if others := [name for name, *_ in clients[SHOWN:]]:
        yield f"  and {len(others)} more clients: {', '.join(others)}"


def _or_end(action: Action | None) -> str:
    return "the end" if action is None else sentence(action)


def _both_sides(name: str, sides: dict[str, Received]) -> Iterator[str]:
    one, other = (received.data for received in sides.values())
    first = first_difference(one, other)
    yield f"  {name}, byte {first}:"
    start = character_start(one, max(0, first - BEFORE))
    space = max(map(len, sides))
    for label, received in sides.items():
        yield f"    {label:{space}}  {_excerpt(received, start, first)}"
    before = readable(one[start:first])
    yield " " * (6 + space + width(before) + (3 if start else 1)) + "^"


def _excerpt(received: Received, start: int, first: int) -> str:
    data, end = received
    if not data:
        return received_text(received)
    stop = character_start(data, first + AFTER)
    shown = f'{"..." if start else ""}"{readable(data[start:stop])}"'
    if stop < len(data):
        shown += f" and {len(data) - stop:,} more bytes"
    return f"{shown}, {received_text(Received(b'', end))}" if end else shown
