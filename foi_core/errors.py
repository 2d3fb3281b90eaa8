"""Every error that foi_core raises on purpose.

FoiError
├── InvalidParameter      a value of the request is not allowed; names the field, the value and what is allowed
├── UnsupportedCheckpoint the model folder is not of the InstructPix2Pix family; says what is missing
├── ModelFailure          the model's numbers overflowed
├── UnsafeResult          the model's safety checker flagged the result
├── OutOfMemory           the device has too little memory for this edit alone; says what to change
├── EditCanceled          the caller asked to stop
├── DeadlineExceeded      the edit's time was over before it was done
└── EngineDied            the device cannot be used any more by this process; the edit may be run again by another
"""

from __future__ import annotations


class FoiError(Exception):
    """Base of all errors that foi_core raises on purpose."""


class InvalidParameter(FoiError, ValueError):
    """A value that is not allowed: `field` in dotted form (`instructions[0].keyword`), `value`, and what is
    `allowed`."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        super().__init__(
            f"{field}: {shown if len(shown) <= 80 else shown[:77] + '...'} is not allowed; expected {allowed}"
        )
        self.field = field
        self.value = value
        self.allowed = allowed


class UnsupportedCheckpoint(FoiError):
    """The model cannot be used for instruction editing; the message says why and which models can."""


class ModelFailure(FoiError):
    """The model gave numbers that are not finite, as half precision can on some checkpoints."""


class UnsafeResult(FoiError):
    """The model's own safety checker flagged the result, which is withheld."""


class EditCanceled(FoiError):
    """The edit was stopped by its caller before it was done; it has no result."""


class OutOfMemory(FoiError):
    """One edit alone does not fit into the device's memory."""


class DeadlineExceeded(FoiError):
    """The edit was stopped because its time was over."""


class EngineDied(FoiError):
    """The engine's device failed for good. Nothing is wrong with the edit: another process may run it."""
