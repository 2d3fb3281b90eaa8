"""The life of one edit: its record and states, the blob store, the queue, the embedded Redis. Torch-free."""
