"""Which samples two points answer differently: McNemar's view of two accuracies."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Flips:
    """Samples by who was right.

    Attributes:
        both, neither: samples that both points, or neither, answered rightly.
        first, second: ids of samples that only the first, or only the second, answered rightly.
    """

    both: int
    neither: int
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def p(self) -> float:
        """Exact McNemar test: the flips in either direction are as likely as heads and tails.

        It takes samples as independent (McNemar, Psychometrika 12, 1947). Questions of one clip are not: beside it
        stands the p-value clustered by clip, which is the one to quote.
        """
        n, fewer = len(self.first) + len(self.second), min(len(self.first), len(self.second))
        return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)


def flips(first: Mapping[str, float], second: Mapping[str, float]) -> Flips | None:
    """Flips between two points' scores of the same samples, by sample id; None if any is neither 0 nor 1."""
    if not {*first.values(), *second.values()} <= {0.0, 1.0}:
        return None
    pairs = [(first[name], second[name], name) for name in sorted(first)]
    return Flips(
        both=sum(a == b == 1 for a, b, _ in pairs),
        neither=sum(a == b == 0 for a, b, _ in pairs),
        first=tuple(name for a, b, name in pairs if a > b),
        second=tuple(name for a, b, name in pairs if a < b),
    )
