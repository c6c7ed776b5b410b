"""How a recovery is computed from readings and events. Pure functions."""
