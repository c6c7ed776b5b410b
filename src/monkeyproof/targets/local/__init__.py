"""The embedded target: a small but real ML platform on one machine."""
