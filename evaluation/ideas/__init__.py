"""Ideas past the paper, one small file each: parts of a `Recipe` that the tables compare (`evaluation.scenes.rows`).

What helped is in `foi_core` and in the preset "default"; what is left here did not, and keeps its row in the table.
"""
