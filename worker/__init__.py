"""Processes: the worker that runs edits, the deliverer of webhooks, the supervisor that keeps everything alive."""
