"""What starts and supervises the parts of the embedded target."""
