"""The parts of a lesson: texts, steps, excerpts of code, and claims.

Rule 1: every text exists in every language.
Rule 2: a claim is a sentence with the predicate that proves it. Tests and the student's
run check the same predicate.
Rule 3: an excerpt is read from the file that runs. An excerpt that no longer exists is
an error.
"""

from __future__ import annotations

import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from compat.console import CommandError
from compat.trace.render.messages import LANGUAGES
from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["ChangedCodeError", "Claim", "Excerpt", "Lesson", "Step", "Text"]


class Text(NamedTuple):
    """A paragraph in each of LANGUAGES."""

    en: str
    zh: str

    def in_language(self, lang: str) -> str:
        """Return the text in one of LANGUAGES."""
        return self[LANGUAGES.index(lang)]


class Claim(NamedTuple):
    """A sentence in each language, and the predicate that proves it.

    Attributes:
        loops: the loops on which it is claimed; empty for all.
    """

    en: str
    zh: str
    holds: Callable[[StepRun], object]
    loops: tuple[str, ...] = ()


class ChangedCodeError(CommandError):
    """A function or a line that a lesson shows no longer exists."""


class Excerpt:
    """Lines of a function, shown beside their effect.

    Args:
        function: a function or class of the lesson itself, or the qualified name of
            another one: ``compat.loop:loop``.
        picks: parts of lines. Each selects the next line that contains it; a pair
            selects all lines from one to the other. None select the whole function.
        beside: the call that the lines are shown beside; "" for the beginning.
        loops: the loops for which they are shown; empty for all.
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

    @property
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
        """File and name: ``compat/async_chat.py  async_chat.push``."""
        module = inspect.getmodule(self.function)
        path = (module.__name__ if module else "?").replace(".", "/")
        end = "/__init__.py" if hasattr(module, "__path__") else ".py"
        return f"{path}{end}  {self.function.__qualname__}"

    def lines(self) -> list[tuple[int, str]]:
        """Return the lines with their numbers; number 0 is a gap.

        Raises:
            ChangedCodeError: the function or a picked line does not exist.
            OSError: the source is not installed.
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


class Step:
    """Text, the action that it describes, its code and its claims.

    Args:
        act: performs the action.
        shown: excerpts of the code that runs, and claims about the outcome.
    """

    def __init__(
        self, en: str, zh: str, act: Callable[[Harness], None], *shown: Excerpt | Claim
    ) -> None:
        self.text = Text(en, zh)
        self.act = act
        self._shown = shown

    def claims(self, loop: str) -> list[Claim]:
        """Return the claims about a loop."""
        return [each for each in self._on(loop) if isinstance(each, Claim)]

    def code(self, loop: str) -> list[Excerpt]:
        """Return the excerpts for a loop."""
        return [each for each in self._on(loop) if isinstance(each, Excerpt)]

    def _on(self, loop: str) -> Iterator[Excerpt | Claim]:
        return (each for each in self._shown if loop in (each.loops or (loop,)))


class Lesson:
    """Steps that build on each other, and a question.

    Attributes:
        answer: a step, so that the answer is proved as well.
        loop: the loop that shows the subject best: a key of compat.LOOPS, or "auto".
    """

    def __init__(
        self,
        title: Text,
        intro: Text,
        *steps: Step,
        question: Text,
        answer: Step,
        summary: Text,
        loop: str = "auto",
    ) -> None:
        self.title = title
        self.intro = intro
        self.steps = steps
        self.question = question
        self.answer = answer
        self.summary = summary
        self.loop = loop

    def false_claims(self, runs: Iterable[StepRun]) -> list[Claim]:
        """Return the claims that do not hold in the runs of all steps."""
        return [
            claim
            for step, run in zip((*self.steps, self.answer), runs, strict=True)
            for claim in step.claims(run.loop)
            if not claim.holds(run)
        ]
