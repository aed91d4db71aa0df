"""The one exception that vividmed raises for input a user can mend."""


class VividMedError(ValueError):
    """Bad input: a file, a field or an argument that the user can correct.

    The message is one line that names what is wrong (file, row, field or argument) and how to mend it.
    Programs of the project print it without a traceback and exit with status 2.
    """
