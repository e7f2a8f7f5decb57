"""A recording warns of steps in which nothing arrived though something could."""

from __future__ import annotations

from legacy_chat.baseline import Action, Received, Step
from legacy_chat.baseline.commands import warn_of_silent_steps
from legacy_chat.baseline.model.transcript import Answers


def warnings(*steps: tuple[str, str, Answers]) -> list[str]:
    played = [Step(Action(name, do), answers) for name, do, answers in steps]
    lines: list[str] = []
    assert list(warn_of_silent_steps(played, 3.0, lines.append)) == played
    return lines


def test_silent_step_is_named_and_advice_follows() -> None:
    first, advice = warnings(("a", "open", {}), ("a", "send", {"a": Received(b"x")}))
    assert first == "step 1, a connects: no data within 3 s"
    assert "--quiet" in advice


def test_step_is_not_silent_if_another_client_received_data() -> None:
    greeted: Answers = {"a": Received(b"hi")}
    assert warnings(("a", "open", greeted), ("b", "open", {"a": Received(b"b!")})) == []


def test_step_without_connected_clients_is_not_silent() -> None:
    greeted: Answers = {"a": Received(b"hi")}
    assert warnings(("a", "open", greeted), ("a", "drop", {})) == []
    ended: Answers = {"a": Received(b"", "eof")}
    assert (
        warnings(("a", "open", ended), ("b", "open", {"b": Received(end="refused")}))
        == []
    )
