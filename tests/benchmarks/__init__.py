"""Benchmarks of chat servers: see __main__."""
