"""The exit code of this process: 0 as long as everything it ran or started is complete."""

_exit_code = 0


def exit_code() -> int:
    """What the process should exit with."""
    return _exit_code


def settle(code: int) -> None:
    """Note how something ended; the worst counts."""
    global _exit_code
    _exit_code = max(_exit_code, code)
