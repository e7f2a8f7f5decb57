"""Mutation checks: does a test fail if a line of the code is wrong?

    python -m tests.mutation                          # all modules of the table
    python -m tests.mutation compat/scheduler.py      # one of them

cosmic-ray (extra ``mutation``) changes one operator, number or keyword at a time, in a
copy of the checkout, and runs the tests that the table names. A change that no test
notices is printed as a diff: a test is missing, or the change makes no difference. This
takes minutes to hours for each module.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The module: its tests, the quickest first.
TESTS = {
    "compat/_outbox.py": "test_coalesced_writes test_backlog test_broadcast "
    "test_pushes_from_threads test_interrupts",
    "compat/scheduler.py": "test_scheduler test_interrupts test_fork",
    "compat/kernel_interest.py": "test_frames test_pollers test_traps test_same_calls",
    "compat/registrations.py": "test_frames test_pollers test_traps test_same_calls",
    "compat/settled.py": "test_frames test_same_calls",
    "legacy_chat/session.py": "test_kept test_repaired test_limits test_utf8 "
    "test_counters test_memory test_server",
}

# Seconds after which a run of the tests counts as failed: the change has made an
# endless loop.
TIMEOUT = 120.0

CONFIGURATION = """\
[cosmic-ray]
module-path = "{module}"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -m pytest -x -q -n 0 -p no:cacheprovider {tests}"

[cosmic-ray.distributor]
name = "local"

[cosmic-ray.filters.operators-filter]
exclude-operators = [
  "core/ReplaceBinaryOperator_(?!(Add_Sub|Sub_Add|Mul_Div|Div_Mul)$)",
  "core/ReplaceComparisonOperator_(?!({negated})$)",
]
"""

# Of each comparison, the opposite and the one that differs at the boundary. Other
# operators would be changed in annotations, too.
NEGATED = (
    "Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In|"
    "Lt_GtE|Lt_LtE|LtE_Gt|LtE_Lt|Gt_LtE|Gt_GtE|GtE_Lt|GtE_Gt"
)


def main(argv: list[str] | None = None) -> int:
    """Check the modules; return 1 if a change survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument(
        "module", nargs="*", metavar="MODULE", help=f"any of {', '.join(TESTS)}"
    )
    modules = parser.parse_args(argv).module or list(TESTS)
    if unknown := set(modules) - set(TESTS):
        parser.error(f"MODULE must be one of {', '.join(TESTS)}, got {unknown}")
    if find_spec("cosmic_ray") is None:
        parser.error('cosmic-ray is missing: pip install -e ".[mutation]"')
    survivors = 0
    for module in modules:
        for diff in check(module):
            survivors += 1
            print(diff, flush=True)
    print(f"{survivors} changes survive")
    return min(survivors, 1)


def check(module: str) -> Iterator[str]:
    """Yield the diffs of a module's changes that no test notices."""
    folder = "tests/compat" if module.startswith("compat/") else "tests/legacy_chat"
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "checkout")
        hidden = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=hidden)
        Path(copy, "mutation.toml").write_text(
            CONFIGURATION.format(
                module=module,
                timeout=TIMEOUT,
                negated=NEGATED,
                python=sys.executable,
                tests=" ".join(f"{folder}/{name}.py" for name in TESTS[module].split()),
            )
        )
        run(copy, "cosmic-ray", "init", "mutation.toml", "mutation.sqlite")
        run(copy, "cr-filter-operators", "mutation.sqlite", "mutation.toml")
        run(copy, "cosmic-ray", "exec", "mutation.toml", "mutation.sqlite")
        for line in run(copy, "cosmic-ray", "dump", "mutation.sqlite").splitlines():
            result = json.loads(line)[1]
            if result is not None and result["test_outcome"] == "survived":
                yield result["diff"]


def run(copy: Path, command: str, *words: str) -> str:
    """Run a command of cosmic-ray in the copy, whose modules the tests import."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(command)), *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
