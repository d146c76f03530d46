"""Registers and replaced outliers in a tower, against a plain loop over its blocks."""

import pytest
import torch
from test_tower_outputs import blocks_of, random_tower

from random_models import save
from videopool.measuring.neurons import outlier_neurons
from videopool.models import ModelError, load_backbone
from videopool.models.passes import tower_pass
from videopool.models.tower_changes import TowerChanges, tower_changes
from videopool.models.tower_outputs import LayerStates, score_output

CASES = {
    "zeros": {"register": "zeros"},
    "three": {"register": 3},
    "test time": {"register": "test_time", "neurons": [[1, 5], [1, 0], [3, 39]]},
    "mean": {"replace": "mean", "layer": 2, "times_median": 1.05},
    "norm": {"replace": "norm", "layer": -1, "times_median": 1.01},
    "all": {"register": "test_time", "neurons": [[2, 7]], "replace": "mean", "layer": 1, "times_median": 1.02},
}


def plain(tower, shape, pixels, changes):
    """States after each layer [L][T, C + H*W, D], and attention received in the last block, frame by frame."""
    depth, count, first = shape.vision_layers, changes.registers, int(shape.cls)
    layers, attention = [[] for _ in range(depth + 1)], []
    for frame in pixels:
        embedded = tower.embeddings(frame[None])
        x = getattr(tower, "pre_layrnorm", torch.nn.Identity())(embedded)[0]
        rows, width = x.shape
        x = torch.cat([x, torch.zeros(count, width)])
        layers[0].append(x[:rows])
        for number, block in enumerate(blocks_of(tower), 1):
            y = block.before(x)
            size = width // shape.vision_heads
            mixed, weights = [], []
            for head in range(shape.vision_heads):
                part = slice(head * size, (head + 1) * size)
                q, k, v = (f(y)[:, part] for f in (block.queries, block.keys, block.values))
                weights.append(torch.softmax(q @ k.T / size**0.5, dim=-1))
                mixed.append(weights[-1] @ v)
            x = x + block.scales[0] * block.out(torch.cat(mixed, dim=-1))
            hidden = block.mlp.activation_fn(block.mlp.fc1(block.between(x)))
            for at, neuron in changes.neurons:
                if at == number:
                    most = max(float(hidden[n, neuron]) for n in range(rows))
                    for n in range(rows):
                        hidden[n, neuron] = 0
                    hidden[rows, neuron] = most
            x = x + block.scales[1] * block.mlp.fc2(hidden)
            if changes.replace and number == (changes.layer + depth + 1 if changes.layer < 0 else changes.layer):
                norms = [float(x[n].double().norm()) for n in range(first, rows)]
                ordered, half = sorted(norms), len(norms) // 2
                median = ordered[half] if len(norms) % 2 else (ordered[half - 1] + ordered[half]) / 2
                large = [norm > changes.times_median * median for norm in norms]
                assert 0 < sum(large) < len(large)
                others = [x[first + n] for n, is_large in enumerate(large) if not is_large]
                mean = sum(others) / len(others)
                new = x.clone()
                for n, is_large in enumerate(large):
                    if is_large:
                        new[first + n] = mean if changes.replace == "mean" else x[first + n] * median / norms[n]
                x = new
            layers[number].append(x[:rows])
        attention.append(torch.stack([w.mean(0) for w in weights]).mean(0)[:rows])
    return [torch.stack(own) for own in layers], torch.stack(attention)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "side"), [("clip", 40), ("siglip", 24), ("dino", 40)])
