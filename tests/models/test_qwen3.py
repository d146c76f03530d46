"""Qwen3-VL reads moments behind their times, at positions of time, row and column, with DeepStack, as transformers.

The reference writes whole prompts as transformers' processor does, and for pooled clips slices embeddings, position ids
and DeepStack's features in loops.
"""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen3VLProcessor

from random_models import save_qwen
from videopool.compression import Compress, Even, Nearest, Uniform
from videopool.models import ModelError, load_backbone, load_config
from videopool.models.sizes import Pruning
from videopool.models.texts import BLOCK, FRAMES, Stamps
from videopool.pooling import Adaptive, Median, NoPooling, PoolingContractError, Subsample
from videopool.reading.answers import (
    continuation_logprobs,
    greedy_answers,
    llm_states,
    next_token_logits,
    prefill_clips,
    question_chunk,
)
from videopool.reading.merging import merge
from videopool.reading.module import VideoLM
from videopool.reading.prefix import by_question

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIDE, GRID, MOMENTS = 48, 3, 4  # pixels; 6 x 6 patches, 3 x 3 merged ones
CELLS = GRID * GRID
STAMPS = [Stamps([0.75 + 1.5 * pair for pair in range(4)], 6.0), Stamps([8.0, 9.96, 100.25, 3600.0], 4000.0)]
PAD, START, END = "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
PROMPT = "User: <|vision_start|>{}<|vision_end|>{} Assistant:"
ASKED = [["How many objects?", "You see what? The A or B", "Tell all."], ["How many objects?"]]
OPTIONS = ["the left one", "Frame"]
STEPS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_qwen(tmp_path_factory.mktemp("qwen3"), "qwen3_vl"))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(folder, frame_size=SIDE)


@pytest.fixture(scope="module")
def views():
    """Two clips of four pairs of frames."""
    return torch.randn(2, MOMENTS, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def features(backbone, views):
    return backbone.features(views.flatten(0, 1)).unflatten(0, (2, MOMENTS))


def patches(views):
    """The pixels of a clip as transformers' processor cuts them, in loops."""
    rows = []
    for view in views:
        frames = view.view(2, 3, SIDE, SIDE)
        for cell in range(CELLS):
            for part in range(4):
                top = 16 * (cell // GRID) + 8 * (part // 2)
                left = 16 * (cell % GRID) + 8 * (part % 2)
                rows.append(frames[:, :, top : top + 8, left : left + 8].transpose(0, 1).flatten())
    return torch.stack(rows)


def by_processor(stamps):
    """What transformers' processor writes for the clip; frames of a pair are equally far from its time."""
    own = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2), video_token=PAD, vision_start_token=START,
        vision_end_token=END, _calculate_timestamps=partial(Qwen3VLProcessor._calculate_timestamps, None),
    )  # fmt: skip
    indices = [index for time in stamps.times for index in (round(1000 * time) - 250, round(1000 * time) + 250)]
    meta = SimpleNamespace(fps=1000.0, frames_indices=indices)
    inputs = {"video_grid_thw": torch.tensor([[MOMENTS, 2 * GRID, 2 * GRID]]), "video_metadata": [meta]}
    return Qwen3VLProcessor.replace_video_token(own, inputs, 0)


def given(backbone, clip, views, text):
    """What transformers' processor gives its model for a prompt about a clip."""
    ids = torch.tensor([backbone.tokenizer.encode(PROMPT.format(by_processor(STAMPS[clip]), text))])
    return {
        "input_ids": ids, "pixel_values_videos": patches(views[clip]),
        "video_grid_thw": torch.tensor([[MOMENTS, 2 * GRID, 2 * GRID]]),
        "mm_token_type_ids": (ids == backbone.media_ids["video"]).int() * 2,
    }  # fmt: skip


def asked(backbone, clips):
    """Token ids before each clip, and of each text behind it."""
    token = backbone.image_token
    rows = [[clips.asked(clip, PROMPT.format(token, text), token) for text in row] for clip, row in enumerate(ASKED)]
    split = [[backbone.split_prompt(text) for text in row] for row in rows]
    return [row[0][0] for row in split], [[after for _, after in row] for row in split]


