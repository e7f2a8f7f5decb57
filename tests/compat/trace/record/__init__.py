"""The trace's format, its reader, and the views."""
