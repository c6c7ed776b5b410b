"""Campaigns: many trials, planned, run, resumed and read back."""
