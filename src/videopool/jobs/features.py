"""job=features: list, verify or prune the feature store on disk."""

from omegaconf import DictConfig

from videopool.config.build import build, check
from videopool.config.errors import ConfigError
from videopool.features import DiskStore, FeatureStoreError
from videopool.features.upkeep import holdings, holdings_table, prune, size_text, verify
from videopool.notes import note_list
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.progress import watched
from videopool.runtime.terminal import console


def run(config: DictConfig) -> Outcome:
    """Look after the store of features=disk."""
    check(config, {tuple(ACTIONS): ["job.action"]})
    action = str(config.job.action)
    store = build(config, "features")
    if not isinstance(store, DiskStore):
        raise ConfigError(f"job=features looks after a store on disk, not {type(store).__name__}: say features=disk")
    good, message = True, f"nothing is kept in {store.root}"
    if holdings(store.root):
        try:
            good, message = ACTIONS[action](store)
        except OSError as error:
            raise FeatureStoreError(f"{store.root}: {error.strerror or error}") from error
    return Outcome(COMPLETE if good else FAILED, f"features {action}", message, str(store.root))


def _list(store: DiskStore) -> tuple[bool, str]:
    held = holdings(store.root)
    console().print(holdings_table(held, str(store.root)))
    total = size_text(sum(holding.bytes for holding in held))
    return True, f"{total} of at most {size_text(store.limit_bytes)}, {len(held)} sources"


def _verify(store: DiskStore) -> tuple[bool, str]:
    verdict = verify(store.root, watched)
    changed = [f"{path}: changed, but not its size and time of change" for path in verdict.changed]
    note_list([*verdict.damaged, *changed])
    message = f"{verdict.views} views in {verdict.segments} segments and {verdict.clips} clips are as they were written"
    if not verdict.damaged and not changed:
        return True, message
    removed = f"{len(verdict.damaged)} damaged files set aside, {len(changed)} records of clips removed"
    return False, f"{message}; {removed}"


def _prune(store: DiskStore) -> tuple[bool, str]:
    freed = prune(store.root, store.limit_bytes)
    removed = ", ".join(f"{count} {reason}" for reason, count in sorted(freed.items()) if reason != "bytes")
    left = size_text(sum(holding.bytes for holding in holdings(store.root)))
    message = f"freed {size_text(freed['bytes'])} ({removed or 'nothing to remove'}); {left} kept"
    return True, f"{message} of at most {size_text(store.limit_bytes)}"


ACTIONS = {"list": _list, "verify": _verify, "prune": _prune}  # each returns whether all is well, and one line
