"""``python -m compat.trace``: see compat.trace.cli."""

from __future__ import annotations

import sys

from compat.trace.cli import main

if __name__ == "__main__":
    sys.exit(main())
