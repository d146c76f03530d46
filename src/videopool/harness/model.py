"""VideoPool as a model of lmms-eval: `python -m lmms_eval --model videopool --model_args point=results/mine/<point>`.

Interface of lmms-eval 0.7. Its multiple choice takes the smallest of what `loglikelihood` returns, so these are losses
(mean over a continuation's tokens), as other models return them; it makes a text of any pair that stands in no
GenerationResult.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

from videopool.config.errors import Stopped
from videopool.errors import UserError
from videopool.harness.requests import Request, asked
from videopool.harness.settings import configuration
from videopool.results.records import OK
from videopool.runtime import log

MAX_NEW_TOKENS = 128  # where a task says nothing
MOST = 3  # clips in a message
Doc = Callable[[Any], Any]  # a function of a task, of one of its documents


class VideoPool(lmms):
    """A point of VideoPool; `arguments` are those of `--model_args`, see settings.configuration().

    A request whose clip cannot be read, or that is too long, gets an empty answer, which no model gave. What cannot be
    done ends the program with one line.
    """

    is_simple = True

    def __init__(
        self, batch_size: object = None, max_batch_size: object = None, device: object = None, **arguments: Any
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise SystemExit("videopool: start lmms-eval in one process; model.device_map=auto spreads a model")
        if device not in (None, "cpu", "cuda", "cuda:0"):
            raise SystemExit(f"videopool: --device {device}: say CUDA_VISIBLE_DEVICES for another GPU than the first")
        if device == "cpu":
            arguments = {"trainer.accelerator": "cpu", **arguments}
        self.max_new_tokens = arguments.pop("max_new_tokens", MAX_NEW_TOKENS)
        with _in_one_line():
            self.config = configuration(arguments)

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Greedy answers, cut at the task's stop texts, with their numbers of tokens."""
        found = []
        for one in requests:
            text, kwargs, doc_to_visual, doc, task, split = one.args
            until = kwargs.get("until") or ()
            until = (until,) if isinstance(until, str) else tuple(until)
            most = int(kwargs.get("max_new_tokens") or kwargs.get("max_gen_toks") or self.max_new_tokens)
            found.append(
                Request(task, split, doc, text, self._visual(doc_to_visual, task, split, doc), (), most, until)
            )
        if sampled := [one for one in requests if one.args[1].get("do_sample") and one.args[1].get("temperature", 1)]:
            log.warn(f"{len(sampled)} requests ask for random answers; VideoPool writes the likeliest word each time")
        return [_result(one, record) for one, record in zip(found, self._answer(found), strict=True)]

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Of each continuation, its loss and whether greedy decoding would write it, and numbers of tokens."""
        groups: dict[tuple[str, str, int, str], list[int]] = {}  # by question, places of requests
        for place, one in enumerate(requests):
            text, _, _, doc, task, split = one.args
            groups.setdefault((task, split, doc, text), []).append(place)
        found = []
        for (task, split, doc, text), places in groups.items():
            _, _, doc_to_visual, *_ = requests[places[0]].args
            texts = [self._continuation(requests[place].args) for place in places]
            found.append(Request(task, split, doc, text, self._visual(doc_to_visual, task, split, doc), tuple(texts)))
        results: dict[int, GenerationResult] = {}
        records = self._answer(found)
        _refuse_failed(found, records)
        for places, record in zip(groups.values(), records, strict=True):
            for place, loss, greedy in zip(places, record["losses"], record["greedy"], strict=True):
                results[place] = GenerationResult((loss, greedy), _tokens(record, 0))
        return [results[place] for place in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Ends the program: a point answers one question after another, each by itself."""
        raise SystemExit("videopool: tasks of several rounds cannot be answered: questions on a clip stand alone")

    def _visual(self, doc_to_visual: Doc, task: str, split: str, doc: int) -> Any:
        return doc_to_visual(self.task_dict[task][split][doc])

    def _continuation(self, args: Sequence[Any]) -> str:
        """The continuation of a request: a text, or a function of the document."""
        _, target, _, doc, task, split = args
        text = target(self.task_dict[task][split][doc]) if callable(target) else target
        return str(text).lstrip(" ")  # the prompt brings the blank before it

    def _answer(self, requests: Sequence[Request]) -> list[Mapping[str, Any]]:
        """A record per request; those of one task, on one clip, share its features and prefix."""
        from videopool.harness.answering import answered  # imports Lightning

        found: dict[int, Mapping[str, Any]] = {}
        with _in_one_line():
            torch.manual_seed(int(self.config.seed))
            for group in asked(requests, Path(self.config.data_dir) / "lmms_eval"):
                folder, records = answered(self.config, group)
                found |= {id(one): record for one, record in zip(group.requests, records, strict=True)}
                failed = sum(record["status"] != OK for record in records)
                log.say(f"videopool: {folder}: {len(records)} records, {failed} failed", result=True)
        return [found[id(one)] for one in requests]


def _result(request: Request, record: Mapping[str, Any]) -> GenerationResult:
    if record["status"] != OK:
        return GenerationResult("", None)
    text = str(record["prediction"])
    for stop in filter(None, request.until):
        text = text.split(stop)[0]
    return GenerationResult(text, _tokens(record, record["output_tokens"]))


def _tokens(record: Mapping[str, Any], written: int) -> TokenCounts:
    """Tokens that the language model read, visual ones among them, and wrote."""
    read = int(record["visual_tokens"]) + int(record["text_tokens"])
    return TokenCounts(input_tokens=read, output_tokens=written)


def _refuse_failed(requests: Sequence[Request], records: Sequence[Mapping[str, Any]]) -> None:
    """Ends the program if a question has no losses: lmms-eval would take its first option for the answer."""
    failed = [(one, record) for one, record in zip(requests, records, strict=True) if record["status"] != OK]
    if failed:
        named = "; ".join(f"{one.where}: {record.get('reason', record['status'])}" for one, record in failed[:MOST])
        more = f"; and {len(failed) - MOST} more" if len(failed) > MOST else ""
        raise SystemExit(
            f"videopool: {len(failed)} of {len(requests)} questions have no answer, and lmms-eval would count the "
            f"first option as one; leave them out of the task: {named}{more}"
        )


@contextmanager
def _in_one_line() -> Iterator[None]:
    """End the program with one line for what its user can mend: lmms-eval would print a trace, and exit with 0."""
    try:
        yield
    except UserError as error:
        raise SystemExit(f"videopool: {error}") from None
    except Stopped as stop:
        raise SystemExit(f"videopool: {stop}; run the same command again to go on") from None
