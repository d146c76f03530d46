"""Standard streams that outlive their terminal, and what libraries may write there."""

import errno
import io
import logging
import os
import sys
import warnings
from typing import Any

GONE = (errno.EIO, errno.EPIPE)  # of a terminal, of a pipe
ENVIRONMENT = {
    # Waiting threads sleep instead of spinning: other processes can use the core.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
# Lightning sets the levels of its two top loggers at its import, later than us; those of their children are ours.
LOUD = (
    "transformers", "libav", "PIL", "pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.signal_connector",  # "Received SIGTERM"
)  # fmt: skip


class EnduringFile(io.FileIO):
    """A stream that drops what it cannot write, because the terminal is closed or the reader of a pipe has ended."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return len(memoryview(data).cast("B"))


def endure() -> None:
    """Keep a closed terminal or pipe from ending the work: what is printed is lost, and the log has it."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            file = io.BufferedWriter(EnduringFile(stream.fileno(), "w", closefd=False))
            lines, at_once = stream.line_buffering, stream.write_through
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, stream.errors, None, lines, at_once))


def quiet() -> None:
    """Keep the log lines of libraries out of the terminal."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data")
    warnings.filterwarnings("ignore", message=".*torchvision.*")
    warnings.filterwarnings("ignore", message="(?s).*validated against ConfigStore schema.*")  # submitit's, on purpose
