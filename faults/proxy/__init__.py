"""The fault proxy: it stands on the links of a target, and its toxics break them."""
