"""Train one run: an attempt at its folder, with the curves of its steps."""

from collections.abc import Callable

from videopool.points.lifecycle import attempt
from videopool.results import PointFolder
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.training.point import TrainingPoint


def take_part(point: TrainingPoint, folder: PointFolder, rank: int) -> Outcome:
    """A process beside the first, which has the claim, keeps the files and evaluates."""
    from videopool.training.run import train

    point.check()
    train(point, folder.path, rank)
    return Outcome(COMPLETE, folder.path.name, f"took part as process {rank}", fresh=False)


def train_point(
    point: TrainingPoint, folder: PointFolder, identity: dict[str, object], keep_media: Callable[[], None]
) -> str:
    """Train in a folder; one line on how it went.

    Args:
        keep_media: called with the claim, notes which media the run begins with.
    """
    # What needs weights or Lightning is imported here: a finished run needs none of them.
    from videopool.tracking.training import training_curves
    from videopool.training.export import start_over
    from videopool.training.loop import BAD_BATCH
    from videopool.training.run import train

    def begin() -> None:
        keep_media()
        if point.config.force:
            folder.clear()
            start_over(folder.path)

    described = point.describe()
    with attempt(folder, point.config, {"training": described, "identity": identity}, begin) as to_do:
        if not to_do:
            return "finished meanwhile"
        (folder.path / BAD_BATCH).unlink(missing_ok=True)
        with training_curves(point.config, folder.path, described) as curves:
            metrics = train(point, folder.path, curves=curves)
            curves.finish(metrics)
        folder.write_metrics(metrics)
    held_out = metrics["validation_loss"]
    told = "" if held_out is None else f", {held_out:.3f} on held-out ones"
    return f"{metrics['steps']} steps, loss {metrics['loss']:.3f}{told}"
