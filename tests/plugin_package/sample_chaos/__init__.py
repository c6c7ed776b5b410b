"""A plugin of monkeyproof: one fault with its undo, one probe, one report format."""
