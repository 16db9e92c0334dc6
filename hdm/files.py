"""Files that are there whole or not at all."""

import contextlib
import os
from pathlib import Path

from hdm.errors import InputError


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` beside `path` and moves it into place. Raises InputError, an old file kept, where it can't."""
    partial = path.parent / f".{path.name}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with nothing in it
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(f"{path} can't be written ({error.strerror}): free space or choose another place") from error
