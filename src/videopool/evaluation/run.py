"""Evaluate one point, from configuration to metrics."""

from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from videopool.config.choices import chosen
from videopool.evaluation.contents import ClipStates
from videopool.notes import note
from videopool.points.api import ApiPoint
from videopool.points.lifecycle import attempt, finished_before, folder_of
from videopool.points.point import Point
from videopool.points.twins import told_before
from videopool.results.records import write_captions, write_submission
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.progress import doing

if TYPE_CHECKING:
    from videopool.evaluation.answer import Answerer


def point_of(config: DictConfig) -> Point:
    """The point of a configuration, of the kind that its model needs."""
    return ApiPoint(config) if "base_url" in config.model else Point(config)


def evaluate(config: DictConfig) -> Outcome:
    """Run or resume the point of a configuration, or find it finished."""
    torch.manual_seed(int(config.seed))
    return evaluate_point(point_of(config))


def evaluate_point(point: Point, answerer: "Answerer | None" = None) -> Outcome:
    """Run or resume a point, or find it finished. An `answerer` replaces the point's model."""
    config, identity = point.config, point.identity()
    folder = folder_of(config, point.name, identity)
    clips = {sample.clip_id: sample.clip for sample in point.benchmark.samples}
    states = ClipStates(folder, clips)
    # A finished point needs neither a claim nor the model's configuration.
    if folder.finished and not config.force and not states.outdated():
        return finished_before(folder)
    point.check()
    if not isinstance(point, ApiPoint):
        for line in told_before(point, identity, folder):
            note(line)
    manifest: dict[str, Any] = {
        "point": point.describe(),
        "identity": identity,
        "answers": point.answers,
        "samples": len(point.benchmark.samples),
        "tasks": point.benchmark.roles(point.judge is not None),
        "prompts": {point.prompt.hash(options): point.prompt.pattern(options) for options in (True, False)},
        "experiment": chosen("experiment"),
    }
    with folder:
        if config.force:
            folder.clear()
        note(states.redo_outdated())
        if folder.finished:  # by another process meanwhile
            return finished_before(folder)
        with attempt(folder, config, manifest):
            folder.write_clips(clips)
            states.keep()
            # Imported here, because finished points need neither weights, Lightning nor W&B.
            doing("importing Lightning and W&B")
            from videopool.evaluation.answer import answer
            from videopool.tracking.point import point_run

            try:
                with point_run(config, folder.path, manifest["point"]) as run:
                    doing("working")
                    metrics, records = answer(point, folder, answerer)
                    doing("saving")
                    run.finish_point(metrics, records)
                    write_captions(folder.path, records)
                    if point.benchmark.submission:
                        note(write_submission(folder.path, records, point.benchmark.submission))
                    folder.tell_mixed(records)
                    folder.write_metrics(metrics)
            finally:
                doing(None)  # also where nobody shows what follows, as in a caller's own process
    return Outcome(COMPLETE, folder.path.name, _result(metrics), str(folder.path))


def _result(metrics: dict[str, Any]) -> str:
    """A point's score, or facts of its unscored answers, in one line."""
    if metrics["score"] is not None:
        grade = f", judge's grade {metrics['judge_grade']:.2f} of 5" if "judge_grade" in metrics else ""
        return f"{100 * metrics['score']:.1f} %{grade}, n={metrics['n']}"
    words = metrics["answer_words"]
    length = f"; {words['n']} answers of {words['mean']:.1f} words on average" if words else ""
    return f"not scored, n={metrics['n_unscored']}{length}"
