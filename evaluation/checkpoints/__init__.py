"""Published checkpoints of the InstructPix2Pix family, brought into the form that the engine loads.

`foi_core` loads diffusers' layout with safetensors weights and nothing else. What was published otherwise (original
`.ckpt` files, `.bin` weights) is converted once, by `python -m evaluation.checkpoints SOURCE OUT_FOLDER`. Needs no
network, and reads weights without running code that a file may hold.
"""
