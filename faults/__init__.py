"""The Monkey: one file per family of faults, and the fault proxy that network faults sit on."""
