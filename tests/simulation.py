"""Simulated benchmarks: how often intervals hold the truth, and how often tests find what is there and what is not.

    python tests/simulation.py

prints the tables of docs/results/coverage.md. Clips differ: each has its own chances, from a beta distribution (of
flips in either direction: from a Dirichlet distribution), whose spread gives two samples of a clip the correlation
asked for.
"""

import numpy as np

from videopool.results.statistics import DIFFERENCE, SCORE, detectable_difference, effective, holm, interval, spread

LAYOUTS = ("one", "five", "unequal", "twenty")
CORRELATIONS = (0.0, 0.2, 0.4, 0.6)
FLIPPED = (0.1, 0.3, 0.6)
MEANS = (0.03, 0.1, 0.3, 0.5, 0.9, 0.97)


def sizes_of(layout: str, clips: int) -> np.ndarray:
    """Samples on each clip; unequal: exponential, a mean of six, as many as 25."""
    if layout == "unequal":
        return np.maximum(1, np.round(-6 * np.log((np.arange(clips) + 0.5) / clips))).astype(int)
    return np.full(clips, {"one": 1, "five": 5, "twenty": 20}[layout])


def scores(rng: np.random.Generator, runs: int, sizes: np.ndarray, mean: float, correlation: float) -> np.ndarray:
    """Right answers on each clip, [runs, C]."""
    chances = np.full((runs, len(sizes)), mean)
    if correlation:
        free = 1 / correlation - 1
        chances = rng.beta(mean * free, (1 - mean) * free, size=chances.shape)
    return rng.binomial(sizes, chances).astype(float)


def differences(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, mean: float, flipped: float, correlation: float
) -> np.ndarray:
    """Sums of differences on each clip, [runs, C], of which a share is not zero."""
    odds = np.array([(flipped + mean) / 2, (flipped - mean) / 2, 1 - flipped])
    chances = np.broadcast_to(odds[:, None, None], (3, runs, len(sizes)))
    if correlation:
        drawn = rng.gamma(np.maximum(1e-12, odds[:, None, None] * (1 / correlation - 1)), size=chances.shape) + 1e-300
        chances = drawn / drawn.sum(axis=0)
    better = rng.binomial(sizes, np.clip(chances[0], 0, 1))
    left = np.clip(chances[1] / np.maximum(1 - chances[0], 1e-300), 0, 1)
    return (better - rng.binomial(sizes - better, left)).astype(float)


def estimates(sums: np.ndarray, sizes: np.ndarray, bounds: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Lower and upper bounds and p-values of each run, as the program makes them."""
    values = sums.sum(axis=-1) / sizes.sum()
    residuals, shares = (sums - sizes * values[..., None]) / sizes.sum(), sizes / sizes.sum()
    return interval(values, *spread(residuals, shares), effective(shares), bounds)


def coverage_of_scores(rng: np.random.Generator, runs: int, sizes: np.ndarray, mean: float, r: float) -> float:
    low, high, _ = estimates(scores(rng, runs, sizes, mean, r), sizes, SCORE)
    return float(np.mean((low <= mean) & (mean <= high)))


def coverage_of_differences(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, mean: float, flipped: float, r: float
) -> float:
    low, high, _ = estimates(differences(rng, runs, sizes, mean, flipped, r), sizes, DIFFERENCE)
    return float(np.mean((low <= mean + 1e-12) & (mean - 1e-12 <= high)))


def claims(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, mean: float, flipped: float, r: float, level: float
) -> float:
    """Share of runs whose p-value is below a level."""
    return float(np.mean(estimates(differences(rng, runs, sizes, mean, flipped, r), sizes, DIFFERENCE)[2] < level))


def any_false_claim(
    rng: np.random.Generator, studies: int, comparisons: int, sizes: np.ndarray, flipped: float, r: float
) -> float:
    """Share of studies, a multiple of 20, with a claim after Holm's correction, where no two points differ."""
    false = 0
    for _ in range(0, studies, 20):
        p = estimates(differences(rng, 20 * comparisons, sizes, 0.0, flipped, r), sizes, DIFFERENCE)[2]
        false += sum(min(holm(own.tolist())) < 0.05 for own in p.reshape(20, comparisons))
    return false / studies


def table(title: str, heading: list[object], rows: list[list[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(map(str, heading))} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def span(shares: list[float]) -> str:
    """Least and greatest of some shares, in per cent."""
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


def main(runs: int = 10_000) -> None:
    rng = np.random.default_rng(0)
    layouts = [(clips, layout, sizes_of(layout, clips)) for clips in (10, 20, 60, 400) for layout in LAYOUTS]
    rows: list[list[object]] = []
    for clips, layout, sizes in layouts:
        by_mean = [[coverage_of_scores(rng, runs, sizes, m, r) for r in CORRELATIONS] for m in MEANS]
        rows.append([clips, layout, *map(span, by_mean)])
    table("Coverage of 95 % intervals of a score, over correlations 0 to 0.6", ["clips", "samples", *MEANS], rows)
    rows = []
    runs = runs // 5
    for clips, layout, sizes in layouts:
        if layout not in ("five", "unequal"):
            continue
        asked = [(share * flipped, flipped) for flipped in FLIPPED for share in (0, 0.5)]
        by_case = [[coverage_of_differences(rng, runs, sizes, *case, r) for r in CORRELATIONS] for case in asked]
        rows.append([clips, layout, *map(span, by_case)])
    heading = [f"{100 * share * flipped:g} of {100 * flipped:g} %" for flipped in FLIPPED for share in (0, 0.5)]
    table("Coverage of 95 % intervals of a difference", ["clips", "samples", *heading], rows)
    rows = []
    for clips in (20, 60, 400):
        sizes = sizes_of("five", clips)
        for r in (0.0, 0.3):
            errors = [claims(rng, 200 * runs // clips, sizes, 0.0, 0.2, r, level) for level in (0.05, 0.005)]
            family = any_false_claim(rng, 40_000 // clips, 100, sizes, 0.2, r)
            row: list[object] = [clips, r, *(f"{100 * error:.2f}" for error in errors), f"{100 * family:.1f}"]
            for comparisons in (1, 100):
                found = detectable_difference(sizes.tolist(), r, 0.4, comparisons)
                if found is None:
                    row.append("none")
                    continue
                power = claims(rng, runs, sizes, found, 0.4, r, 0.05 / comparisons)
                row.append(f"{100 * found:.1f}: {100 * power:.0f} %")
            rows.append(row)
    heading = ["clips", "correlation", "p < 0.05, %", "p < 0.005, %", "any of 100 by Holm, %"]
    table("No difference: claims; a planned difference: power", [*heading, "plan for 1", "plan for 100"], rows)


if __name__ == "__main__":
    main()
