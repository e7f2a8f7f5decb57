"""Lines and columns of text in which a Chinese character is two columns wide.

Rule 1: no line is wider than requested, unless a single character is.
Rule 2: no line begins with closing or ends with opening punctuation. Chinese breaks
between any two other characters, other text at spaces. `code` and "quoted words" are
not broken if they fit on one line.
Rule 3: longer text breaks after punctuation, and inside a name only if nothing else is
left.

wcwidth.wrap and rich break inside `names` and before closing punctuation.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from compat.trace.render.formatting import width

__all__ = ["MIDDLE", "fill", "fold", "side_by_side", "space_scripts", "wrap_code"]

# Between two columns.
MIDDLE = " │ "

_WIDE = "\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef"
_CLOSING = '，。、；：？！）》」』】”’…—,.;:?!)]}"'
_OPENING = "（《「『【“‘([{"

# An unbreakable unit: code, quoted words, spaces, one wide character, or a word.
_ATOM = re.compile(rf"`[^`]*`|(?:(?<=\s)|^)\"[^\"]*\"|\s+|[{_WIDE}]|[^\s`{_WIDE}]+|`")

_IS_WIDE = re.compile(f"[{_WIDE}]")

# A line of code may end after these, and before a dot; a path after its slashes.
_CODE_ENDS = " ,([{/"
_CODE_PIECE = re.compile(r"(?<=[ ,(\[{/])|(?=\.)")

_SCRIPT_CHANGE = re.compile(
    r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?=[\u4e00-\u9fff])"
)


def fill(text: str, columns: int, indent: str = "") -> list[str]:
    """Break *text* into lines of at most *columns* columns.

    Args:
        indent: the beginning of all lines but the first.
    """
    lines, line = [], ""
    for unit in _units(text):
        if line.strip() and width(line + unit) > columns:
            lines.append(line.rstrip())
            line = indent
        line += unit if line.strip() else unit.lstrip() if lines else unit
        *whole, line = _break(line, columns, len(indent), indent)
        lines += whole
    return [*lines, line] if line.strip() or not lines else lines


def fold(lines: Iterable[str], columns: int) -> Iterator[str]:
    """Fill each line; its further lines are indented by four more columns."""
    for line in lines:
        yield from fill(line, columns, " " * (_indent(line) + 4))


def wrap_code(line: str, columns: int) -> list[str]:
    """Break a line of code; its further lines are indented."""
    longest = max(map(width, _CODE_PIECE.split(line.strip())))
    indent = " " * max(2, min(_indent(line) + 8, columns - longest))
    return _break(line, columns, _indent(line), indent)


def side_by_side(
    left: Iterable[str], right: Iterable[str], columns: int
) -> Iterator[str]:
    """Set lines in two columns; the left one is *columns* wide and folded."""
    for a, b in itertools.zip_longest(fold(left, columns), right, fillvalue=""):
        yield f"{a}{' ' * (columns - width(a))}{MIDDLE}{b}".rstrip()


def space_scripts(text: str) -> str:
    """Insert a space wherever Chinese meets a Latin word or a number."""
    return _SCRIPT_CHANGE.sub(" ", text)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _units(text: str) -> Iterator[str]:
    """Yield parts between which a line may break; spaces belong to the next part."""
    unit = ""
    for atom in _ATOM.findall(text):
        if unit and _may_break(unit, atom):
            yield unit
            unit = ""
        unit += atom
    yield unit


def _may_break(before: str, after: str) -> bool:
    if before.isspace() or after.isspace():
        return not before.isspace()
    if after[0] in _CLOSING or before[-1] in _OPENING:
        return False
    return bool(_IS_WIDE.match(before[-1]) or _IS_WIDE.match(after))


def _break(line: str, columns: int, least: int, indent: str) -> list[str]:
    """Break a wide line, if possible after more than *least* characters."""
    lines = []
    while width(line) > columns:
        used = itertools.accumulate(map(width, line))
        fits = max(sum(each <= columns for each in used), 1)
        ends = (at for at in range(fits, least + 1, -1) if _is_end(line, at))
        at = next(ends, fits)
        lines.append(line[:at].rstrip())
        line = indent + line[at:].lstrip()
        least = len(indent)
    return [*lines, line]


def _is_end(line: str, at: int) -> bool:
    before, after = line[at - 1], line[at]
    if after in _CLOSING:
        return after == "." and before not in _OPENING
    if before in _CODE_ENDS or after == " ":
        return True
    return bool(_IS_WIDE.match(before)) and before not in _OPENING
