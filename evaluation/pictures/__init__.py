"""Evaluation on a user's own pictures, by the paper's protocol (Sec. 5.1): edits, measures, one table."""
