"""Answer samples with a model of this machine."""

from collections.abc import Callable, Sequence

from videopool.benchmarks import Sample
from videopool.evaluation.evaluator import AnswerSettings, Evaluator
from videopool.evaluation.work import Work
from videopool.features import ClipDataset
from videopool.inference.backbones import point_backbone
from videopool.inference.batches import clips_at_once, group_by_clip
from videopool.inference.feature_key import feature_source
from videopool.inference.load_plan import image_processor_of, load_plan
from videopool.inference.predict import predict
from videopool.models import Backbone
from videopool.points.point import Point
from videopool.results import RecordLog
from videopool.results.point import TIMES
from videopool.results.times import Times
from videopool.runtime.interrupts import StopRequest


def answer_with_weights(
    point: Point,
    missing: Sequence[Sample],
    log: RecordLog,
    stop: StopRequest,
    load: Callable[[Point], Backbone] | None = None,
    kind: Callable[..., Evaluator] = Evaluator,
) -> Work:
    """Answer samples with a model of this machine.

    Args:
        load: gives the model; None: it is loaded once in a process.
        kind: makes the evaluator, as its class does.
    """
    config, benchmark, pooling = point.config, point.benchmark, point.pooling
    backbone = load(point) if load else point_backbone(point.model, point.model_identity, point.adapter)
    settings = AnswerSettings(point.prompt, benchmark.scoring, benchmark.max_new_tokens, config.compat.scoring)
    plan = load_plan(point.sampler, config.job.reader, image_processor_of(config, backbone), pooling)
    source = feature_source(config, backbone)
    evaluator = kind(backbone, pooling, point.stage, settings, point.store, plan, source)
    dataset = ClipDataset(group_by_clip(missing), plan, point.store, source)
    times = Times(log.path.with_name(TIMES))
    predict(config, evaluator, dataset, log, stop, clips_at_once(config.job, point.visual_tokens), times)
    seconds = dict(evaluator.seconds)
    # Loaders decode and preprocess beside the model, so their seconds are not part of the elapsed time.
    ahead = sum(seconds.get(kind, 0.0) for kind in ("decode", "preprocess"))
    return Work(seconds, ahead, evaluator.frames)
