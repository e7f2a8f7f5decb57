"""Descriptions of conversations: transcripts, profiles, names; no sockets."""
