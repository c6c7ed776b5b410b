"""Toxics that corrupt the JSON records in an HTTP response."""
