"""Judging edits on procedural scenes, where the true region and the true target are known."""
