"""The load on one server, in its own process.

    python -m tests.benchmarks.load SCENARIO --port PORT --pid PID
                                    [--seconds S] [--warm-up S]

It prints the figures as JSON. Where a C compiler is found, generator/*.c makes the
load of most scenarios instead: the same bytes in the same order of events, see
compiled.py.

Rule 1: the measured window begins and ends with no message in transit. Every message
sent in it has arrived at every client, and the server's work for it lies within it.
Rule 2: the bytes that each client must receive are known, and each has received exactly
that number. Anything else is an error without figures.
Rule 3: no wait is endless. A server that delivers nothing for STALL seconds while a
message is in transit has lost it.
"""
