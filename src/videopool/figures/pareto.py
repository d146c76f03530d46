"""Which points nobody would give up: none is as cheap and better, or as good and cheaper."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of the points on the Pareto front, by growing cost.

    A point is on it if no other costs at most as much and scores at least as well, one of the two strictly. Of
    points that are equal in both, all are on it.
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -scores[place]))
    front: list[int] = []
    for place in order:
        equal = front and (costs[place], scores[place]) == (costs[front[-1]], scores[front[-1]])
        if not front or equal or scores[place] > scores[front[-1]]:
            front.append(place)
    return front
