"""Training recipes of a study, told apart."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from videopool.results import fingerprint, without_seed
from videopool.results.point import MANIFEST, read_json

FEW = 2  # settings that may tell recipes of one pooling apart


def recipes(study: Path, runs: Iterable[str]) -> dict[str, str]:
    """By training run, a name that runs share which differ in their seed alone.

    Recipes of one pooling are told apart by the few settings in which they differ, else by their fingerprints.
    """
    found: dict[str, tuple[str, str]] = {}
    settings: dict[str, dict[str, dict[str, Any]]] = {}  # by name and fingerprint
    for run in runs:
        identity = (read_json(study / run / MANIFEST) or {}).get("identity")
        common = without_seed(identity) if isinstance(identity, dict) else {"run": run}
        name = re.sub(r"-s\d+-[0-9a-f]{8}$", "", run)
        found[run] = name, fingerprint(common)
        settings.setdefault(name, {})[fingerprint(common)] = _flat(common)
    own = {name: _told_apart(alike) for name, alike in settings.items()}
    return {run: f"{name}{own[name][common]}" for run, (name, common) in found.items()}


def _told_apart(recipes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What to say of each of several recipes, beside what they have in common."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    unlike = [key for key in keys if len({str(recipe.get(key)) for recipe in recipes.values()}) > 1]
    if not 0 < len(unlike) <= FEW:
        return {common: "" if len(recipes) == 1 else f" {common[:4]}" for common in recipes}
    return {
        # What is null, or as usual and therefore not in a recipe, goes without saying.
        common: "".join(f", {key.rpartition('.')[2]} {recipe[key]}" for key in unlike if recipe.get(key) is not None)
        for common, recipe in recipes.items()
    }


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one mapping, with dots in its keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
