"""What a user wrote: the target file, its limits, YAML with line numbers, and what the harness must not show."""
