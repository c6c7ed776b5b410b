"""Stressors: programs that use up what a target needs. Each runs as a process of its own, and exits by itself."""
