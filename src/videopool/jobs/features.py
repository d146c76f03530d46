"""job=features: what the feature store on disk holds; list it, check it, or clear it up."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from videopool.features import DiskStore, FeatureStoreError
from videopool.features.source import OWN
from videopool.features.upkeep import Holding, holdings, prune, verify
from videopool.jobs.build import build
from videopool.jobs.errors import ConfigError
from videopool.jobs.outcome import COMPLETE, FAILED, Outcome
from videopool.jobs.terminal import console

PATIENCE = 2.0  # seconds before a progress bar appears
LISTED = 10


def features(config: DictConfig) -> Outcome:
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
    told = f"{_size(total)} of at most {_size(store.limit_bytes)}, {len(found)} sources"
    return Outcome(COMPLETE, "features list", told, str(store.root))


def holdings_table(found: list[Holding], title: str) -> Table:
    """One line a source: how its features are made, and how many there are."""
    table = Table(title=title)
    for name in ("source", "model", "tower", "made in", "kept in"):
        table.add_column(name, justify="left")
    for name in ("clips", "views", "size", "damaged", "last used"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        words = one.words
        model = tower = made = kept = "?"
        with suppress(KeyError):
            model, tower = words["model"], f"{words['media']} {words['tower'][:8]}, layer {words['layer']}"
            made = f"{words['dtype']} on {words['arithmetic']}; {words['reader']}"
            kept = words["kept"] if words["kept"] != OWN else words["dtype"]
        used = datetime.fromtimestamp(one.used / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M") if one.used else "-"
        counts = (str(one.clips), str(one.views), _size(one.bytes), str(one.damaged), used)
        table.add_row(one.name[:8], model, tower, made, kept, *counts)
    table.caption = "views: frames, or images tiled of a clip's frames; source.json in each folder says all of a source"
    return table


def _verify(store: DiskStore) -> Outcome:
    verdict = verify(store.root, watched)
    wrong = [*verdict.damaged, *(f"{path}: changed, but not its size and time of change" for path in verdict.changed)]
    for line in wrong[:LISTED]:
        print(f"    {line}", file=sys.stderr)
    if len(wrong) > LISTED:
        print(f"    and {len(wrong) - LISTED} more", file=sys.stderr)
    told = f"{verdict.views} views in {verdict.segments} segments and {verdict.clips} clips are as they were written"
    if wrong:
        told += f"; {len(verdict.damaged)} damaged files set aside, {len(verdict.changed)} records of clips removed"
    return Outcome(FAILED if wrong else COMPLETE, "features verify", told, str(store.root))


def _prune(store: DiskStore) -> Outcome:
    freed = prune(store.root, store.limit_bytes)
    parts = [
        f"{count} {name}"
        for name, count in (
            ("damaged", freed.damaged),
            ("unfinished", freed.unfinished),
            ("duplicates", freed.duplicates),
            ("beyond the limit", freed.old),
            ("records of clips that are gone or changed", freed.records),
        )
        if count
    ]
    left = sum(holding.bytes for holding in holdings(store.root))
    told = f"freed {_size(freed.bytes)} ({', '.join(parts) or 'nothing to remove'}); {_size(left)} kept"
    return Outcome(COMPLETE, "features prune", f"{told} of at most {_size(store.limit_bytes)}", str(store.root))


ACTIONS: dict[str, Callable[[DiskStore], Outcome]] = {"list": _list, "verify": _verify, "prune": _prune}


def watched(items: list[Any], what: str) -> Iterator[Any]:
    """Items one by one, with a progress bar in a terminal once that takes longer than a moment."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, transient=True, disable=not sys.stdout.isatty())
    line = bar.add_task(what, total=len(items))
    started = time.perf_counter()
    try:
        for item in items:
            yield item
            bar.advance(line)
            if not bar.live.is_started and time.perf_counter() - started > PATIENCE:
                bar.start()
    finally:
        bar.stop()


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
