"""The undo log: what a fault is about to change and how to undo that, on disk before anything changes."""
