"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with status 2; in Python it is an ordinary `ValueError`.
    """
