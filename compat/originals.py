"""Import asyncore and asynchat before any other module does.

Python 3.11 issues a DeprecationWarning for the importing line. That would be a line of
compat, and ``python -W error`` would turn the warning into an error.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 12):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import asynchat  # noqa: F401
