"""The one exception that means "the user must change something"."""


class UserError(Exception):
    """Bad input: one clear sentence that says what is wrong, where, and what to do.

    Commands print it on stderr and exit with code 2; every other exception is a defect of ours.
    """
