"""`python -m benchmarks.gpu`: the engine's speed on a GPU, beside diffusers' own pipeline on the same one."""
