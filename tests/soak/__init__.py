"""A room for ten minutes, with clients of all tempers: ``python -m tests.soak``."""
