"""The gate: every step that a change must pass, on every Python of this machine.

1. the README's own test command, with python3
2. format, lint, imports, text, structure, types; wheel and sdist
3. the suite against the wheel, on each Python from 3.11 to 3.14 found here. The Python
   of step 1 runs only the files that had tests to skip there.

Rule 1: the checkout stays unchanged: steps run in a copy of it.
Rule 2: a job is a process group. A signal to the gate ends each with all its processes.
Rule 3: the suite waits for a part of its time. Lint, builds and installations run
meanwhile, at a lower priority; their output appears in its turn.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import ClassVar, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
PAGE_TESTS = "tests/compat/trace/render/test_page.py"

# Seconds between Ctrl-C for a job and its end by SIGKILL.
TIME_TO_STOP = 10.0

# A file that had tests to skip, in pytest's summary.
SKIPPED = re.compile(r"^SKIPPED \[\d+\] ([^:]*):", re.MULTILINE)

# apt-get prints a page for each package; only a failure needs its last lines.
INSTALL_CHROMIUM = """\
export DEBIAN_FRONTEND=noninteractive
output=$({ apt-get -q update &&
  apt-get -q install -y --no-install-recommends chromium; } 2>&1) ||
  tail -n 3 <<<"$output"
"""


class Job:
    """A shell command in its own process group, with its output in a file.

    One in the background has a lower priority, and its output is printed at its end.
    """

    running: ClassVar[list[Job]] = []

    def __init__(self, name: str, command: str, log: Path, background: bool) -> None:
        self.name = name
        self.log = log
        self.background = background
        file = shlex.quote(str(log))
        output = f">{file} 2>&1" if background else f"2>&1 | tee {file}"
        shell = ["bash", "-o", "pipefail", "-c", f"{{ {command}\n}} {output}"]
        self.popen = subprocess.Popen(
            ["nice", "-n", "10", *shell] if background else shell,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        Job.running.append(self)

    def finish(self) -> str:
        """Wait for the end, print output not shown yet, and return all of it.

        Raises:
            SystemExit: the job has failed.
        """
        status = self.popen.wait()
        Job.running.remove(self)
        output = self.log.read_text(encoding="utf-8", errors="replace")
        if self.background:
            print(output, end="", flush=True)
        if status:
            step(f"FAILED, with status {status}: {self.name}")
            raise SystemExit(1)
        return output

    def stop(self) -> None:
        """End the process group: SIGINT, as Ctrl-C, later SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGINT)
            end = time.monotonic() + TIME_TO_STOP
            while time.monotonic() < end:
                self.popen.poll()
                os.killpg(self.popen.pid, 0)
                time.sleep(0.1)
            os.killpg(self.popen.pid, signal.SIGKILL)


class Gate:
    """The steps, in a working folder."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.copy = work / "checkout"
        self.pythons = {version: find_python(version) for version in VERSIONS}
        self.found = [version for version in VERSIONS if self.pythons[version]]

    def nox(self, *words: str) -> str:
        """Return the command that runs a step in the copy of the checkout."""
        nox = [sys.executable, "-m", "nox", "-f", str(self.copy / ".ci/noxfile.py")]
        return shlex.join([*nox, "--envdir", str(self.work / "nox"), *words])

    def suite(self, version: str, *words: str) -> str:
        """Return the command for the suite on a version, which is found first."""
        folder = Path(str(self.pythons[version])).parent
        command = self.nox("-s", f"suite-{version}", *words)
        return f"PATH={shlex.quote(str(folder))}:$PATH {command}"

    def begin(self, name: str, command: str) -> Job:
        """Start a job in the background."""
        return Job(name, command, self.work / f"{name}.log", background=True)

    def now(self, name: str, command: str) -> str:
        """Run a job, show its output as it comes, and return it."""
        return Job(name, command, self.work / f"{name}.log", background=False).finish()

    def run(self) -> None:
        """Run all steps."""
        copy_checkout(self.copy)
        browser = None
        if not has_chromium() and os.geteuid() == 0 and shutil.which("apt-get"):
            # Without one, the tests of the page that shows a trace are skipped.
            browser = self.begin("a browser", INSTALL_CHROMIUM)
        prepare = [self.suite(each, "--install-only") for each in self.found[:1]]
        checks = " && ".join([self.nox("-s", "lint", "wheel"), *prepare])
        checking = self.begin("lint and wheel", checks)
        step("the README's test command")
        skipped = SKIPPED.findall(self.now("readme", self.nox("-s", "readme")))
        step("lint and wheel")
        checking.finish()
        if browser:
            step("a browser")
            browser.finish()
        self.run_suites(sorted(set(skipped)))

    def run_suites(self, skipped: list[str]) -> None:
        """Run the suite on each version, while the next one is installed."""
        for version, later in zip(self.found, [*self.found[1:], None], strict=True):
            following = None
            if later:
                command = self.suite(later, "--install-only")
                following = self.begin(f"installation for {later}", command)
            step(f"the suite on the wheel, Python {version}")
            if version != OWN:
                self.now(f"suite {version}", self.suite(version, "-R"))
            elif skipped:
                self.now(f"suite {version}", self.suite(version, "-R", "--", *skipped))
            if following:
                following.finish()


def find_python(version: str) -> Path | None:
    """Return the interpreter of a version, from PATH or pyenv; a shim may not run."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    known = [*map(str, root.glob(f"versions/{version}.*/bin/python{version}"))]
    if on_path := shutil.which(f"python{version}"):
        known.insert(0, on_path)
    check = f"import sys, venv; assert '%d.%d' % sys.version_info[:2] == '{version}'"
    for python in known:
        done = subprocess.run([python, "-c", check], capture_output=True, check=False)
        if done.returncode == 0:
            return Path(python)
    return None


def copy_checkout(target: Path) -> None:
    """Copy the files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def has_chromium() -> bool:
    """Return whether a Chromium is installed."""
    return any(map(shutil.which, ("chromium", "chromium-browser")))


def step(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def main(work: Path) -> None:
    """Run the gate; on the way out, end running jobs and remove the folder."""
    signums = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    for signum in signums:
        signal.signal(signum, _exit)
    # The original is found beside the checkout; steps in a copy need its path.
    original = ROOT.parent / "shared/tutorial/server.py"
    if original.exists():
        os.environ.setdefault("LEGACY_CHAT_TUTORIAL", str(original))
    os.environ.update(CI="true", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_QUIET="1")
    gate = Gate(work)
    try:
        gate.run()
    finally:
        for signum in signums:
            signal.signal(signum, signal.SIG_IGN)
        for job in Job.running:
            job.stop()
        shutil.rmtree(work, ignore_errors=True)
    step("done")
    missing = [version for version in VERSIONS if version not in gate.found]
    if missing:
        print(f"NOT RUN, not on this machine: Python {' '.join(missing)}")
    if not has_chromium():
        print(f"NOT RUN, no chromium on this machine: {PAGE_TESTS}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
