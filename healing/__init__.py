"""The Elephant, a minimal healer: detect, diagnose, decide, act, verify."""
