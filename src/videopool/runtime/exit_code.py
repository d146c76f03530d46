"""The exit code of this process: 0 while everything that it ran or started is complete."""

_exit_code = 0


def exit_code() -> int:
    """The code to exit with."""
    return _exit_code


def settle(code: int) -> None:
    """Note the exit code of one part; the largest counts."""
    global _exit_code
    _exit_code = max(_exit_code, code)
