"""Focus on Your Instruction (Guo and Lin, CVPR 2024): fine-grained, multi-instruction image editing without training.

from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine  # imports torch; this package does not

engine = Engine.load(model="demo", device="auto")
result = engine.edit(image, EditSpec(instructions=(SubInstruction("make the hat black", keyword="hat"),), seed=7))
"""

from foi_core import openmp
from foi_core.errors import (
    DeadlineExceeded,
    EditCanceled,
    EngineDied,
    FoiError,
    InvalidParameter,
    ModelFailure,
    OutOfMemory,
    UnsafeResult,
    UnsupportedCheckpoint,
)
from foi_core.spec import EditSpec, ModelDefaults, SubInstruction

openmp.wait_asleep()

__all__ = [
    "DeadlineExceeded",
    "EditCanceled",
    "EditSpec",
    "EngineDied",
    "FoiError",
    "InvalidParameter",
    "ModelDefaults",
    "ModelFailure",
    "OutOfMemory",
    "SubInstruction",
    "UnsafeResult",
    "UnsupportedCheckpoint",
]
