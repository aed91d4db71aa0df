"""The exception that vividmed raises for input that the user can correct."""


class VividMedError(ValueError):
    """Bad input: a file, a field or an argument that the user can correct.

    The message is one line that names the place (file, row, field or argument), what was found there and what to do.
    Commands print it without a traceback and exit with status 2.
    """
