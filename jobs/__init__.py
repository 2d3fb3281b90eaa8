"""The life of one edit: record and states, files, queue, events, keys, webhooks, counts. Torch-free."""
