"""The data and the models of the embedded target, and how it publishes them."""
