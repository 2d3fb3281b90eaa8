"""The models and the folder of pictures are those of the evaluation on pictures."""

from tests.evaluation.pictures.conftest import clip, data, model, write

__all__ = ["clip", "data", "model", "write"]
