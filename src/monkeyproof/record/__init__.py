"""A trial's folder: its events and its readings."""
