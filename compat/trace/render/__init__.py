"""The views of a trace: text, Mermaid, Perfetto, and an HTML page."""
