"""Errors about benchmarks, and the words that they share."""

from collections.abc import Collection, Sequence

from videopool.errors import UserError


class BenchmarkError(UserError, ValueError):
    """A benchmark that cannot be read or used: what, where, what to do, in one line."""


def check_choice(key: str, value: object, choices: Collection[str]) -> None:
    """Raises BenchmarkError for a setting that is none of its choices."""
    if value not in choices:
        raise BenchmarkError(f"{key}={value!r}: choose one of {', '.join(choices)}")


def spare(error: BenchmarkError, left_out: list[BenchmarkError] | None) -> None:
    """Keep an error about an unusable row in the list; raise it if there is no list."""
    if left_out is None:
        raise error
    left_out.append(error)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
