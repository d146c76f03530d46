"""Work in chunks that fit in memory."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil
import torch

from videopool.errors import out_of_memory
from videopool.notes import note

Item = TypeVar("Item")
Result = TypeVar("Result")


class Chunk:
    """The size of a chunk. A chunk that does not fit in memory is halved, from then on, and a note says so."""

    def __init__(self, size: int, items: str) -> None:
        self.size, self.items = size, items  # items: their name in the note

    def each(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result], weight: int = 1, most: int | None = None
    ) -> list[Result]:
        """The results of `work` on chunks of the items, in order.

        A chunk has at least one item, at most `most`, and as many items of `weight` as fit its size. Raises what work
        raises; lack of memory only for an item alone.
        """
        results: list[Result] = []
        start = 0
        while start < len(items):
            part = items[start : start + max(1, min(self.size // weight, len(items) if most is None else most))]
            try:
                results.append(work(part))
                start += len(part)
            except Exception as error:
                if len(part) == 1 or not out_of_memory(error):
                    raise
                fewer = len(part) // 2
                self.size = fewer * weight
                note(f"out of memory with {len(part)} {self.items} at once; going on with {fewer}", every_rank=True)
        return results


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, what torch holds in reserve there included; on the CPU, available memory."""
    if device.type == "cpu" or not torch.accelerator.is_available():
        return int(psutil.virtual_memory().available)
    held = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return torch.accelerator.get_memory_info(device)[0] + held
