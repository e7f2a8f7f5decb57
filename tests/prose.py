"""Find phrases that the project does not use, long sentences and unclear test names.

    python -m tests.prose [PATH…]

prints ``file:line: finding`` for each, and exits with 1 if there is any.

Rule 1: prose is a docstring, a comment, a string with a space in it, and the text of a
Markdown file. Code between backticks, quoted words and Chinese are not prose.
Rule 2: a finding names the words. An exception is a row in ALLOWED, with its reason.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Words of a sentence in a README.
LONGEST_SENTENCE = 30

# Characters of a test's name, ``test_`` included.
LONGEST_NAME = 60

# Words at the beginning of a test's name that do not name its unit.
NO_UNIT = frozenset(
    ["however", "it", "nobody", "nothing", "so", "what", "whatever", "who", "whoever"]
)

# Words in names of functions and classes that belong to no subject of the code.
NOT_IN_NAMES = frozenset(
    [
        *("anybody", "everybody", "nobody", "somebody"),
        *("what", "whatever", "who", "whoever"),
        *("ask", "asked", "asks", "hear", "heard", "hears"),
        *("said", "say", "says", "tell", "tells", "told"),
    ]
)

# Each phrase, and the words to use instead. A space stands for any white space.
BANNED = {
    r"who(?:ever|m|mever)?": "name the noun, with 'that'",
    r"what(?:ever)?(?! (?:is|if)\?)": "name the noun",
    r"(?:some|any|every|no)body": "name the noun: client, member, reader",
    r"so (?:many|long)(?! as (?:we|you))": "give the number or the duration",
    r"likewise": "say it, or leave it out",
    r"by now": "leave it out",
    r"of (?:its|his|her|their|my|our|your|one's) own": "own, or leave it out",
    r"as (?:it|they) (?:is|are|was|were)(?! \w+(?:ed|en|ing|ead|ent)\b)": "unchanged",
    r"(?<!there\s)(?:is|are|was|were|be) no(?! (?:longer|more|less|fewer|later)\b)"
    r"(?! \w+ than\b)": "is not a",
    r"(?:say|says|said|saying)": "send, print, log, state",
    r"(?:hear|hears|heard)": "receive",
    r"(?:tell|tells|told)": "send, notify, report",
    r"(?:ask|asks|asked|asking)": "poll, check, request",
    r"(?:take|takes|took|taken)(?= (?:it|nothing|half|none)\b)": "accept, receive",
    r"(?:not|cannot|kernel|socket|system|peer) (?:take|takes|took|taken)": "receive",
    r"(?:knock|knocks|knocked)": "connect",
    r"(?:goodbye|farewell to)": "close_notify, last message",
    r"does without": "does not need, does not use",
}

# A phrase in a file, and the reason why it stands there.
ALLOWED: dict[tuple[str, str], str] = {
    ("compat/trace/format.py", "asked"): "a field of the trace format",
    ("compat/trace/render/html.py", "asked"): "a field of the trace format",
    ("compat/trace/render/page/model.js", "what"): "the name of a filter",
    ("compat/trace/render/page/page.js", "what"): "the name of a filter",
}

# Files whose strings are examples of findings.
EXAMPLES = ("prose.py", "test_prose.py")

# Folders to skip where git does not know them: environments, builds and caches.
IGNORED = frozenset(
    [
        *(
            ".git",
            ".hypothesis",
            ".mypy_cache",
            ".pytest_cache",
            ".ruff_cache",
            ".venv",
        ),
        *("__pycache__", "build", "dist"),
    ]
)

SUFFIXES = (".py", ".pyi", ".md", ".toml", ".yml", ".yaml", ".js", ".css", ".html")


def _compiled(phrase: str) -> re.Pattern[str]:
    words = phrase.replace(" ", r"\s+")
    return re.compile(rf"(?<![\w'{{-]){words}(?![\w-])", re.IGNORECASE)


PHRASES = {_compiled(phrase): advice for phrase, advice in BANNED.items()}
CODE = re.compile(r"```.*?```|``.+?``|`[^`]+`", re.DOTALL)
QUOTED = re.compile(r'"[^"\n]{1,60}"|“[^”]{1,60}”|‘[^’]{1,60}’')
SENTENCE_END = re.compile(r"[.!?:;](?=\s|$)|[|]|\n\s*\n|\n *(?:[-#]|\d+\.) ")
SCRIPT = re.compile(
    r"""/\*.*?\*/|(?<![:\\])//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`""",
    re.DOTALL,
)
DEFINITION = re.compile(r"^[ ]*(?:async def|def|class) (\w+)", re.MULTILINE)
MARKER = re.compile(r"^(?:<{7}|>{7})(?= )", re.MULTILINE)
TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


class Text(NamedTuple):
    """A piece of prose, and the line where it begins."""

    line: int
    words: str


