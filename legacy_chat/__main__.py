"""``python -m legacy_chat``: serve, as the tutorial's server script did."""

from __future__ import annotations

import sys

from legacy_chat.cli import main

if __name__ == "__main__":
    sys.exit(main())
