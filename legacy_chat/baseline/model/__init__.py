"""What a conversation is: transcripts, profiles, names, cuts; no sockets."""
