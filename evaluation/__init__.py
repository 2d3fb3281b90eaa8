"""Measurements of the method: how well it does, not what it is."""
