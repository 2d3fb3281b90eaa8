"""The bundled demo model: a procedural world with ground truth and a real, small InstructPix2Pix trained on it."""

import foi_core  # noqa: F401  before torch, whose threads it sets
