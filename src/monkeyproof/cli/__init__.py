"""The command line."""

from monkeyproof.cli.app import main

__all__ = ["main"]
