"""Programs that take up what a target needs. Each runs as a process of its own, and ends by itself."""
