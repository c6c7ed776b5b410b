"""What is observed from the users' side, and how a recovery is computed from it."""
