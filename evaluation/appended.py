"""Files of JSON Lines that grow line by line, and outlive a crash in the middle of one."""

from __future__ import annotations

from pathlib import Path


def cut_torn_line(path: Path) -> None:
    """What a crash left of a line that was being written is removed: that edit is made again."""
    if path.is_file():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.write_bytes(content[: content.rfind(b"\n") + 1])