@torch.inference_mode()
def test_whole_prompts_and_answers_equal_transformers(backbone, views, features):
    clips = VideoLM(backbone, NoPooling()).arranged(features, stamps=STAMPS)
    before, after = asked(backbone, clips)
    assert clips.lengths[0] < clips.lengths[1]
    fresh = partial(prefill_clips, backbone, before, clips)
    logits, answers = next_token_logits(backbone, fresh(), after), greedy_answers(backbone, fresh(), after, STEPS)
    for clip, row in enumerate(ASKED):
        for number, text in enumerate(row):
            inputs = given(backbone, clip, views, text)
            torch.testing.assert_close(logits[clip][number], backbone.model(**inputs).logits[0, -1], **CLOSE)
            written = backbone.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0]
            own = written[inputs["input_ids"].shape[1] :].tolist()
            own = own[: own.index(backbone.tokenizer.eos_token_id)] if backbone.tokenizer.eos_token_id in own else own
            assert answers[clip][number] == own


@torch.inference_mode()
def test_features_and_levels_are_the_towers_own(backbone, views):
    theirs = backbone.model.model.visual(patches(views[0]), grid_thw=torch.tensor([[MOMENTS, 6, 6]]))
    features = backbone.features(views[0])
    assert features.shape[1:] == (36, 3 * 32)  # all levels, as the store keeps them
    torch.testing.assert_close(backbone.project(backbone.grid(features)).flatten(0, 2), theirs.pooler_output, **CLOSE)
    for level, grid in enumerate(backbone.level_grids(features)):
        ours = backbone.project_level(level, grid).flatten(0, 2)
        torch.testing.assert_close(ours, theirs.deepstack_features[level], **CLOSE)


def levels_of(backbone, features, before=True):
    """The main grid [T * H * W, D] and DeepStack's, of one clip; before or after the projectors."""
    grids = [backbone.grid(features), *backbone.level_grids(features)]
    if not before:
        makers = [backbone.project, *(partial(backbone.project_level, level) for level in range(2))]
        grids = [make(grid) for make, grid in zip(makers, grids, strict=True)]
    return [grid.flatten(0, 2) for grid in grids]


def whole_positions(backbone, clip, views):
    """[3, L] of transformers for the whole prompt, and the entries of the clip's tokens."""
    inputs = given(backbone, clip, views, "x")
    kinds = {name: inputs[name] for name in ("video_grid_thw", "mm_token_type_ids")}
    positions, _ = backbone.model.model.get_rope_index(inputs["input_ids"], **kinds)
    return positions[:, 0], (inputs["input_ids"][0] == backbone.media_ids["video"]).nonzero()[:, 0]


