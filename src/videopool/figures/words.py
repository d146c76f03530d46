"""Names of poolings and stages in words, for figures; tables and files keep the labels."""

import re

THEN = " + "  # between the steps of a chain
_PLACES = {"random": "", "same": " (equal in all frames)", "border": " (at the border)", "centre": " (in the centre)"}
# Labels of interventions, whole, and their words; \1 and so on are the label's own parts.
INTERVENTIONS: tuple[tuple[str, str], ...] = (
    (r"clip norm q(\S+)", r"norms clipped at quantile \1"),
    (r"clip norm (\S+)", r"norms clipped at \1"),
    (r"rescale norm mean", "norms made equal"),
    (r"rescale norm (\S+)", r"norms set to \1"),
    (r"drop outliers (\S+) neighbours", r"tokens above \1 medians replaced by their neighbours"),
    (
        r"drop random as outliers seed (\S+) (\S+) (\S+)",
        r"as many random tokens replaced (above \2 medians, \3, seed \1)",
    ),
    (r"drop all but outliers (\S+) (\S+)", r"tokens up to \1 medians replaced (\2)"),
    (r"drop outliers (\S+) (\S+)", r"tokens above \1 medians replaced (\2)"),
    (r"shuffle time seed (\S+)", r"frames shuffled (seed \1)"),
    (r"shuffle space seed (\S+)", r"patches shuffled (seed \1)"),
)
_INJECTED = re.compile(r"inject outliers (\S+) (scale|direction|both)(?: x(\S+))? (\S+) seed (\S+)")
_TEMPERATURE = re.compile(r"(norm weighted|text guided) t(\S+)")
_STAGES = {"encoder": "tower", "projector": "projector", "pooled": "after pooling", "llm": "language model"}


def pooling_words(label: str) -> str:
    """A pooling's label, with interventions on norms or order in words: what is done, then the pooling."""
    first, joint, rest = label.partition(THEN)
    words = _intervention(first)
    if words is None:
        return _TEMPERATURE.sub(r"\1 (temperature \2)", label)
    return f"{words}, then {'no pooling' if rest == 'none' else pooling_words(rest)}" if joint else words


def _intervention(label: str) -> str | None:
    if found := _INJECTED.fullmatch(label):
        share, mode, times, placement, seed = found.groups()
        larger = f"made {times}x larger" if float(times or 1) > 1 else f"scaled by {times}"
        done = {"scale": larger, "direction": "turned one way", "both": f"{larger} and turned one way"}[mode]
        other = "" if seed == "0" else f" (seed {seed})"
        return f"{100 * float(share):g} % of tokens{_PLACES.get(placement, f' ({placement})')} {done}{other}"
    return next((re.sub(form, words, label) for form, words in INTERVENTIONS if re.fullmatch(form, label)), None)


def stage_words(name: str) -> str:
    """A stage of job=norms in words: layer 0 holds what enters the first layer; -1 is the last."""
    kind, _, layer = name.partition(".")
    if kind not in _STAGES or not re.fullmatch(r"-?\d*", layer):
        return name
    place, number = "", int(layer or 0)
    if number < 0:
        place = ", last layer" + (f" but {-number - 1}" if number < -1 else "")
    elif layer:
        place = f", after layer {number}" if number else ", before layer 1"
    return _STAGES[kind] + place
