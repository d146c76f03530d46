"""A pooling that depends on the question: each question reads its own visual tokens."""

import json

import pytest
import torch

from videopool.models import load_backbone
from videopool.pooling import PoolingContext, TextGuided
from videopool.video import UniformSampler, open_clip

SHAPE = "pooling.shape=[2,4,4]"


def point(tmp_path, study):
    (metrics,) = (tmp_path / "results" / study).glob("*/metrics.json")
    lines = (metrics.parent / "records.jsonl").read_text().splitlines()
    return metrics.parent, {record["id"]: record for record in map(json.loads, lines)}


def test_records_are_those_of_each_question_read_by_hand(videopool, tmp_path):
    words = ["frames.num=4", "logger=none", "pooling=text_guided", SHAPE, "pooling.temperature=0.001", "job.workers=0"]
    videopool(*words, "study=guided")
    folder, records = point(tmp_path, "guided")
    prompt = json.loads((folder / "run.json").read_text())["identity"]["prompt"]
    clips = {clip: folder / path for clip, path in json.loads((folder / "clips.json").read_text()).items()}
    backbone, pooling = load_backbone("videopool:shapes/mini_llava"), TextGuided((2, 4, 4), temperature=0.001)
    seen = {}
    for record in list(records.values())[::9]:
        clip = record["clip"]
        if clip not in seen:
            with open_clip(clips[clip], "pyav") as opened:
                frames = opened.frames(UniformSampler(num=4).indices(opened.info))
            seen[clip] = backbone.encode(backbone.preprocess(frames))[None]
        question, options = record["question"], record["options"]
        lettered = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", options, strict=False))
        with torch.inference_mode():
            words = torch.tensor(backbone.tokenizer.encode(question, add_special_tokens=False))
            context = PoolingContext(text=backbone.embed(words).mean(dim=0, keepdim=True))
            tokens = pooling(backbone.project(seen[clip]), context)
            written = prompt["template"].format(image=backbone.image_token, question=f"{question} {lettered}")
            before, after = backbone.split_prompt(written + prompt["answer_prefix"])
            around = [backbone.embed(torch.tensor([ids])) for ids in (before, after)]
            hidden = backbone.llm(torch.cat([around[0], tokens, around[1]], dim=1)).last_hidden_state[:, -1]
            scores = backbone.logits(hidden).log_softmax(-1)[0]
        letters = [backbone.next_token_ids(" (", [letter])[0] for letter in "ABCD"[: len(options)]]
        assert record["option_logprobs"] == pytest.approx(scores[letters].tolist(), abs=2e-4)
        assert record["visual_tokens"] == 32


def test_without_weights_it_is_the_plain_mean(videopool, tmp_path):
    """Each question read alone, or all of a clip behind one prefix: the same answers."""
    words = ["frames.num=4", "logger=none", "job.workers=0"]
    videopool(*words, "pooling=text_guided", SHAPE, "pooling.temperature=null", "study=guided")
    videopool(*words, "pooling=adaptive", SHAPE, "study=mean")
    (_, guided), (_, mean) = point(tmp_path, "guided"), point(tmp_path, "mean")
    assert guided.keys() == mean.keys()
    assert len({record["clip"] for record in mean.values()}) < len(mean)
    for sample, record in mean.items():
        assert guided[sample]["option_logprobs"] == pytest.approx(record["option_logprobs"], abs=2e-3)


FEW = [f"training_data.sources.shapes.{key}" for key in ("clips=20", "per_task=4")]


def test_what_cannot_be_guided_is_refused_in_one_line(videopool):
    for words, told in (
        (["pooling.stage=encoder"], "say pooling.stage=projector, not encoder"),
        (["job=finetune", *FEW], "cannot be trained under"),
    ):
        done = videopool("pooling=text_guided", SHAPE, "frames.num=2", *words, check=1)
        assert told in done.stderr
        assert "Traceback" not in done.stderr
