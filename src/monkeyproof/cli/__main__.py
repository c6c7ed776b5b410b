"""Runs the command line: ``python -m monkeyproof.cli``."""

from monkeyproof.cli.app import main

main()
