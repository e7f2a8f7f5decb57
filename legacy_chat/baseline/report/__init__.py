"""Conversations and results for readers: text, HTML, Mermaid, JSON, JUnit."""
