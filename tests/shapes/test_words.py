"""Words that were never trained can be told apart, and nothing else is touched."""

import pytest
import torch

from videopool.models import load_backbone
from videopool.paths import PACKAGE
from videopool.shapes.pretraining import SHARED, spread_words
from videopool.shapes.tokenizer import SPECIAL


def cosines(rows):
    unit = torch.nn.functional.normalize(rows.float(), dim=1)
    return (unit @ unit.T)[~torch.eye(len(rows), dtype=torch.bool)]


def test_unseen_words_are_spread_and_seen_ones_stay():
    torch.manual_seed(0)
    drift = torch.randn(64)
    seen, unseen = torch.randn(10, 64), 4 * drift + 0.1 * torch.randn(20, 64)
    special = torch.full((1, 64), 7.0)
    embeddings = torch.cat([seen, unseen, special])
    assert cosines(unseen).min() > 0.9
    spread_words(embeddings, list(range(10)), list(range(10, 30)), torch.Generator().manual_seed(0))
    assert torch.equal(embeddings[:10], seen)
    assert torch.equal(embeddings[30:], special)
    lengths = embeddings[10:30].norm(dim=1)
    assert torch.allclose(lengths, seen.norm(dim=1).mean().expand(20), rtol=1e-5)
    # Pairs share the common direction, whose square is SHARED; what is their own is random in 63 dimensions.
    assert float(cosines(embeddings[10:30]).mean()) == pytest.approx(SHARED, abs=0.02)
    assert cosines(embeddings[10:30]).max() < 0.7
    along = torch.nn.functional.normalize(drift, dim=0)
    assert torch.allclose(embeddings[10:30] @ along, lengths * SHARED**0.5, rtol=0.1)


def test_nothing_happens_without_unseen_words():
    embeddings = torch.randn(4, 8)
    before = embeddings.clone()
    spread_words(embeddings, [0, 1, 2, 3], [], torch.Generator())
    assert torch.equal(embeddings, before)


def test_no_two_words_of_the_shipped_model_are_alike():
    backbone = load_backbone(str(PACKAGE / "shapes" / "mini_llava"), "mini")
    embeddings = backbone.model.get_input_embeddings().weight.detach()
    special = backbone.tokenizer.convert_tokens_to_ids(list(SPECIAL))
    words = [row for row in range(len(embeddings)) if row not in special]
    assert cosines(embeddings[words]).max() < 0.8
    lengths = embeddings[words].norm(dim=1)
    assert lengths.max() < 3 * lengths.median()
