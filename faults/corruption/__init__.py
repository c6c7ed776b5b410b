"""The data engine: seeded, reversible corruption of tables. It needs numpy, and nothing else of the harness."""
