"""The proof of the clock: real outages at known instants."""
