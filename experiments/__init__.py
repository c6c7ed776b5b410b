"""The catalogue: one Chaos Toolkit file per failure scenario."""
