"""Errors: the base class of all rooms."""


class UserError(Exception):
    """Something that its user can mend: told in one line, without a traceback."""
