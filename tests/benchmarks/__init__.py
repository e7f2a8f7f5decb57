"""How fast chat servers are, measured in the same way by anybody: see __main__."""
