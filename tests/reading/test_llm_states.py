"""Hidden states and attention inside language models, against what transformers itself gives out."""

import pytest
import torch

from random_models import FAMILIES, save
from videopool.models import ModelError, load_backbone
from videopool.reading.answers import llm_states


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_attention_are_those_of_transformers(tmp_path, family):
    backbone = load_backbone(str(save(tmp_path / "m", family)), attention="eager")
    embeddings = torch.randn(1, 9, backbone.shape.dim, generator=torch.Generator().manual_seed(0))
    states, looks = llm_states(backbone, embeddings, [0, 2, 3], [1, 3])
    with torch.inference_mode():
        plain = backbone.llm(embeddings, use_cache=False, output_hidden_states=True, output_attentions=True)
        last = backbone.parts.language_model.norm(states[3])
    for layer in (0, 2):
        torch.testing.assert_close(states[layer], plain.hidden_states[layer])
    torch.testing.assert_close(last, plain.hidden_states[3])  # theirs is behind the final norm, ours before it
    for layer, look in looks.items():
        torch.testing.assert_close(look, plain.attentions[layer - 1][:, :, -1].mean(1))
        assert float(look.sum()) == pytest.approx(1, abs=1e-5)


def test_layers_behind_the_last_wanted_one_do_not_run(tmp_path):
    backbone = load_backbone(str(save(tmp_path / "m", "llava")))
    ran = []
    for number, block in enumerate(backbone.parts.language_model.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    llm_states(backbone, torch.zeros(1, 4, backbone.shape.dim), [1])
    assert ran == [0]
    with pytest.raises(ModelError, match=r"model\.attention=eager"):
        llm_states(backbone, torch.zeros(1, 4, backbone.shape.dim), [], [1])
    with pytest.raises(ModelError, match="context"):
        llm_states(backbone, torch.zeros(1, 5000, backbone.shape.dim), [0])
