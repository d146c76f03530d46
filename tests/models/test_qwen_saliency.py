"""Attention received, keys and values of the towers of Qwen2.5-VL and Qwen3-VL, and the compressions that read them."""

import importlib

import pytest
import torch

from random_models import QWEN, save_qwen
from videopool.compression import Compress, Saliency, Uniform
from videopool.config.build import build_pooling
from videopool.models import ModelError, load_backbone
from videopool.models.tower_outputs import Keys, LayerStates, score_output, tower_outputs
from videopool.reading.module import VideoLM

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIDE = 48  # pixels: 6 x 6 patches, 3 x 3 merged ones; windows of 4 x 4 patches


@pytest.fixture(scope="module", params=QWEN)
def folder(request, tmp_path_factory):
    return str(save_qwen(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(folder, frame_size=SIDE)


@pytest.fixture(scope="module")
def views():
    return torch.randn(3, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


def cells_in_order(windowed):
    """Rows and columns of merged patches as the tower orders them."""
    cells = [(row, column) for row in range(3) for column in range(3)]
    return sorted(cells, key=lambda cell: (cell[0] // 2, cell[1] // 2, *cell)) if windowed else cells


def rows_of(backbone):
    """The place in a frame, row by row, of each patch in the tower's order."""
    cells = cells_in_order(backbone.shape.window > 0)
    return [(2 * row + down) * 6 + 2 * column + right for row, column in cells for down in (0, 1) for right in (0, 1)]


@pytest.mark.parametrize("block", [1, 2])
@torch.inference_mode()
def test_attention_is_the_towers_own(backbone, views, block, monkeypatch):
    """Block 1 of Qwen2.5-VL's attends in windows, and its patches receive attention from their window alone."""
    (found,) = backbone.encode_at_once(views, "video", [score_output("received", block, backbone.shape)])
    tower = backbone.tower("video")
    module, caught = importlib.import_module(type(tower).__module__), []

    def eager(*args, function=module.eager_attention_forward, **options):
        output, weights = function(*args, **options)
        caught.append((args[0], weights[0].mean(0)))
        return output, weights

    monkeypatch.setattr(module, "eager_attention_forward", eager)
    monkeypatch.setattr(tower.config, "_attn_implementation", "eager")
    tower(backbone._patches(views), grid_thw=torch.tensor([[3, 6, 6]]))
    own = [weights for attention, weights in caught if attention is tower.blocks[block - 1].attn]
    assert len(own) == (12 if backbone.shape.window and block == 1 else 3)
    places, received = rows_of(backbone), torch.zeros(3, 36)
    start = 0
    for weights in own:
        for key in range(len(weights)):
            frame, place = divmod(start + key, 36)
            received[frame, places[place]] = weights[:, key].sum() / 36
        start += len(weights)
    torch.testing.assert_close(received.sum(1), torch.ones(3))
    torch.testing.assert_close(found[..., 0], received, **CLOSE)


@torch.inference_mode()
def test_keys_and_values_are_those_of_the_projection(backbone, views):
    shape = backbone.shape
    outputs = [Keys("keys", (36, 8), (2,), 2, heads=4), score_output("values", 2, shape)]
    keys, values = backbone.encode_at_once(views, "video", outputs)
    block, caught = backbone.tower("video").blocks[1], []
    hook = block.attn.qkv.register_forward_hook(lambda _, __, out: caught.append(out.view(3, 36, 3, 4, 8)))
    backbone.tower("video")(backbone._patches(views), grid_thw=torch.tensor([[3, 6, 6]]))
    hook.remove()
    for own, place in enumerate(rows_of(backbone)):
        torch.testing.assert_close(keys[:, place], caught[0][:, own, 1].mean(1), **CLOSE)
        norms = caught[0][:, own, 2].flatten(1).norm(dim=1)
        torch.testing.assert_close(values[:, place, 0], norms, **CLOSE)


@torch.inference_mode()
def test_a_compression_keeps_the_most_salient_cells(backbone, views):
    pooling = Compress(Uniform(), Saliency(), tokens=6)
    outputs = tower_outputs(pooling, backbone.shape, backbone.name)
    own, (saliency,) = backbone.features(views), backbone.encode_at_once(views, "video", list(outputs.values()))
    clips = VideoLM(backbone, pooling).arranged(own[None], beside={"saliency": saliency[None]})
    merged = saliency[..., 0].view(3, 3, 2, 3, 2).mean((2, 4)).flatten(1)
    grid = backbone.project(backbone.grid(own)).flatten(1, 2)
    expected = [grid[frame, cell] for frame in range(3) for cell in sorted(merged[frame].topk(2).indices.tolist())]
    torch.testing.assert_close(backbone.main(clips.states[0, clips.at[0]]), torch.stack(expected), **CLOSE)


NEEDING = ("visionzip", "prumerge", "prumerge_plus", "holitom", "flashvid", "prunevid", "fastvid_mean", "vidcom2")


@pytest.mark.parametrize("name", NEEDING)
@torch.inference_mode()
def test_published_compressions_run(backbone, views, name, hydra_conf):
    pooling = build_pooling(hydra_conf(f"pooling={name}", "pooling.share=0.5"))
    outputs = tower_outputs(pooling, backbone.shape, backbone.name)
    found = backbone.encode_at_once(views, "video", [backbone.feature_states, *outputs.values()])
    beside = {field: values[None] for field, values in zip(outputs, found[1:], strict=True)}
    clips = VideoLM(backbone, pooling).arranged(found[0][None], beside=beside)
    assert clips.at.shape[1] == pooling.num_tokens(3, 3, 3) or pooling.varies


def test_what_the_tower_lacks_is_told(folder, backbone):
    for kind, words in (("cls", "attention of a CLS token"), ("head", "SigLIP's pooling head")):
        with pytest.raises(ModelError, match=f"needs {words}, and the tower of .* has none"):
            tower_outputs(Compress(Uniform(), Saliency(kind), tokens=6), backbone.shape, backbone.name)
    with pytest.raises(ModelError, match=r"model\.tower\.register: the tower of .* has no place for registers"):
        load_backbone(folder, frame_size=SIDE, tower={"register": "zeros"})


@torch.inference_mode()
def test_patches_of_high_norm_are_replaced_frame_by_frame(folder, backbone, views):
    """After block 1, against a loop over frames."""
    changed = load_backbone(folder, frame_size=SIDE, tower={"replace": "mean", "layer": 1, "times_median": 1.05})
    layer = [LayerStates("1", (36, 32), (1,))]
    (before,), (after,) = (one.encode_at_once(views, "video", layer) for one in (backbone, changed))
    expected = before.clone()
    for frame in range(3):
        norms = before[frame].norm(dim=1)
        middle = norms.sort().values[17:19].mean()
        high = norms > 1.05 * middle
        expected[frame, high] = before[frame, ~high].mean(0)
    assert (expected != before).any()
    torch.testing.assert_close(after, expected, **CLOSE)
