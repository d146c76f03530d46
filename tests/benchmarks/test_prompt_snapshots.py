"""Every shipped prompt, written out and held to what it was: a changed prompt changes what was measured.

To accept a change: VIDEOPOOL_ACCEPT=1 pytest tests/benchmarks/test_prompt_snapshots.py, and look at the difference.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from videopool.paths import shipped

SNAPSHOTS = Path(__file__).parents[1] / "data" / "prompt_snapshots.json"
NAMES = sorted(path.stem for path in shipped("conf").glob("prompt/*.yaml") if path.stem != "chat_template")


def load(name):
    return instantiate(OmegaConf.load(shipped("conf") / "prompt" / f"{name}.yaml"))


def written(prompt):
    return {
        "options": prompt.text("What moves?", ["a dog", "{question}", "nothing"]),
        "open": prompt.text("What moves?"),
        "hashes": [prompt.hash(True), prompt.hash(False)],
    }


def test_shipped_prompts_are_as_they_were():
    now = {name: written(load(name)) for name in NAMES}
    if os.environ.get("VIDEOPOOL_ACCEPT"):
        SNAPSHOTS.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert now == json.loads(SNAPSHOTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_hash_names_the_pattern(name):
    prompt = load(name)
    assert prompt.hash(True) == load(name).hash(True)
    assert prompt.hash(True) != replace(prompt, separator=prompt.separator + " ").hash(True)
    assert prompt.hash(False) == replace(prompt, separator=prompt.separator + " ").hash(False)
    assert prompt.hash(False) != replace(prompt, open_answer_prefix="x").hash(False)
    pattern = prompt.pattern(False)
    assert pattern.replace("{image}", "<image>").replace("{question}", "Q?") == prompt.text("Q?")
