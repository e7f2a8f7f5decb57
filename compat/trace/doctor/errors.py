"""Exceptions: those that left the loop, and those that no user noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from compat.trace.doctor.facts import TraceFacts, TurnFacts
from compat.trace.doctor.findings import Finding, Location, Severity
from compat.trace.doctor.rule import (
    EXITS,
    Group,
    Rule,
    code_of,
    error_of,
    name_of,
    times,
)
from compat.trace.model import Call
from compat.trace.render.formatting import readable

__all__ = ["EscapedErrors", "SwallowedErrors"]


@dataclass
class EscapedErrors(Rule):
    """handle_error raised another exception, which ended the loop.

    An exception of any other handler goes to handle_error. That such a handler was the
    last call proves nothing: the program may have received Ctrl-C after it.
    """

    name = "escaped-error"
    severity = Severity.STOPPED
    advice = "No channel is served after that: handle_error must never raise."
    # By thread, while it has made no further turn.
    _last: dict[int, tuple[Call, Location]] = field(default_factory=dict)

    def observe(self, facts: TurnFacts) -> None:
        self._last.pop(facts.turn.thread, None)
        calls = [each for each in facts.turn.entries if isinstance(each, Call)]
        if len(calls) > 1 and self._escaped(*calls[-2:]):
            call = calls[-1]
            location = facts.location(call.channel, call.line)
            self._last[facts.turn.thread] = call, location

    def forget(self) -> None:
        self._last.clear()

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        for call, location in self._last.values():
            summary = f"{error_of(call)} left the loop through {name_of(call)}"
            where = readable(call.where) or code_of(call)
            yield self.finding(summary, 1, 1, location, where)

    def _escaped(self, before: Call, call: Call) -> bool:
        # The same error is the one that handle_error was called for.
        return (
            call.name == "handle_error"
            and before.channel is call.channel
            and bool(before.error)
            and before.error != call.error
            and not call.error.startswith(EXITS)
        )


class SwallowedErrors(Rule):
    """An exception went to handle_error or to the log, and the program continued."""

    name = "swallowed-error"
    severity = Severity.HIDDEN
    advice = (
        "Fix the code that raises it, or catch it there; let handle_error log a "
        "traceback and close the channel."
    )

    def observe(self, facts: TurnFacts) -> None:
        for call, caller, _ in facts.calls:
            is_callback = call.name in ("timer", "soon") and call.error
            if call.error.startswith(EXITS) or (
                call.name != "handle_error" and not is_callback
            ):
                continue
            # handle_error may call the one that it overrides.
            if caller is None or caller.call.name != "handle_error":
                key = call.error.partition(":")[0], call.where
                location = facts.location(call.channel, call.line)
                where = readable(call.where) or code_of(call)
                group = self.group(key, call, location, where)
                if call.channel is not None:
                    status = facts.status.get(call.channel.number)
                    group.left_open += status != "closed"

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        for group in self.groups.values():
            handler = "handle_error" if group.channels else "the log"
            error, number = error_of(group.call), group.count
            yield self.finding(
                f"{error}: {times(number)}, swallowed by {handler}",
                number,
                number,
                group.location,
                group.where,
                self._details(group, trace),
            )

    def _details(self, group: Group, trace: TraceFacts) -> Iterator[str]:
        if len(group.channels) > 1:
            yield f"{len(group.channels):,} channels had it"
        # Lost lines may include the close.
        if group.left_open and not trace.lost_lines:
            yield f"the channel stayed open {times(group.left_open)}"
