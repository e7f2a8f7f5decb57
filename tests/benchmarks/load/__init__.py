"""The load on one server, from a process of its own.

    python -m tests.benchmarks.load SCENARIO --port PORT --pid PID
                                    [--seconds S] [--warm-up S]

Prints what came of it as JSON.

Rule 1: the window that is measured begins and ends with nothing under way: every
message that was sent in it has arrived everywhere, and was paid for by the server
within it.
Rule 2: the bytes that each client must get are known, and each has got just as many.
Anything else is an error, and no figure.
Rule 3: nothing waits for ever. A server that delivers nothing for STALL seconds while
something is under way has lost it.
"""
