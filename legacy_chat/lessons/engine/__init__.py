"""The machinery of all lessons."""
