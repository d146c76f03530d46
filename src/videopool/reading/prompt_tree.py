"""Texts that are read in one row: as a tree of words, in which what several texts begin with stands once."""

from collections.abc import Sequence

Ids = Sequence[int]


def branches(texts: Sequence[Ids]) -> tuple[list[list[int]], list[list[int]]]:
    """The tree of some texts in pre-order, [token, depth, number of tokens below it], and the places of each text."""
    places: dict[tuple[int, int], int] = {}  # by place of the token before, and token
    paths: list[list[int]] = [[] for _ in texts]
    for text, path in sorted(zip(map(list, texts), paths, strict=True)):  # so that a branch is whole before the next
        place = -1
        for token in text:
            place = places.setdefault((place, token), len(places))
            path.append(place)
    nodes = [[token, 0, 0] for _, token in places]
    for path in paths:
        for depth, place in enumerate(path):
            nodes[place][1:] = depth, max(nodes[place][2], path[-1] - place)
    return nodes, paths


def room(texts: Sequence[Sequence[Ids]], most: int, answer: int = 0) -> tuple[int, int]:
    """Positions of the longest text and its answer; and how many texts of a clip fit in a row of so many positions."""

    def row(count: int) -> int:
        """The positions of the longest row of so many texts."""
        parts = (own[first : first + count] for own in texts for first in range(0, len(own), count))
        return max(len(branches(part)[0]) + answer * len(part) for part in parts)

    count = max(map(len, texts))
    while count > 1 and (length := row(count)) > most:
        count = max(1, min(count - 1, count * most // length))
    return max(len(text) for own in texts for text in own) + answer, count
