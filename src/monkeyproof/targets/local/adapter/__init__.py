"""The embedded target behind the target port."""
