"""Processes: the worker that runs edits, the reaper that rescues them, the supervisor that keeps everything alive."""
