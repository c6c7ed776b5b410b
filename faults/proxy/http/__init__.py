"""HTTP/1 links of the fault proxy."""
