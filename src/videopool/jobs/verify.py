"""job=verify: whether the numbers of an export, or of a study, are those of its records."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.reports.sharing import verify
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.progress import doing

MOST = 20  # faults that are printed


def run(config: DictConfig) -> Outcome:
    """Compute all numbers again; print each that differs."""
    folder = Path(config.job.folder or Path(config.results_dir) / config.study)
    count, faults = verify(folder, str(config.baseline), lambda what: doing(f"verifying {what}"))
    for line in faults[:MOST]:
        print(line)
    if len(faults) > MOST:
        print(f"... and {len(faults) - MOST} more")
    if faults:
        return Outcome(
            FAILED, f"verify {folder}", f"{len(faults)} of {count} numbers and files are not as they should be"
        )
    return Outcome(COMPLETE, f"verify {folder}", f"{count} numbers and files are what the records give", str(folder))
