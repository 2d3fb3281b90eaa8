"""HTTP only: routes, wire schemas, limits, problem details. Torch-free; enqueues edits by name, never runs one."""
