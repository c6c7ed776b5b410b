"""The fault proxy: it relays the links of a target, and its toxics break them."""
