"""What a lesson is made of: texts, steps, the code to look at, and what it claims.

Rule 1: a sentence is there in every language, or it is an error where it is written.
Rule 2: a claim is a sentence beside the predicate that it stands for. The tests and the
student's run use the same.
Rule 3: code that is shown is read from the file that runs. An excerpt that is not there
any more is an error.
"""

from __future__ import annotations

import inspect
import pkgutil
import textwrap
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from compat.trace.model import Call, Event, TracedChannel, Turn
from compat.trace.render.messages import LANGUAGES

if TYPE_CHECKING:
    from legacy_chat.lessons.engine.harness import Stage

__all__ = [
    "LANGUAGES",
    "ChangedCodeError",
    "Claim",
    "Excerpt",
    "Lesson",
    "Seen",
    "Step",
    "Text",
]


class Text(NamedTuple):
    """A text in each language. Its paragraphs are divided by empty lines."""

    en: str
    zh: str

    def said_in(self, lang: str) -> str:
        """It, in one of LANGUAGES."""
        said: str = getattr(self, lang)
        return said


@dataclass
class Seen:
    """What happened in one step: what a claim is about.

    Attributes:
        loop: the name of the loop that turned it.
        heard: what each peer got; nothing, b"", for any other.
        ended: the peers that saw the end of their connection.
        printed: the room's lines on standard output; logged: those of its log.
        facts: what the scenario has measured.
        turns: the turns of the trace.
        ports: the port of each peer, by which its channel is found in the trace.
    """

    loop: str
    heard: defaultdict[str, bytes] = field(default_factory=lambda: defaultdict(bytes))
    ended: set[str] = field(default_factory=set)
    printed: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)

    def calls(self, do: str, of: str = "") -> list[Call]:
        """The calls of a method; *of* a peer's channel, or of those of a class."""
        return [
            call
            for turn in self.turns
            for call in turn.calls()
            if call.name == do and (not of or self.is_of(call.channel, of))
        ]

    def interests(self, of: str) -> list[Event]:
        """How the interest of such a channel changed."""
        events = [event for turn in self.turns for event in turn.interests]
        return [event for event in events if self.is_of(event.channel, of)]

    def is_of(self, channel: TracedChannel | None, of: str) -> bool:
        """Is it the channel of that peer, or of that class?"""
        if channel is None:
            return False
        port = self.ports.get(of)
        return channel.class_name == of or (
            port is not None and self.peer_of(channel) == of
        )

    def peer_of(self, channel: TracedChannel) -> str:
        """Who is at the other end, "" if that is nobody with a name."""
        port = channel.peer.rpartition(":")[2]
        for name, own in self.ports.items():
            if port == str(own):
                return name
        return ""

    def readers(self, turn: Turn) -> list[str]:
        """Who was ready to be read: peers, and the classes of other channels."""
        return [self.peer_of(channel) or channel.class_name for channel in turn.read]

    def writers(self, turn: Turn) -> list[str]:
        """Who was ready to be written to, likewise."""
        return [self.peer_of(channel) or channel.class_name for channel in turn.write]


class Claim(NamedTuple):
    """A sentence, and what makes it true.

    Attributes:
        loops: where it is claimed; empty for everywhere.
    """

    text: Text
    holds: Callable[[Seen], object]
    loops: tuple[str, ...] = ()


class ChangedCodeError(LookupError):
    """A line that a lesson shows has been changed."""


class Excerpt:
    """Lines of a function, to be shown beside what they do.

    Args:
        function: a function or class of the lesson itself, or the qualified name of
            another one: ``compat.loops:loop``.
        picks: parts of lines: each is the next line that has it, and a pair is all from
            one to the other. None for the whole function.
        beside: the call that it is shown beside; "" for the beginning of the step.
        loops: where it is of interest; empty for everywhere.
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        *picks: str | tuple[str, str],
        beside: str = "",
        loops: tuple[str, ...] = (),
    ) -> None:
        self._function = function
        self.picks = picks
        self.beside = beside
        self.loops = loops

    @cached_property
    def function(self) -> Any:
        """The function or class.

        Raises:
            ChangedCodeError: no function has that name.
        """
        if not isinstance(self._function, str):
            return self._function
        try:
            return pkgutil.resolve_name(self._function)
        except (ImportError, AttributeError) as error:
            raise ChangedCodeError(f"{self._function} does not exist") from error

    @property
    def name(self) -> str:
        """Where it stands: ``compat/chat.py  async_chat.push``."""
        module = inspect.getmodule(self.function)
        path = (module.__name__ if module else "?").replace(".", "/")
        end = "/__init__.py" if hasattr(module, "__path__") else ".py"
        return f"{path}{end}  {self.function.__qualname__}"

    def lines(self) -> list[tuple[int, str]]:
        """The lines with their numbers; number 0 is a gap.

        Raises:
            ChangedCodeError: the function or a picked line does not exist.
            OSError: the source is not here.
        """
        source, first = inspect.getsourcelines(self.function)
        texts = "".join(source).splitlines()
        chosen = self._chosen(texts) if self.picks else range(len(texts))
        shown = textwrap.dedent("\n".join(texts[at] for at in chosen)).split("\n")
        lines: list[tuple[int, str]] = []
        for at, text in zip(chosen, shown, strict=True):
            if lines and lines[-1][0] != first + at - 1:
                lines.append((0, "…"))
            lines.append((first + at, text))
        return lines

    def _chosen(self, texts: list[str]) -> list[int]:
        chosen: list[int] = []
        at = 0
        for pick in self.picks:
            begin, end = (pick, pick) if isinstance(pick, str) else pick
            first = self._find(texts, begin, at)
            last = self._find(texts, end, first)
            chosen += range(first, last + 1)
            at = last + 1
        return chosen

    def _find(self, texts: list[str], part: str, begin: int) -> int:
        for at in range(begin, len(texts)):
            if part in texts[at]:
                return at
        raise ChangedCodeError(f"{self.name} has no line with {part!r}")


class Step(NamedTuple):
    """Something that is done, and what there is to see.

    Attributes:
        act: does it, on the stage.
        code: what makes it happen.
    """

    text: Text
    act: Callable[[Stage], None]
    code: tuple[Excerpt, ...]
    claims: tuple[Claim, ...]


class Lesson(NamedTuple):
    """A few steps that build on each other, and a question.

    Attributes:
        begins: what it is about. ends: what to remember.
        answer: a step like the others, so that the answer is proved, too.
        loop: the one that shows what it is about: a key of ``compat.LOOPS``, or "auto".
    """

    title: Text
    begins: Text
    steps: tuple[Step, ...]
    question: Text
    answer: Step
    ends: Text
    loop: str = "auto"
