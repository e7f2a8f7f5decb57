"""The recording side: what puts the events of a process into a trace file."""
