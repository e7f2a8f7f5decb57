"""The recording side: it writes the events of a process into a trace file."""
