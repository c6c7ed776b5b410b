"""What ends a trial at once: the conditions of ``abort_if``, and the process that watches them."""
