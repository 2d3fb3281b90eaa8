"""Processes: the worker that runs edits, the deliverer of webhooks, the supervisor that keeps everything alive."""

import foi_core  # noqa: F401  before torch, whose threads it sets
