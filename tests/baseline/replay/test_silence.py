"""A recording warns of steps in which nothing arrived though something could."""

from __future__ import annotations

from legacy_chat.baseline import Action, Got, Heard, Step
from legacy_chat.baseline.replay.silence import watched


def warnings(*steps: tuple[str, str, Heard]) -> list[str]:
    played = [Step(Action(name, do), heard) for name, do, heard in steps]
    lines: list[str] = []
    assert list(watched(played, 3.0, lines.append)) == played
    return lines


def test_silent_step_is_named_and_advice_follows() -> None:
    first, advice = warnings(("a", "open", {}), ("a", "send", {"a": Got(b"x")}))
    assert first == "step 1, a comes: nothing arrived within 3 s"
    assert "--quiet" in advice


def test_step_is_not_silent_if_another_client_received_data() -> None:
    greeted: Heard = {"a": Got(b"hi")}
    assert warnings(("a", "open", greeted), ("b", "open", {"a": Got(b"b!")})) == []


def test_step_without_connected_clients_is_not_silent() -> None:
    greeted: Heard = {"a": Got(b"hi")}
    assert warnings(("a", "open", greeted), ("a", "drop", {})) == []
    ended: Heard = {"a": Got(b"", "eof")}
    assert (
        warnings(("a", "open", ended), ("b", "open", {"b": Got(end="refused")})) == []
    )