def python_prose(source: str) -> Iterator[Text]:
    """Yield comments, consecutive ones as one text, and strings with a space."""
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 and block:
            yield Text(last - len(block) + 1, "\n".join(block))
            block = []
        block.append(re.sub(r"^#:?|noqa.*|type: ignore.*", "", token.string))
        last = token.start[0]
    if block:
        yield Text(last - len(block) + 1, "\n".join(block))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if " " in node.value.strip():
            yield Text(node.lineno, node.value)


def script_prose(source: str) -> Iterator[Text]:
    """Yield the comments of JavaScript and CSS, and strings with a space."""
    for found in SCRIPT.finditer(source):
        if " " in found[0].strip(" \"'`/*"):
            yield Text(source.count("\n", 0, found.start()) + 1, found[0].strip("\"'`"))


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "\u00b7", found[0])


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of everything to change in a file."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    if path.suffix in (".py", ".pyi"):
        texts = list(python_prose(source))
        yield from name_findings(path, source)
        yield from word_findings(source)
    elif path.suffix in (".js", ".css"):
        texts = list(script_prose(source))
    else:
        texts = [Text(1, source)]
    for marker in MARKER.finditer(source):
        yield source.count("\n", 0, marker.start()) + 1, "conflict marker"
    for text in texts:
        words = QUOTED.sub(_blank, CODE.sub(_blank, text.words))
        yield from phrase_findings(name, text.line, words)
        if path.name.startswith("README") and "zh" not in path.name:
            yield from sentence_findings(text.line, words)


def phrase_findings(name: str, line: int, words: str) -> Iterator[tuple[int, str]]:
    """Yield each banned phrase; in a question, "who" and "what" are right."""
    for pattern, advice in PHRASES.items():
        for found in pattern.finditer(words):
            phrase = " ".join(found[0].split())
            if phrase.lower()[:3] in ("who", "wha"):
                end = re.search(r"[.!?;](?=\s|$)", words[found.end() :])
                if end and end[0] == "?":
                    continue
            if (name, phrase.lower()) not in ALLOWED:
                at = line + words.count("\n", 0, found.start())
                yield at, f'"{phrase}": {advice}'


def sentence_findings(line: int, words: str) -> Iterator[tuple[int, str]]:
    """Yield the sentences of a README that are too long."""
    start = 0
    for end in [*SENTENCE_END.finditer(words), None]:
        stop = end.start() if end else len(words)
        sentence = words[start:stop].split()
        if len(sentence) > LONGEST_SENTENCE:
            at = line + words.count("\n", 0, start)
            yield at, f"{len(sentence)} words: {' '.join(sentence[:6])} …"
        start = end.end() if end else stop


def names(path: Path) -> list[str]:
    """Return the names of the test functions of a module."""
    return TEST.findall(path.read_text(encoding="utf-8"))


def name_findings(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Yield test names that are too long or do not begin with their unit."""
    if not path.name.startswith("test_"):
        return
    for found in TEST.finditer(source):
        line = source.count("\n", 0, found.start()) + 1
        if len(found[1]) > LONGEST_NAME:
            yield line, f"{len(found[1])} characters: {found[1]}"
        if found[1].split("_")[1] in NO_UNIT:
            yield line, f"name begins without its unit: {found[1]}"


def word_findings(source: str) -> Iterator[tuple[int, str]]:
    """Yield names of functions and classes with a word of NOT_IN_NAMES."""
    for found in DEFINITION.finditer(source):
        if words := NOT_IN_NAMES.intersection(found[1].lower().split("_")):
            line = source.count("\n", 0, found.start()) + 1
            yield line, f'"{min(words)}" in the name {found[1]}'


def files(paths: list[Path]) -> list[Path]:
    """Return the files to read: of a folder, those that git knows, or all."""
    listed: list[Path] = []
    for path in paths or [ROOT]:
        if path.is_file():
            listed.append(path.resolve())
            continue
        command = [
            "git",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        done = subprocess.run(command, cwd=path, capture_output=True, check=False)
        if done.returncode == 0:
            found = [path / name for name in done.stdout.decode().split("\0")]
        else:
            found = [
                each
                for each in path.rglob("*")
                if not IGNORED.intersection(each.relative_to(path).parts)
            ]
        listed += [each.resolve() for each in found]
    return sorted(
        each
        for each in set(listed)
        if each.is_file()
        and (each.suffix in SUFFIXES or each.name == "run")
        and each.name not in EXAMPLES
    )


def main(argv: list[str]) -> int:
    """Print the findings; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.prose")
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path)
    count = 0
    for path in files(parser.parse_args(argv).paths):
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for line, finding in sorted(findings(path)):
            count += 1
            print(f"{name}:{line}: {finding}")
    print(f"{count} findings", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
