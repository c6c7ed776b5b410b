"""What the embedded target does: scoring, features, and the pipeline of new records."""
