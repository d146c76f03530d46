"""Errors: the base class of all rooms."""


class UserError(Exception):
    """An error that the user can mend: printed in one line, without a traceback."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line of at most 300 characters; its class if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__
