"""Processes, locks, timers and control sockets of this machine."""
