"""What the errors of all rooms have in common."""


class UserError(Exception):
    """Something that its user can mend: told in one line, without a traceback."""
