"""A disk that is full, as far as a process can tell."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes: the operating system refuses the write, as on a full disk."""
    with room_again():
        fill_disk(room)
        yield


def fill_disk(room: int) -> None:
    """From now on no file can grow beyond `room` bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))


@contextmanager
def room_again() -> Iterator[None]:
    """Afterwards files may be as large as before, whatever is done within."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
