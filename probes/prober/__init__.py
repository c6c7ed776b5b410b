"""The prober: it asks the target questions whose right answers are known, at a fixed rate."""
