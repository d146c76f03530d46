"""A point that answers a harness's requests: its records are those of any point, resumed and kept like them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.benchmarks import Benchmark, Prompt, Sample
from videopool.config.errors import ConfigError
from videopool.evaluation.evaluator import Evaluator, answer_with_weights, likeliest
from videopool.evaluation.run import evaluate_point
from videopool.harness.requests import Asked
from videopool.models import Backbone
from videopool.points.point import Point
from videopool.reading.answers import continuation_scores
from videopool.reading.layout import Arranged
from videopool.results.point import RECORDS
from videopool.results.records import read_records

QUESTION = "{question}"


class RequestPoint(Point):
    """A point whose samples are requests. The task writes the whole question, the prompt adds the conversation.

    Raises UserError as Point, and for several devices, which would need the requests in other processes.
    """

    def __init__(self, config: DictConfig, asked: Asked) -> None:
        config = config.copy()
        OmegaConf.update(config, "benchmark", asked.settings, merge=False, force_add=True)
        self.asked = asked
        super().__init__(config)
        if "base_url" in config.model:
            raise ConfigError("model=api: lmms-eval has models behind APIs of its own")
        if int(config.trainer.devices) > 1:
            raise ConfigError("trainer.devices: requests are answered on one device; say model.device_map=auto")
        self.prompt: Prompt = replace(self.prompt, open_ended=QUESTION, open_answer_prefix="")

    def take_benchmark(self) -> Benchmark:
        """The requests."""
        return self.asked.benchmark

    def describe_model(self) -> dict[str, object]:
        """As Point; the prompt is not one of the group `prompt`."""
        return {**super().describe_model(), "prompt": self.prompt.hash(False)}


class RequestEvaluator(Evaluator):
    """An evaluator whose records have numbers of tokens, and of continuations losses and whether they are greedy."""

    worth = staticmethod(continuation_scores)

    def __init__(self, backbone: Backbone, *rest: Any) -> None:
        super().__init__(backbone, *rest)
        self.words: dict[str, int] = {}  # tokens of a sample's text

    def _text(self, sample: Sample, listed: bool, clips: Arranged, place: int) -> str:
        text = super()._text(sample, listed, clips, place)
        self.words[sample.id] = sum(map(len, self.backbone.split_prompt(text)))
        return text

    def _outcome(self, mode: str, sample: Sample, output: Sequence[Any]) -> dict[str, object]:
        tokens = {"text_tokens": self.words[sample.id]}
        if mode == "generate":
            return {**super()._outcome(mode, sample, output), **tokens, "output_tokens": len(output)}
        pairs = output[: len(sample.options)]
        losses, greedy = [-logprob for logprob, _ in pairs], [own for _, own in pairs]
        return {**likeliest(sample, [-loss for loss in losses]), **tokens, "losses": losses, "greedy": greedy}


def answered(config: DictConfig, asked: Asked) -> tuple[Path, list[Mapping[str, Any]]]:
    """The point's folder, and a record per request, in their order; a finished point only reads them.

    Raises UserError, as a point that is run by a command: e.g. if more requests failed than job.max_failed_fraction.
    """
    point = RequestPoint(config, asked)
    outcome = evaluate_point(point, partial(answer_with_weights, point, kind=RequestEvaluator))
    folder = Path(outcome.folder)
    records = {str(record["id"]): record for record in read_records(folder / RECORDS)}
    return folder, [records[sample.id] for sample in point.benchmark.samples]
