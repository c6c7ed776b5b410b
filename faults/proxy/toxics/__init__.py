"""Toxics: what the fault proxy can do to a link. One kind a file; each file here is found without being listed."""
