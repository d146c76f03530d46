"""What a store on disk holds, as a table."""

from contextlib import suppress
from datetime import UTC, datetime

from rich.table import Table

from videopool.features.source import OWN
from videopool.features.upkeep import Holding


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
        counts = (str(one.clips), str(one.views), size_text(one.bytes), str(one.damaged), used)
        table.add_row(one.name[:8], model, tower, made, kept, *counts)
    table.caption = "views: frames, or images tiled of a clip's frames; source.json in each folder says all of a source"
    return table


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
