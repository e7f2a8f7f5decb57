"""Random conversations for two servers, and the shortest one that differs."""
