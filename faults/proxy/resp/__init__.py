"""RESP (Redis, Valkey) links of the fault proxy."""
