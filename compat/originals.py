"""asyncore and asynchat, imported before anything else imports them.

Python 3.11 announces their removal with a DeprecationWarning that names the importing
line. That line would be ours, and ``python -W error`` would make it an error.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 12):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import asynchat  # noqa: F401
