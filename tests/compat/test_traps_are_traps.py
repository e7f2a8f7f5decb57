"""The scripts of test_traps.py, played on a naive epoll loop: the loop must fail.

A test that no loop fails proves nothing. FALLS names the naive loop's failure in each
trap: it misses an event (MissedError), wakes for ever (SpunError), calls the wrong
channel (AssertionError), or the kernel's error leaves the loop. The naive loop passes
every other script; that is tested, too, so that FALLS is complete.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.compat import test_traps
from tests.compat.test_traps import Holds, MissedError, Script, SpunError, Stage, Turner
from tests.naive import NaiveLoop

FALLS: dict[str, type[BaseException]] = {
    # Promise 1.
    "reads_then_writes_then_urgent_data_each_in_map_order": AssertionError,
    "more_than_1024_descriptors_may_be_ready_at_once": AssertionError,
    # Promise 3.
    "fd_reused_in_a_turn_belongs_to_its_new_channel": MissedError,
    "fd_reused_between_turns_belongs_to_its_new_channel": MissedError,
    "an_event_of_the_old_channel_is_not_given_to_the_new_one": AssertionError,
    "channel_that_reconnects_on_the_same_fd_is_read": MissedError,
    "socket_closed_without_its_channel_ends_in_handle_close": MissedError,
    "exception_of_handle_close_goes_to_handle_error": MissedError,
    "sockets_closed_before_the_loop_end_in_handle_close": OSError,
    "duplicate_of_a_closed_channel_does_not_wake_the_loop": SpunError,
    "event_of_a_duplicate_is_not_given_to_the_fds_new_owner": SpunError,
    "event_of_a_duplicate_does_not_wake_a_writing_new_owner": (FileNotFoundError),
    "file_duplicated_onto_a_channels_fd_is_read": MissedError,
    "object_that_reopens_on_the_same_fd_is_read": MissedError,
    "a_regular_file_is_always_ready": PermissionError,
    "channel_under_its_fd_and_its_socket_is_called_for_both": FileExistsError,
    "a_channel_under_two_numbers_is_called_for_both": AssertionError,
    "an_object_that_is_no_dispatcher_needs_only_the_methods": SpunError,
    "invalid_key_without_interest_is_harmless[-1]": ValueError,
    "invalid_key_without_interest_is_harmless[None]": TypeError,
    "a_forked_child_has_a_selector_of_its_own": MissedError,
    "the_keys_may_be_sockets": SpunError,
    # Promise 4.
    "data_before_a_close_is_read_before_handle_close[pair]": AssertionError,
    "data_before_a_reset_is_read_before_handle_close": AssertionError,
    "a_reset_does_not_wake_a_channel_without_interest": AssertionError,
    "reset_calls_handle_write_of_a_write_only_channel": AssertionError,
    "vanished_pipe_reader_calls_handle_write": AssertionError,
    "hang_up_does_not_wake_a_pipe_without_read_interest": AssertionError,
    "a_listener_that_is_only_writable_is_never_woken": AssertionError,
    "a_channel_closed_in_its_read_is_not_written_to": AssertionError,
    "urgent_data_comes_also_while_the_channel_does_not_read": AssertionError,
    "urgent_data_may_be_a_channels_only_event": MissedError,
}


class Naive(Turner):
    """Play a script on the naive loop; give up when no more events come."""

    # Number of empty waits after which a step counts as missed.
    PATIENCE = 3

    def __init__(self, stage: Stage) -> None:
        super().__init__("naive")
        self._waits = stage.waits

    def loop(self, timeout: Any = 30.0, map: Any = None, count: Any = None) -> None:
        self._loop.turn(timeout, map)

    def until(self, holds: Holds, map: Any) -> None:
        end = self._waits.rests + self.PATIENCE
        while not holds():
            if self._waits.rests > end:
                raise MissedError("the loop rests, and still it does not hold")
            self._loop.turn(0.005, map)

    def play(self, script: Script, map: Callable[[], Any]) -> None:
        with closing(NaiveLoop()) as self._loop:
            super().play(script, map)


def scripts() -> Iterator[Any]:
    """Yield each script with each combination of its test's parameters."""
    for name, test in vars(test_traps).items():
        if not hasattr(test, "script"):
            continue
        marks = [mark.args for mark in getattr(test.script, "pytestmark", ())]
        for values in itertools.product(*(values for _, values in marks)):
            given = {key: value for (key, _), value in zip(marks, values, strict=True)}
            short = name.removeprefix("test_")
            case = f"{short}[{'-'.join(map(str, values))}]" if values else short
            falls = FALLS.get(case, FALLS.get(short))
            yield pytest.param(test.script, given, falls, id=case)


@pytest.mark.parametrize(("script", "given", "falls"), [*scripts()])
def test_the_naive_loop_falls_or_passes_as_in_the_table(
    script: Callable[..., Script],
    given: dict[str, Any],
    falls: type[BaseException] | None,
    tmp_path: Path,
) -> None:
    if "tmp_path" in inspect.signature(script).parameters:
        given = {**given, "tmp_path": tmp_path}
    with Stage() as stage:
        if falls is None:
            stage.play(Naive(stage), script(stage, **given))
            return
        with pytest.raises(falls) as caught:
            stage.play(Naive(stage), script(stage, **given))
    assert caught.type is falls


def test_every_row_of_the_table_is_a_script() -> None:
    names = {f"test_{case.split('[')[0]}" for case in FALLS}
    assert all(hasattr(getattr(test_traps, name), "script") for name in names)


def test_the_naive_loop_is_deaf_in_a_map_that_lives_for_one_call() -> None:
    def script(stage: Stage) -> Script:
        test_traps.test_a_map_may_live_for_one_call(stage.turner, stage)
        yield lambda: True

    with Stage() as stage, pytest.raises(AssertionError):
        stage.play(Naive(stage), script(stage))
    assert stage.calls == ["a.read"]
