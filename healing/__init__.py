"""The Elephant, a minimal healer: a MAPE-K loop (monitor, analyse, plan, execute over shared knowledge)."""
