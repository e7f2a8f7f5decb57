"""Playing conversations to servers: clients, the end of a step, checks, recordings."""
