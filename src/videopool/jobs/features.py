"""job=features: what the feature store on disk holds; list it, check it, or clear it up."""

from collections.abc import Callable

from omegaconf import DictConfig

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.features import DiskStore, FeatureStoreError
from videopool.features.upkeep import holdings, holdings_table, prune, size_text, verify
from videopool.notes import note_list
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.terminal import console, watched


def run(config: DictConfig) -> Outcome:
    """Look after the store that features=disk uses.

    Raises:
        ConfigError: no such action, or no store on disk.
        FeatureStoreError: files cannot be removed.
    """
    action = str(config.job.action)
    if action not in ACTIONS:
        raise ConfigError(f"job.action={action!r}: choose one of {', '.join(ACTIONS)}")
    store = build(config, "features")
    if not isinstance(store, DiskStore):
        raise ConfigError(f"job=features looks after a store on disk, not {type(store).__name__}: say features=disk")
    if not holdings(store.root):
        return Outcome(COMPLETE, f"features {action}", f"nothing is kept in {store.root}", str(store.root))
    try:
        return ACTIONS[action](store)
    except OSError as error:
        raise FeatureStoreError(f"{store.root}: {error.strerror or error}") from error


def _list(store: DiskStore) -> Outcome:
    found = holdings(store.root)
    screen = console()
    screen.print(holdings_table(found, str(store.root)))
    total = sum(holding.bytes for holding in found)
    told = f"{size_text(total)} of at most {size_text(store.limit_bytes)}, {len(found)} sources"
    return Outcome(COMPLETE, "features list", told, str(store.root))


def _verify(store: DiskStore) -> Outcome:
    verdict = verify(store.root, watched)
    wrong = [*verdict.damaged, *(f"{path}: changed, but not its size and time of change" for path in verdict.changed)]
    note_list(wrong)
    told = f"{verdict.views} views in {verdict.segments} segments and {verdict.clips} clips are as they were written"
    if wrong:
        told += f"; {len(verdict.damaged)} damaged files set aside, {len(verdict.changed)} records of clips removed"
    return Outcome(FAILED if wrong else COMPLETE, "features verify", told, str(store.root))


def _prune(store: DiskStore) -> Outcome:
    freed = prune(store.root, store.limit_bytes)
    parts = [f"{count} {reason}" for reason, count in sorted(freed.items()) if reason != "bytes"]
    left = sum(holding.bytes for holding in holdings(store.root))
    told = f"freed {size_text(freed['bytes'])} ({', '.join(parts) or 'nothing to remove'}); {size_text(left)} kept"
    return Outcome(COMPLETE, "features prune", f"{told} of at most {size_text(store.limit_bytes)}", str(store.root))


ACTIONS: dict[str, Callable[[DiskStore], Outcome]] = {"list": _list, "verify": _verify, "prune": _prune}
