"""The background load."""
