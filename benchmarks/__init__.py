"""Measurements of the service: what it holds out, and how fast it is. Not of the method: that is `evaluation`."""
