"""What can end a command early: input that a user can mend, and a user who stops it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with status 2; in Python it is an ordinary `ValueError`.
    """


def hint(name: object, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: which known one is meant, or all that are known."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1)
    return f": did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"


class Diverged(InputError):  # noqa: N818  # what happened, not a mistake
    """Numbers that are no longer finite, in the course of a training."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, by Ctrl-C, a notebook's stop button or SIGTERM, and has saved its state.

    signal: the number of the signal; the command line exits with 128 more.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
