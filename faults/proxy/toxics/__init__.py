"""Toxics: what the fault proxy can do to a link."""