def test_a_changed_tower_is_a_plain_loop(kind, side, case):
    tower, shape = random_tower(kind, side)
    unchanged, _ = random_tower(kind, side)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    changes = TowerChanges(**CASES[case])
    changes.check(shape, "it")
    changes.apply(tower, shape)
    rows = int(shape.cls) + shape.height * shape.width
    outputs = [LayerStates(str(layer), (rows, shape.tower_dim), (layer,)) for layer in range(4)]
    outputs.append(score_output("received", 3, shape))
    with torch.inference_mode():
        *states, attention = tower_pass(tower, pixels, outputs)
        layers, received = plain(unchanged, shape, pixels, changes)
        before = tower_pass(unchanged, pixels, outputs)
    for found, expected in zip(states, layers, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(attention[..., 0], received, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(states[-1], before[3], atol=1e-3)
    assert torch.equal(states[0], before[0])


@pytest.mark.parametrize(
    ("kind", "side", "times"), [("clip", 40, 1.05), ("siglip", 24, 1.02), ("clip", 24, 99.0), ("dino", 40, 1.02)]
)
def test_neurons_of_outliers_against_a_plain_loop(kind, side, times):
    tower, shape = random_tower(kind, side)
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    output, first = outlier_neurons(shape, times), int(shape.cls)
    with torch.inference_mode():
        (found,) = tower_pass(tower, pixels, [output])
        states = tower(pixels, output_hidden_states=True).hidden_states
        layer = shape.vision_layers_run
        whole = getattr(tower.encoder, "layers", None) or tower.encoder.layer
        owns = [getattr(block, "self_attn", None) or block.attention for block in whole]
        expected = torch.zeros(2, layer, shape.vision_intermediate + 1, dtype=torch.float64)
        for t in range(2):
            norms = states[layer][t, first:].double().norm(dim=-1).tolist()
            ordered, half = sorted(norms), len(norms) // 2
            median = ordered[half] if len(norms) % 2 else (ordered[half - 1] + ordered[half]) / 2
            for n, norm in enumerate(norms):
                if norm <= times * median:
                    continue
                expected[t, :, -1] += 1
                for row, block in enumerate([*blocks_of(tower)][:layer]):
                    x, own = states[row][t : t + 1], owns[row]
                    x = x + block.scales[0] * own(block.before(x))[0]
                    hidden = block.mlp.activation_fn(block.mlp.fc1(block.between(x)))
                    expected[t, row, :-1] += hidden[0, first + n].double()
    assert (expected[..., -1] > 0).any() == (times < 2)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_loaded_model_is_changed_for_good(tmp_path):
    folder = str(save(tmp_path, "llava"))
    plain_model, changed = load_backbone(folder), load_backbone(folder, tower={"register": 2})
    pixels = torch.randn(3, 3, 48, 48)
    assert (plain_model.tower_changes, changed.tower_changes) == (None, {"register": 2, "neurons": []})
    first, second = plain_model.features(pixels), changed.features(pixels)
    assert first.shape == second.shape
    assert not torch.allclose(first, second, atol=1e-4)
    with pytest.raises(ModelError, match=r"model\.tower\.layer=4: .* has layers 1\.\.3 there"):
        load_backbone(folder, tower={"replace": "mean", "layer": 4})


def test_what_is_the_same_has_one_identity():
    assert TowerChanges().identity is TowerChanges(times_median=2).identity is None
    assert TowerChanges("zeros").identity == TowerChanges(1).identity
    assert TowerChanges("test_time", [[2, 1], [1, 3]]).identity == TowerChanges("test_time", [[1, 3], [2, 1]]).identity
    assert TowerChanges(1).identity != TowerChanges("test_time", [[1, 3]]).identity != TowerChanges(2).identity
    assert TowerChanges(replace="mean", layer=1).identity != TowerChanges(replace="norm", layer=1).identity
    assert (TowerChanges(4).label, TowerChanges().label) == ("register 4", "")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"register": "ones"}, "say zeros, test_time, a number above 0, or null"),
        ({"register": 0}, "model.tower.register=0"),
        ({"register": True}, "model.tower.register=True"),
        ({"register": "test_time"}, "needs model.tower.neurons; job=norms job.register_neurons=10 finds them"),
        ({"register": "zeros", "neurons": [[1, 2]]}, "model.tower.neurons is for model.tower.register=test_time"),
        ({"register": "test_time", "neurons": [3]}, "give pairs of a block and a neuron"),
        ({"register": "test_time", "neurons": [[0, 3]]}, "give pairs"),
        ({"register": "test_time", "neurons": "all"}, "give pairs"),
        ({"replace": "median", "layer": 1}, "say mean, norm or null"),
        ({"replace": "mean"}, "go together"),
        ({"layer": 2}, "go together"),
        ({"replace": "mean", "layer": "last"}, "give a whole number"),
        ({"replace": "mean", "layer": 1, "times_median": 1}, "give a number above 1"),
        ({"registers": 2}, "there are register, neurons, replace, layer, times_median"),
    ],
)
def test_impossible_changes_are_told(settings, told):
    with pytest.raises(ModelError) as caught:
        tower_changes({"tower": settings})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_tower_lacks_is_told():
    _, shape = random_tower("clip", 24)
    for settings, told in (
        ({"register": "test_time", "neurons": [[4, 0]]}, "[4, 0]: it has blocks 1..3 with neurons 0..39"),
        ({"register": "test_time", "neurons": [[1, 40]]}, "[1, 40]"),
        ({"replace": "mean", "layer": 0}, "layers 1..3 there, or -1 for the last"),
        ({"replace": "mean", "layer": -4}, "model.tower.layer=-4"),
    ):
        with pytest.raises(ModelError) as caught:
            tower_changes({"tower": settings}).check(shape, "it")
        assert told in str(caught.value)
