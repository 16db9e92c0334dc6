"""Checkpoints: written whole or not at all, so that a run that is stopped at any moment goes on from its last epoch."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from hdm.errors import InputError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` beside `path` and moves it into place. Raises InputError, the old file kept, where that fails."""
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(
            f"checkpoint {path} can't be written ({error}): free space or choose another directory"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state saved at `path`, or None where there is none. Raises InputError for a file that is no checkpoint."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise InputError(f"checkpoint {path} is damaged ({type(error).__name__}): delete it to start over") from error
