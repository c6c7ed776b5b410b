"""What reverts faults when a trial cannot: watchdog, leases, replay of undo logs, residue audit."""
