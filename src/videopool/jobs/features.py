"""job=features: list, verify or prune the feature store on disk."""

from contextlib import suppress
from datetime import UTC, datetime

from omegaconf import DictConfig

from videopool.config.build import check
from videopool.config.errors import ConfigError
from videopool.features import DiskStore, FeatureStoreError
from videopool.features.source import OWN
from videopool.features.upkeep import Holding, holdings, prune, verify
from videopool.inference.feature_key import shared_store
from videopool.notes import note_list
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.progress import watched
from videopool.runtime.tables import Heading, made_table, show_table, size_text

HEADINGS = (
    Heading("source", False), Heading("model", False), Heading("tower", False, 2), Heading("made in", False, 4),
    Heading("kept in", False, 3), Heading("clips", rank=1), Heading("views", rank=1), Heading("size", rank=1),
    Heading("damaged", rank=1), Heading("last used", rank=5),
)  # fmt: skip


def run(config: DictConfig) -> Outcome:
    """Look after the store of features=disk."""
    check(config, {tuple(ACTIONS): ["job.action"]})
    action = str(config.job.action)
    store = shared_store(config)
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
    caption = "views: frames, or images tiled of a clip's frames; source.json in each folder describes the source"
    show_table(made_table(HEADINGS, map(_holding, held)), str(store.root), [caption])
    total = size_text(sum(holding.bytes for holding in held))
    return True, f"{total} of at most {size_text(store.limit_bytes)}, {len(held)} sources"


def _holding(holding: Holding) -> list[str]:
    """A source: how its features are made, and how many there are."""
    words, columns = holding.words, ["?"] * 4
    with suppress(KeyError):
        tower = f"{words['media']} {words['tower'][:8]}, layer {words['layer']}"
        arithmetic = f"{words['dtype']} on {words['arithmetic']}; {words['reader']}"
        kept = words["kept"] if words["kept"] != OWN else words["dtype"]
        columns = [words["model"], tower, arithmetic, kept]
    used = datetime.fromtimestamp(holding.used / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    counts = (str(holding.clips), str(holding.views), size_text(holding.bytes), str(holding.damaged))
    return [holding.name[:8], *columns, *counts, used if holding.used else "-"]


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
