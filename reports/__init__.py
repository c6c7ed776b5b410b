"""Statistics over trials, and one file per output format."""
