"""One trial: the session around one experiment, from the first observer to the last undo."""
