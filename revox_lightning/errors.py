"""The one exception that means "the user must change something"."""

_LONGEST = 1000


class UserError(Exception):
    """Bad input: one clear sentence that says what is wrong, where, and what to do.

    Commands print it on stderr and exit with code 2; every other exception is a defect of ours. What it quotes of files
    cannot end the line, nor tell the terminal anything.

    >>> print(UserError("no file \x1b[31ma\\nb"))
    no file ?[31ma b
    """

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 3 :]}"
        return "".join(c if c.isprintable() else "?" for c in text)
