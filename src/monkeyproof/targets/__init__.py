"""What can be broken: the target port and its adapters."""