def reference(backbone, clip, views, tokens, places, text, original, layout):
    """Embeddings [L, D], levels [2, L, D] and positions [3, L] of one prompt; tokens are lists of (main, levels)."""
    frames = {}
    for token, place in sorted(zip(tokens, places, strict=True), key=lambda one: one[1] // CELLS):
        frames.setdefault(place // CELLS, []).append((token, place))
    words = {frame: f"<{STAMPS[clip].times[frame]:.1f} seconds>" for frame in frames}
    if layout == BLOCK:
        frames = {0: list(zip(tokens, places, strict=True))}
    middle = "".join(f"{words[frame]}{START}{PAD * len(own)}{END}" for frame, own in frames.items() if layout == FRAMES)
    middle = middle or PAD * len(tokens)
    ids = torch.tensor(backbone.tokenizer.encode(PROMPT.format(middle, text)))
    at = (ids == backbone.media_ids["video"]).nonzero()[:, 0].tolist()
    states, levels = backbone.embed(ids), torch.zeros(2, len(ids), 64)
    kept = [one for own in frames.values() for one in own]
    for entry, ((main, others), _) in zip(at, kept, strict=True):
        states[entry] = main
        levels[:, entry] = torch.stack(others)
    positions = torch.arange(len(ids)).expand(3, -1).clone()
    if original:
        whole, entries = whole_positions(backbone, clip, views)
        start = at[0] - int(whole[0, entries[0]])  # of this prompt's first token, less that of the whole one's
        for entry, (_, place) in zip(at, kept, strict=True):
            positions[:, entry] = whole[:, entries[place]] + start
        for first, entry in pairwise(at):  # the text before a frame's tokens
            place = dict(zip(at, (place for _, place in kept), strict=True))[entry]
            begin = int(whole[0, entries[place // CELLS * CELLS]]) + start
            positions[:, first + 1 : entry] = torch.arange(first + 1 - entry, 0) + begin
        behind = at[-1] + 1
        end = int(whole[0, entries[-1] + 1]) + start
        positions[:, behind:] = torch.arange(len(ids) - behind) + end
    return states, levels, positions


def plain(backbone, states, levels, positions, kept=None):
    """Logits of one whole sequence by transformers' language model."""
    hidden = backbone.language_model(
        inputs_embeds=states[None], position_ids=positions[:, None], attention_mask=torch.ones(1, len(states)),
        use_cache=False, visual_pos_masks=torch.ones(1, len(states), dtype=torch.bool),
        deepstack_visual_embeds=list(levels),
    )  # fmt: skip
    return backbone.logits(hidden.last_hidden_state[0])


@pytest.mark.parametrize(
    ("stage", "layout", "original"),
    [("projector", FRAMES, False), ("encoder", FRAMES, True), ("projector", BLOCK, False)],
)
@torch.inference_mode()
def test_kept_tokens_bring_their_levels(backbone, views, features, stage, layout, original):
    """Several questions on each of two clips of unequal length, in one batch, against one sequence at a time."""
    pooling = Subsample(5, "highest_norm")
    lm = VideoLM(backbone, pooling, stage, layout, original)
    clips = lm.arranged(features, stamps=STAMPS)
    grid, context = lm.pooling_input(features)
    places = pooling.token_places(grid, context).tolist()
    before, after = asked(backbone, clips)
    fresh = partial(prefill_clips, backbone, before, clips)
    logits, answers = next_token_logits(backbone, fresh(), after), greedy_answers(backbone, fresh(), after, STEPS)
    options = [backbone.tokenizer.encode(text, add_special_tokens=False) for text in OPTIONS]
    likely = continuation_logprobs(backbone, fresh(), [[(ids, options) for ids in row] for row in after])
    for clip, row in enumerate(ASKED):
        main, *others = levels_of(backbone, features[clip], before=False)
        tokens = [(main[place], [one[place] for one in others]) for place in places[clip]]
        for number, text in enumerate(row):
            own = reference(backbone, clip, views, tokens, places[clip], text, original, layout)
            torch.testing.assert_close(logits[clip][number], plain(backbone, *own)[-1], **CLOSE)
            assert answers[clip][number] == greedy(backbone, *own)
            for ids, mean in zip(options, likely[clip][number], strict=True):
                each = plain(backbone, *longer(backbone, *own, ids))[-len(ids) - 1 : -1]
                each = each.log_softmax(-1)[range(len(ids)), ids]
                assert mean == pytest.approx(float(each.mean()), abs=1e-4)


def longer(backbone, states, levels, positions, ids):
    more = positions[:, -1:] + 1 + torch.arange(len(ids))
    return (
        torch.cat([states, backbone.embed(torch.tensor(ids))]),
        torch.cat([levels, torch.zeros(2, len(ids), 64)], dim=1),
        torch.cat([positions, more], dim=1),
    )


def greedy(backbone, *own):
    answer = []
    for _ in range(STEPS):
        token = int(plain(backbone, *own)[-1].argmax())
        if token in backbone.end_ids:
            break
        answer.append(token)
        own = longer(backbone, *own, [0 if token in backbone.media_ids.values() else token])
    return answer


@pytest.mark.parametrize("stage", ["projector", "encoder"])
@torch.inference_mode()
def test_merged_tokens_have_merged_levels(backbone, features, stage):
    """The most alike to each centre by the main features; the levels are means over the same patches, by a loop."""
    pooling = Compress(Uniform(contextual=0.5), Even(), Nearest(), tokens=8)
    lm = VideoLM(backbone, pooling, stage)
    clips = lm.arranged(features, stamps=STAMPS)
    grid, _ = lm.pooling_input(features)
    for clip in range(2):
        main, *others = levels_of(backbone, features[clip], before=stage == "encoder")
        weights = shares(pooling, grid[clip : clip + 1].double())
        torch.testing.assert_close(weights.float() @ main, pooling(grid[[clip]])[0], **CLOSE)
        assert ((weights > 1e-6).sum(1) > 1).any()
        merged = [weights.float() @ one for one in others]
        if stage == "encoder":
            merged = [backbone.project_level(level, one) for level, one in enumerate(merged)]
        found = clips.states[clip][clips.at[clip]]
        torch.testing.assert_close(found[:, 64:], torch.cat(merged, dim=-1), **CLOSE)


def shares(pooling, grid):
    """[N, T * H * W] the weight of each patch in each token, by small changes of one patch after another."""
    plain, found = pooling(grid)[0], []
    change = torch.randn(grid.shape[-1], dtype=grid.dtype, generator=torch.Generator().manual_seed(1))
    for place in range(grid[0, ..., 0].numel()):
        moved = grid.clone()
        moved.flatten(1, 3)[0, place] += 1e-6 * change
        found.append((pooling(moved)[0] - plain) @ change / (1e-6 * change @ change))
    return torch.stack(found, dim=-1)


@torch.inference_mode()
def test_cells_of_a_grid_pooling_are_grids_of_their_own(backbone, features):
    """Two of four moments: their texts are those in the middle of their windows, 1 and 3."""
    clips = VideoLM(backbone, Adaptive((2, 1, 3))).arranged(features[:1], stamps=STAMPS[:1])
    main, *others = levels_of(backbone, features[0], before=False)
    means = [one.view(2, 2, 3, 3, 64).mean((1, 2)).flatten(0, 1) for one in (main, *others)]
    torch.testing.assert_close(clips.states[0][clips.at[0]], torch.cat(means, dim=-1), **CLOSE)
    between = len(backbone.text_ids(f"{END}<5.2 seconds>{START}"))
    assert clips.texts[0] == (f"<2.2 seconds>{START}", END)
    cells = [[first, first, first + column] for first in (0, 3 + between) for column in range(3)]
    assert clips.positions[0][clips.at[0]].tolist() == cells
    assert (clips.ends, clips.tops) == ([6 + between], [6 + between])


@torch.inference_mode()
def test_a_still_image_has_no_time(backbone, features):
    """Between the tags of the prompt, as transformers' processor writes it."""
    image = VideoLM(backbone, NoPooling()).arranged(features[:1, :1], stamps=[Stamps([0.0], 1 / 3, True)])
    assert (image.texts, image.lengths, image.ends) == ([("", "")], [CELLS], [GRID])


@torch.inference_mode()
def test_frames_of_one_run_are_grids_too(backbone, features):
    """Without texts between them; chosen tokens at the places of the whole grid."""
    pooling = Subsample(5, "highest_norm")
    grids = [[3 * t, 3 * t + row, 3 * t + column] for t in range(4) for row in range(3) for column in range(3)]
    whole = VideoLM(backbone, NoPooling(), layout=BLOCK).arranged(features, stamps=STAMPS)
    assert (whole.positions[1].tolist(), whole.ends) == (grids, [12, 12])
    lm = VideoLM(backbone, pooling, layout=BLOCK, original=True)
    chosen, places = lm.arranged(features, stamps=STAMPS), pooling.token_places(lm.pooling_input(features)[0])
    assert chosen.positions[1].tolist() == [grids[place] for place in places[1].tolist()]
    assert (chosen.ends, chosen.texts[1]) == ([12, 12], ("", ""))


@torch.inference_mode()
def test_dropping_tokens_after_a_layer_keeps_their_levels(folder, views):
    """FastV after layer 1, before the second level is added."""
    slow = load_backbone(folder, frame_size=SIDE, attention="eager")
    features = slow.features(views.flatten(0, 1)).unflatten(0, (2, MOMENTS))
    clips = VideoLM(slow, NoPooling()).arranged(features, stamps=STAMPS)
    before, after = asked(slow, clips)
    pruning = Pruning(1, 0.3)
    prefix = prefill_clips(slow, before, clips, pruning)
    logits = by_question(next_token_logits, slow, prefix, after, question_chunk(slow, 10**12))
    for clip, row in enumerate(ASKED):
        main, *others = levels_of(slow, features[clip], before=False)
        tokens = [(main[place], [one[place] for one in others]) for place in range(MOMENTS * CELLS)]
        for number, text in enumerate(row):
            states, levels, _ = reference(slow, clip, views, tokens, range(len(tokens)), text, False, FRAMES)
            inputs = given(slow, clip, views, text)
            kinds = {name: inputs[name] for name in ("video_grid_thw", "mm_token_type_ids")}
            positions = slow.model.model.get_rope_index(inputs["input_ids"], **kinds)[0]
            visual = (inputs["input_ids"][0] == slow.media_ids["video"]).nonzero()[:, 0].tolist()
            turns = slow.language_model.rotary_emb(states[None], position_ids=positions)
            mask = torch.full((1, 1, len(states), len(states)), torch.finfo(states.dtype).min).triu(1)
            first, *rest = slow.language_model.layers
            caught = []
            hook = first.self_attn.register_forward_hook(lambda _, __, out, caught=caught: caught.append(out[1]))
            hidden = first(states[None], attention_mask=mask, position_embeddings=turns) + levels[0]
            hook.remove()
            weights = caught[0][0].mean(0)[-1]
            stay = sorted(visual, key=lambda entry, weights=weights: -float(weights[entry]))[: int(0.3 * len(visual))]
            kept = [entry for entry in range(len(states)) if entry not in visual or entry in stay]
            hidden, levels = hidden[:, kept], levels[:, kept]
            turns = slow.language_model.rotary_emb(hidden, position_ids=positions[:, :, kept])
            for layer, block in enumerate(rest, 1):
                hidden = block(hidden, attention_mask=mask[:, :, : len(kept), : len(kept)], position_embeddings=turns)
                hidden = hidden + levels[layer] if layer < 2 else hidden
            expected = slow.logits(slow.language_model.norm(hidden))[0, -1]
            torch.testing.assert_close(logits[clip][number], expected, **CLOSE)


@torch.inference_mode()
def test_states_of_layers_have_the_levels(backbone, features):
    """Those after a layer hold what DeepStack adds there: the next layer's input."""
    clips = VideoLM(backbone, NoPooling()).arranged(features[:1], stamps=STAMPS[:1])
    states, _ = llm_states(backbone, clips.states, [0, 1, 2, 3], positions=clips.within(0, 0, 0))
    inputs = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for block in backbone.language_model.layers
    ]
    last = backbone.read(clips.states, positions=clips.within(0, 0, 0))
    for hook in hooks:
        hook.remove()
    for layer, own in enumerate(inputs):
        torch.testing.assert_close(states[layer], own, **CLOSE)
    torch.testing.assert_close(backbone.language_model.norm(states[3]), last, **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_training_reads_prompts_as_transformers(backbone, views, features, side):
    """Two prompts of unequal length in a batch, padded on either side, against transformers' forward of each."""
    clips = VideoLM(backbone, NoPooling()).arranged(features, stamps=STAMPS)
    texts, token = ["How many objects?", "x"], backbone.image_token
    rows = [
        backbone.tokenizer.encode(clips.asked(clip, PROMPT.format(token, text), token))
        for clip, text in enumerate(texts)
    ]
    longest = max(map(len, rows))
    pads = [[0] * (longest - len(row)) for row in rows]
    ids = torch.tensor([pad + row if side == "left" else row + pad for row, pad in zip(rows, pads, strict=True)])
    ones = [[1] * len(row) for row in rows]
    mask = torch.tensor([pad + row if side == "left" else row + pad for row, pad in zip(ones, pads, strict=True)])
    rows = [own[: clips.lengths[clip]] for clip, own in enumerate(clips.positions)]
    places = list(zip(rows, clips.ends, strict=True))
    merged = merge(backbone, ids, [[clips.row(clip)] for clip in range(2)], mask, places=places)
    hidden = backbone.read(merged.embeddings, merged.attention, merged.positions)
    for clip, text in enumerate(texts):
        theirs = backbone.model(**given(backbone, clip, views, text)).logits[0]
        torch.testing.assert_close(backbone.logits(hidden[clip][merged.mask[clip].bool()]), theirs, **CLOSE)


@pytest.mark.parametrize("kind", ["qwen3_5", "video_llama_3", "qwen3_vl_moe"])
def test_other_classes_are_refused_by_name(folder, tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=rf"model type '{kind}' is not supported; supported: llava, .*, qwen3_vl"):
        load_config(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deepstack_visual_indexes": [0, 3]}, r"deepstack_visual_indexes=\[0, 3\]: the tower has blocks 0\.\.2"),
        ({"temporal_patch_size": 1}, "temporal_patch_size=1: two frames make a patch"),
    ],
)
def test_towers_that_do_not_fit_are_told(folder, tmp_path, change, words):
    config = json.loads((Path(folder) / "config.json").read_text())
    config["vision_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"config.json: vision_config: {words}"):
        load_config(str(tmp_path))


def test_a_pooling_without_one_map_for_all_features_is_refused(backbone, features):
    with pytest.raises(PoolingContractError, match=r"pooling median.*DeepStack.*this pooling has none"):
        VideoLM(backbone, Median((1, 3, 3))).arranged(features, stamps=STAMPS)
