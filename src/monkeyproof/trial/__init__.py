"""One trial: the session around one experiment, from the first sidecar to the last undo."""
