"""Train one run: claim, manifest, metrics or failure."""

from typing import TYPE_CHECKING

from videopool.config.build import jsonable
from videopool.results import PointFolder
from videopool.results.manifest import git_state, hardware, now, versions
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.training.point import TrainingPoint

if TYPE_CHECKING:
    from videopool.training.loop import TakeSteps


def take_part(point: TrainingPoint, folder: PointFolder, rank: int) -> Outcome:
    """A process beside the first, which has the claim, keeps the files and evaluates."""
    from videopool.training.run import train

    point.check()
    train(point, folder.path, rank)
    return Outcome(COMPLETE, folder.path.name, f"took part as process {rank}", fresh=False)


def train_point(
    point: TrainingPoint, folder: PointFolder, what: dict[str, object], take_steps: "TakeSteps | None" = None
) -> str:
    """Train, with the manifest before and metrics or the failure behind it; one line on how it went.

    Args:
        take_steps: in place of the loop of Lightning; takes what fit() takes.
    """
    # What needs weights or Lightning is imported here: a finished run needs none of them.
    from videopool.tracking.training import training_curves
    from videopool.training.export import start_over
    from videopool.training.loop import BAD_BATCH, fit
    from videopool.training.run import train

    if point.config.force:
        folder.clear()
        start_over(folder.path)
    (folder.path / BAD_BATCH).unlink(missing_ok=True)
    folder.write_manifest(
        {
            "training": point.describe(),
            "identity": what,
            "config": jsonable(point.config),
            "versions": versions(),
            "reader": point.config.job.reader,
            "attention": point.config.model.get("attention"),
            "git": git_state(),
            "hardware": hardware(),
            "started": now(),
        }
    )
    try:
        with training_curves(point.config, folder.path, point.describe()) as curves:
            metrics = train(point, folder.path, curves=curves, take_steps=take_steps or fit)
            curves.finish(metrics)
        folder.write_metrics(metrics)
    except Exception as error:
        folder.write_failure(str(error) or type(error).__name__, {"time": now()})
        raise
    held_out = metrics["validation_loss"]
    told = "" if held_out is None else f", {held_out:.3f} on held-out ones"
    return f"{metrics['steps']} steps, loss {metrics['loss']:.3f}{told}"
