"""What a model is, and what reading tokens costs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from videopool.models import ModelShape, identity, load_backbone, prefill_flops
from videopool.models.cost import training_flops
from videopool.models.lora import checkpoint_gradients, make_trainable, training_mode


def shape_of(config):
    return ModelShape(
        height=12,
        width=12,
        vision_dim=8,
        dim=config.hidden_size,
        context=4096,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
    )


@pytest.mark.parametrize(("tokens", "kv_heads"), [(64, 4), (700, 4), (300, 2)])
def test_flops_agree_with_torchs_counter(tokens, kv_heads):
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        vocab_size=50,
        attn_implementation="eager",
    )
    model = LlamaModel(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, tokens, 64), use_cache=False)
    assert prefill_flops(shape_of(config), tokens) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("again", [False, True])
def test_flops_of_learning_agree_with_torchs_counter(again):
    """The projector trained through the frozen language model, forward and backward, as one conversation is read."""
    backbone = load_backbone("videopool:shapes/mini_llava")
    make_trainable(backbone, None)
    training_mode(backbone)
    if again:
        checkpoint_gradients(backbone)
    grid, text = torch.randn(1, 288, backbone.shape.vision_dim), torch.randn(1, 40, backbone.shape.dim)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tokens = backbone.project(grid)[:, :144]
        backbone.llm(torch.cat([tokens, text], dim=1), use_cache=False).last_hidden_state.sum().backward()
    found = training_flops(backbone.shape, 184, 288, again)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_flops_of_the_published_setting():
    """Vicuna-7B over 16 frames pooled to 12 x 12: about 32 TFLOPs."""
    seven_b = ModelShape(24, 24, 1024, 4096, 4096, 32, 32, 32, 128, 11008, 32064)
    assert prefill_flops(seven_b, 2304) / 1e12 == pytest.approx(32, rel=0.03)


def test_identity_follows_content(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1" * 100)
    first = identity(str(tmp_path))
    (tmp_path / "README.md").write_text("not part of it")
    assert identity(str(tmp_path)) == first
    (tmp_path / "model.safetensors").write_bytes(b"2" * 100)
    assert identity(str(tmp_path)) != first
