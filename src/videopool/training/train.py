"""Train one run: an attempt at its folder, with the curves of its steps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from videopool.points.lifecycle import attempt
from videopool.results import PointFolder
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.training.point import TrainingPoint

if TYPE_CHECKING:
    from videopool.training.loop import TakeSteps


def take_part(point: TrainingPoint, folder: PointFolder, rank: int) -> Outcome:
    """Take the steps as another process than the first, which has the claim, keeps the files and evaluates."""
    from videopool.training.run import train

    point.check()
    train(point, folder.path, rank)
    return Outcome(COMPLETE, folder.path.name, f"took part as process {rank}", fresh=False)


def train_point(
    point: TrainingPoint,
    folder: PointFolder,
    identity: dict[str, object],
    keep_media: Callable[[], None],
    take_steps: "TakeSteps | None" = None,
) -> str:
    """Train in a folder. Returns one line about the result.

    Args:
        keep_media: records the media's states; called with the claim.
        take_steps: replaces Lightning's loop, fit().
    """
    # Imports of Lightning and of modules that need weights are here, because a finished run needs neither.
    from videopool.tracking.training import training_curves
    from videopool.training.export import start_over
    from videopool.training.loop import BAD_BATCH, fit
    from videopool.training.run import train

    def begin() -> None:
        keep_media()
        if point.config.force:
            folder.clear()
            start_over(folder.path)

    facts = point.describe()
    with attempt(folder, point.config, {"training": facts, "identity": identity}, begin) as to_do:
        if not to_do:
            return "finished meanwhile"
        (folder.path / BAD_BATCH).unlink(missing_ok=True)
        with training_curves(point.config, folder.path, facts) as curves:
            metrics = train(point, folder.path, curves=curves, take_steps=take_steps or fit)
            curves.finish(metrics)
        folder.write_metrics(metrics)
    held_out = metrics["validation_loss"]
    loss = f"{metrics['steps']} steps, loss {metrics['loss']:.3f}"
    return loss if held_out is None else f"{loss}, {held_out:.3f} on held-out ones"
