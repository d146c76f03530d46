"""What reaches linear layers can be read as rows: of anything else torch copies a layer's weights for each row."""

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from composed import composed
from random_models import FAMILIES, save
from videopool.evaluation.run import evaluate
from videopool.jobs.norms import run as measure


@pytest.fixture
def strided():
    """The linear layers that were given what cannot be read as rows."""
    found = set()

    def look(module, inputs):
        if isinstance(module, torch.nn.Linear):
            try:
                inputs[0].view(-1, inputs[0].shape[-1])
            except RuntimeError:
                found.add((type(module).__name__, tuple(inputs[0].shape), inputs[0].stride()))

    handle = register_module_forward_pre_hook(look)
    yield found
    handle.remove()


def test_the_check_sees_a_strided_grid(strided):
    layer = torch.nn.Linear(3, 2)
    layer(torch.zeros(2, 5, 3))
    assert not strided
    layer(torch.zeros(2, 5, 3)[:, 1:])
    assert strided


POINTS = (
    ("pooling=none",),
    ("pooling=adaptive", "pooling.shape=[2,3,3]", "benchmark.scoring=generate", "benchmark.max_new_tokens=2"),
    ("pooling=average", "pooling.stage=encoder"),
    ("pooling=even", "pruning=fastv", "pruning.layer=1", "pruning.share=0.5"),
)


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_of_points_and_norms(family, strided, tmp_path, data_dir):
    model = ["model=mini"] if family == "mini" else ["model=local", f"model.source={save(tmp_path / 'm', family)}"]
    words = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}", "logger=none", "job.workers=0", "frames.num=3"]
    words += ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", "prompt=plain", *model]
    for point in POINTS:
        evaluate(composed(*words, *point, "+benchmark.tasks=[existence,event_order]"))
    measure(composed("job=norms", *words, "pooling=average", "job.clips=2", "job.stages=[encoder,pooled,llm.0]"))
    assert not strided
