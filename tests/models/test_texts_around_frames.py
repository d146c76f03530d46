"""LLaVA-Video, InternVL and SmolVLM2 read a clip as transformers reads the prompt that its processors write.

The reference writes the whole prompt as text, tokenises it at once, and puts the features in place of the placeholders;
of pooled clips with the placeholders of the tokens that stay.
"""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import InternVLProcessor
from transformers.models.smolvlm import processing_smolvlm

from random_models import NEW, PATCH, SIDE, byte_tokenizer, save_new
from videopool.models import ModelError, load_backbone, original
from videopool.models.others import number_words
from videopool.models.sizes import Pruning
from videopool.models.texts import BLOCK, FRAMES, Stamps
from videopool.models.tower_outputs import blocks_of, score_output
from videopool.pooling import Adaptive, NoPooling, Subsample
from videopool.reading.answers import (
    continuation_logprobs,
    greedy_answers,
    next_token_logits,
    prefill_clips,
    question_chunk,
)
from videopool.reading.module import VideoLM
from videopool.reading.prefix import by_question

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# Of two clips with three frames: their texts are of unequal length.
STAMPS = [Stamps([0.0, 1.5, 62.0], 65.3), Stamps([0.5, 3700.25, 7300.0], 7322.0)]
PROMPT = "<s>User: {}\n{} Assistant:"
ASKED = [["How many objects?", "You see what? The A or B", "Tell all."], ["How many objects?"]]
OPTIONS = ["the left one", "Frame"]
STEPS = 4


@pytest.fixture(scope="module", params=NEW)
def backbone(request, tmp_path_factory):
    return load_backbone(str(save_new(tmp_path_factory.mktemp(request.param), request.param)))


@pytest.fixture(scope="module")
def features(backbone):
    pixels = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    return backbone.features(pixels).unflatten(0, (2, 3))


def by_processors(family, counts, stamps, monkeypatch):
    """What transformers' processors write for a clip whose frames have so many tokens; of LLaVA-Video, its README."""
    if family == "internvl":
        own = SimpleNamespace(start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>")
        own.image_seq_length = counts[0]
        video = SimpleNamespace(shape=(len(counts),))
        return InternVLProcessor.replace_video_token(own, {"pixel_values_videos": [video]}, 0)
    if family == "smolvlm":
        monkeypatch.setattr(processing_smolvlm, "num2words", number_words, raising=False)
        own = SimpleNamespace(
            image_seq_len=counts[0], image_token="<image>", fake_image_token="<fake_token_around_image>",
            global_image_token="<global-img>",
        )  # fmt: skip
        given = SimpleNamespace(fps=1.0, timestamps=stamps.times, duration=stamps.duration)
        inputs = {"pixel_values": torch.zeros(1, len(counts)), "video_metadata": [given]}
        return processing_smolvlm.SmolVLMProcessor.replace_video_token(own, inputs, 0)
    return written(family, dict(enumerate(counts)), stamps)


def written(family, counts, stamps):
    """The same for the frames that are left, by their numbers; a loop of its own."""
    times = stamps.times
    if family == "internvl":
        return "\n".join(f"Frame{frame + 1}: <img>{'<IMG_CONTEXT>' * count}</img>" for frame, count in counts.items())
    if family == "smolvlm":
        hours, rest = divmod(int(stamps.duration), 3600)
        text = f"You are provided the following series of three frames from a {hours}:{rest // 60:02}:{rest % 60:02} "
        text += "[H:MM:SS] video.\n"
        for frame, count in counts.items():
            clock = f"{int(times[frame]) // 60:02}:{int(times[frame]) % 60:02}"
            places = "<image>" * count
            text += f"\nFrame from {clock}:<fake_token_around_image><global-img>{places}<fake_token_around_image>"
        return text + "\n\n"
    shown = ",".join(f"{time:.2f}s" for time in times)
    return (
        "<video>"
        * sum(counts.values())
        + f"The video lasts for {stamps.duration:.2f} seconds, and {len(times)} frames "
        f"are uniformly sampled from it. These frames are located at {shown}.Please answer the following questions "
        "related to this video."
    )


def with_newlines(backbone, tokens, places):
    """Tokens of each frame by its number, with the newlines among them, and the place of each."""
    height, width = backbone.shape.height, backbone.shape.width
    frames = {}
    for token, place in sorted(zip(tokens, places, strict=True), key=lambda one: one[1] // (height * width)):
        frames.setdefault(place // (height * width), []).append((token, place))
    if backbone.shape.family != "llava_video":
        return frames
    newline, whole = backbone.newline_vector(), {}
    for frame, own in frames.items():
        rows = {}
        for token, place in own:
            rows.setdefault(place // width, []).append((token, place))
        whole[frame] = [one for row in sorted(rows) for one in [*rows[row], (newline, (row, "end"))]]
    return whole


def embedded(backbone, text, frames):
    """Embeddings [L, D] of a whole prompt, and which entries are features."""
    ids = torch.tensor(backbone.tokenizer.encode(text))
    states, places = backbone.embed(ids), torch.isin(ids, torch.tensor(list(backbone.media_ids.values())))
    given = [vector for own in frames.values() for vector, _ in own]
    assert int(places.sum()) == len(given)
    states[places] = torch.stack(given) if given else states[:0]
    return states, places


def plain_logits(backbone, states, positions):
    """Logits of one whole sequence by transformers, without a cache."""
    ones = torch.ones(1, len(states))  # without a mask, jumps of positions would begin a sequence of its own
    hidden = backbone.language_model(
        inputs_embeds=states[None], position_ids=positions[None], attention_mask=ones, use_cache=False
    )
    return backbone.logits(hidden.last_hidden_state[0])


def reference(backbone, tokens, places, stamps, original, texts, layout=FRAMES):
    """Logits [vocabulary] behind each text, of one clip."""
    frames = with_newlines(backbone, tokens, places) if layout == FRAMES else block(backbone, tokens)
    family, grid = backbone.shape.family, backbone.shape.height * backbone.shape.width
    write = written if layout == FRAMES else block_text
    clip = write(family, {frame: len(own) for frame, own in frames.items()}, stamps)
    whole = with_newlines(backbone, [None] * 3 * grid, range(3 * grid))
    whole_text = written(family, {frame: len(own) for frame, own in whole.items()}, stamps)
    found = []
    for text in texts:
        states, at = embedded(backbone, PROMPT.format(clip, text), frames)
        positions = torch.arange(len(states))
        if original:
            ids = torch.tensor(backbone.tokenizer.encode(PROMPT.format(whole_text, text)))
            slots = torch.isin(ids, torch.tensor(list(backbone.media_ids.values()))).nonzero()[:, 0].tolist()
            there = dict(zip([place for own in whole.values() for _, place in own], slots, strict=True))
            start = int(at.nonzero()[0])
            entries, previous = at.nonzero()[:, 0].tolist(), None
            own = [(frame, place) for frame, row in frames.items() for _, place in row]
            for entry, (frame, place) in zip(entries, own, strict=True):
                positions[entry] = start + there[place] - slots[0]
                if previous is not None and previous != frame:  # the text before this frame's tokens
                    first = start + slots[sum(len(row) for number, row in whole.items() if number < frame)] - slots[0]
                    begin = max(one for one in entries if one < entry) + 1
                    positions[begin:entry] = torch.arange(begin - entry, 0) + first
                previous = frame
            behind = entries[-1] + 1
            end = start + slots[-1] + 1 - slots[0]
            positions[behind:] = torch.arange(len(states) - behind) + end
        found.append((states, positions))
    return found


def block(backbone, tokens):
    own = [(token, None) for token in tokens]
    return {0: own + ([(backbone.newline_vector(), None)] if backbone.shape.family == "llava_video" else [])}


def block_text(family, counts, stamps):
    (count,) = counts.values()
    if family == "internvl":
        return f"<img>{'<IMG_CONTEXT>' * count}</img>"
    if family == "smolvlm":
        text = written(family, {0: count}, stamps)
        return text.replace(f"\nFrame from {int(stamps.times[0]) // 60:02}:{int(stamps.times[0]) % 60:02}:", "\n")
    return written(family, {0: count}, stamps)


@torch.inference_mode()
def test_a_whole_prompt_equals_transformers_forward(backbone, features, monkeypatch):
    lm, family = VideoLM(backbone, NoPooling()), backbone.shape.family
    clips = lm.arranged(features, stamps=STAMPS)
    for clip, stamps in enumerate(STAMPS):
        text = PROMPT.format(backbone.image_token, "How many objects?")
        before, after = backbone.split_prompt(clips.asked(clip, text, backbone.image_token))
        parts = [backbone.embed(torch.tensor(before)), clips.row(clip), backbone.embed(torch.tensor(after))]
        ours = backbone.logits(backbone.read(torch.cat(parts)[None]))[0]
        tokens = backbone.project(backbone.grid(features[clip])).flatten(0, 2)
        frames = with_newlines(backbone, tokens, range(len(tokens)))
        counts = [len(own) for own in frames.values()]
        whole = PROMPT.format(by_processors(family, counts, stamps, monkeypatch), "How many objects?")
        if family == "llava_video":
            states, _ = embedded(backbone, whole, frames)
            theirs = backbone.model(inputs_embeds=states[None]).logits[0]
        else:
            pixels = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4)).unflatten(0, (2, 3))
            given = pixels[clip] if family == "internvl" else pixels[[clip]]
            ids = torch.tensor([backbone.tokenizer.encode(whole)])
            theirs = backbone.model(input_ids=ids, pixel_values=given).logits[0]
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("layout", [FRAMES, BLOCK])
@pytest.mark.parametrize("original", [False, True])
@torch.inference_mode()
def test_questions_on_pooled_clips_of_unequal_length(backbone, features, layout, original):
    """Options, logits and answers to several questions on each of two clips, against one sequence at a time."""
    if layout == BLOCK and original:
        pytest.skip("one run has the grid's own places; tests/reading/test_layout.py")
    pooling = Subsample(5, "highest_norm")
    lm = VideoLM(backbone, pooling, "projector", layout, original)
    clips = lm.arranged(features, stamps=STAMPS)
    grid, context = lm.pooling_input(features)
    places, tokens = pooling.token_places(grid, context), pooling(grid, context)
    token = backbone.image_token
    prompts = [[clips.asked(clip, PROMPT.format(token, text), token) for text in row] for clip, row in enumerate(ASKED)]
    before = [backbone.split_prompt(row[0])[0] for row in prompts]
    after = [[backbone.split_prompt(text)[1] for text in row] for row in prompts]
    fresh = partial(prefill_clips, backbone, before, clips)
    assert (fresh().seen is not None) or layout == BLOCK or backbone.shape.family == "internvl"
    logits = next_token_logits(backbone, fresh(), after)
    answers = greedy_answers(backbone, fresh(), after, STEPS)
    options = [backbone.tokenizer.encode(text, add_special_tokens=False) for text in OPTIONS]
    likely = continuation_logprobs(backbone, fresh(), [[(ids, options) for ids in row] for row in after])
    for clip, row in enumerate(ASKED):
        found = reference(backbone, tokens[clip], places[clip].tolist(), STAMPS[clip], original, row, layout)
        for number, (states, positions) in enumerate(found):
            torch.testing.assert_close(logits[clip][number], plain_logits(backbone, states, positions)[-1], **CLOSE)
            assert answers[clip][number] == greedy(backbone, states, positions)
            for ids, mean in zip(options, likely[clip][number], strict=True):
                more = torch.cat([states, backbone.embed(torch.tensor(ids))])
                at = torch.cat([positions, positions[-1] + 1 + torch.arange(len(ids))])
                each = plain_logits(backbone, more, at)[-len(ids) - 1 : -1].log_softmax(-1)[range(len(ids)), ids]
                assert mean == pytest.approx(float(each.mean()), abs=1e-4)


@torch.inference_mode()
def test_tokens_dropped_after_a_layer_are_visual_ones(backbone, features, tmp_path):
    """FastV on clips with texts among their tokens, which stay; the attention is transformers' own."""
    slow = load_backbone(str(save_new(tmp_path / "m", backbone.shape.family)), attention="eager")
    pooling, pruning = Subsample(5, "highest_norm"), Pruning(1, 0.4)
    lm, token = VideoLM(slow, pooling), slow.image_token
    clips = lm.arranged(features, stamps=STAMPS)
    grid, context = lm.pooling_input(features)
    places, tokens = pooling.token_places(grid, context), pooling(grid, context)
    prompts = [[clips.asked(clip, PROMPT.format(token, text), token) for text in row] for clip, row in enumerate(ASKED)]
    before = [slow.split_prompt(row[0])[0] for row in prompts]
    after = [[slow.split_prompt(text)[1] for text in row] for row in prompts]
    prefix = prefill_clips(slow, before, clips, pruning)
    logits = by_question(next_token_logits, slow, prefix, after, question_chunk(slow, 10**12))
    for clip, row in enumerate(ASKED):
        for number, (states, positions) in enumerate(
            reference(slow, tokens[clip], places[clip].tolist(), STAMPS[clip], False, row)
        ):
            out = slow.language_model(
                inputs_embeds=states[None], position_ids=positions[None], attention_mask=torch.ones(1, len(states)),
                output_attentions=True, output_hidden_states=True, use_cache=False,
            )  # fmt: skip
            visual = (len(before[clip]) + clips.at[clip]).tolist()
            weights = out.attentions[0][0].mean(0)[-1]
            stay = sorted(visual, key=lambda entry: -float(weights[entry]))[:2]
            kept = [entry for entry in range(len(states)) if entry not in visual or entry in stay]
            own, at = out.hidden_states[1][:, kept], positions[kept][None]
            turns = slow.language_model.rotary_emb(own, position_ids=at)
            mask = torch.full((1, 1, len(kept), len(kept)), torch.finfo(own.dtype).min).triu(1)
            for block_ in slow.language_model.layers[1:]:
                own = block_(own, attention_mask=mask, position_ids=at, position_embeddings=turns)
            expected = slow.logits(slow.language_model.norm(own))[0, -1]
            torch.testing.assert_close(logits[clip][number], expected, **CLOSE)


@torch.inference_mode()
def test_saliency_of_a_cell_is_the_mean_of_its_patches(backbone, features):
    """Attention that transformers' own tower computes in its first block."""
    pixels = torch.randn(2, 3, SIDE, SIDE)
    shape = backbone.shape
    kind = "cls" if shape.cls else "received"
    (found,) = backbone.encode_at_once(pixels, "video", [score_output(kind, 1, shape)])
    tower = backbone.tower("video")
    tower.config._attn_implementation = "eager"
    caught = []
    block_ = blocks_of(tower)[0]
    attention = getattr(block_, "self_attn", None) or block_.attention
    hook = attention.register_forward_hook(lambda _, __, out: caught.append(out[1]))
    tower(pixels)
    hook.remove()
    weights = caught[0].mean(1)  # [T, queries, keys]
    expected = weights[:, 0] if kind == "cls" else weights.mean(1)
    torch.testing.assert_close(found[..., 0], expected, **CLOSE)
    cells = backbone.cells(found)[..., 0]
    assert cells.shape == (2, shape.height, shape.width)
    own = expected[:, backbone.extra :].mean(1)
    torch.testing.assert_close(cells.mean((1, 2)), own, **CLOSE)


def greedy(backbone, states, positions):
    answer = []
    for _ in range(STEPS):
        token = int(plain_logits(backbone, states, positions)[-1].argmax())
        if token in backbone.end_ids:
            break
        answer.append(token)
        read = 0 if token in backbone.media_ids.values() else token
        states = torch.cat([states, backbone.embed(torch.tensor([read]))])
        positions = torch.cat([positions, positions[-1:] + 1])
    return answer


@torch.inference_mode()
def test_cells_of_a_grid_pooling_stand_in_their_rows(backbone, features):
    """Two of three frames and one of the rows: frames 0 and 2 are in the middle of their windows."""
    shape = backbone.shape
    pooling = Adaptive((2, 1, shape.width))
    clips = VideoLM(backbone, pooling).arranged(features[:1], stamps=STAMPS[:1])
    tokens = pooling(backbone.project(backbone.grid(features[:1])))[0]
    own = {0: list(tokens[: shape.width]), 2: list(tokens[shape.width :])}
    newline = [backbone.newline_vector()] if shape.family == "llava_video" else []
    frames = {frame: [(vector, None) for vector in [*row, *newline]] for frame, row in own.items()}
    clip = written(shape.family, {frame: len(row) for frame, row in frames.items()}, STAMPS[0])
    states, _ = embedded(backbone, PROMPT.format(clip, "x"), frames)
    before, after = backbone.split_prompt(
        clips.asked(0, PROMPT.format(backbone.image_token, "x"), backbone.image_token)
    )
    ours = [backbone.embed(torch.tensor(before)), clips.row(0), backbone.embed(torch.tensor(after))]
    torch.testing.assert_close(torch.cat(ours), states)


@torch.inference_mode()
def test_a_still_image_has_its_tags_alone(backbone, features):
    """As processors write an image, whatever the layout; LLaVA-Video's rows have their newlines."""
    family, cells = backbone.shape.family, backbone.shape.height * backbone.shape.width
    tags = {"start_image_token": "<img>", "end_image_token": "</img>", "image_token": "<IMG_CONTEXT>"}
    own = SimpleNamespace(**tags, image_seq_length=cells)
    expected = {
        "internvl": InternVLProcessor.replace_image_token(own, {"num_patches": [1]}, 0),
        "smolvlm": processing_smolvlm.get_image_prompt_string(
            0, 0, cells, "<fake_token_around_image>", "<image>", "<global-img>"
        ),
        "llava_video": "<video>" * (cells + backbone.shape.height),
    }[family]
    for layout in (FRAMES, BLOCK):
        clips = VideoLM(backbone, NoPooling(), layout=layout).arranged(
            features[:1, :1], stamps=[Stamps([0.0], 1 / 3, True)]
        )
        if layout == FRAMES or family != "llava_video":
            place = {"internvl": "<IMG_CONTEXT>", "smolvlm": "<image>"}.get(family, "<video>")
            assert (place * clips.lengths[0]).join(clips.texts[0]) == expected


def test_merged_patches_stand_side_by_side_as_in_transformers(backbone):
    if backbone.shape.merge == 1:
        pytest.skip("this family merges none")
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        ours = backbone.project(backbone.encode(pixels)).flatten(0, 2)
        if backbone.shape.family == "internvl":
            theirs = backbone.model.model.get_image_features(pixels).pooler_output.flatten(0, 1)
        else:
            theirs = torch.cat(backbone.model.model.get_image_features(pixels[None]).pooler_output)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    values = torch.arange(backbone.shape.tower_rows, dtype=torch.float32)[None, :, None]
    merge, side = backbone.shape.merge, backbone.shape.height
    square = values[0, backbone.extra :, 0].view(side * merge, side * merge)
    expected = [[float(square[r * merge : (r + 1) * merge, c * merge : (c + 1) * merge].mean()) for c in range(side)]
                for r in range(side)]  # fmt: skip
    torch.testing.assert_close(backbone.cells(values)[0, ..., 0], torch.tensor(expected))


def test_numbers_in_words():
    """As num2words writes them, which SmolVLM2's processor calls."""
    words = {0: "zero", 8: "eight", 16: "sixteen", 20: "twenty", 32: "thirty-two", 64: "sixty-four", 100: "one hundred",
             105: "one hundred and five", 128: "one hundred and twenty-eight", 1000: "one thousand",
             1024: "one thousand and twenty-four", 1100: "one thousand, one hundred"}  # fmt: skip
    assert {number: number_words(number) for number in words} == words


def test_other_places_of_newlines_are_refused(tmp_path):
    folder = save_new(tmp_path / "m", "llava_video")
    config = json.loads((folder / "config.json").read_text())
    for place, family in (("one_token", "llava_onevision"), ("grid", "llava_video")):
        (folder / "config.json").write_text(json.dumps({**config, "mm_newline_position": place}))
        assert load_backbone(str(folder)).shape.family == family
    (folder / "config.json").write_text(json.dumps({**config, "mm_newline_position": "frame"}))
    with pytest.raises(ModelError, match="mm_newline_position=frame: choose one of grid, one_token"):
        load_backbone(str(folder))


def test_the_checkpoint_of_the_training_code_is_that_of_the_converted_folder(tmp_path, monkeypatch):
    """Names of weights as `model.mm_projector` and `model.image_newline`; a tokenizer without places for clips."""
    converted = save_new(tmp_path / "converted", "llava_video")
    source = load_backbone(str(converted))
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    monkeypatch.setitem(original.TOWERS, "tiny/siglip", {**tower, "image_size": SIDE, "patch_size": PATCH})
    names = {
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "model.language_model.": "model.",
    }
    weights = {}
    for name, weight in source.model.state_dict().items():
        for one, other in names.items():
            if name.startswith(one):
                name = other + name.removeprefix(one)
                break
        weights[name] = weight.clone()
    assert {"model.mm_projector.0.weight", "model.image_newline", "lm_head.weight"} <= weights.keys()
    folder = tmp_path / "original"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    plain = byte_tokenizer()
    plain.save_pretrained(folder)
    text = source.model.config.text_config.to_dict()
    content = {key: value for key, value in text.items() if key not in ("model_type", "architectures", "layer_types")}
    content |= {
        "architectures": ["LlavaQwenForCausalLM"], "model_type": "llava", "mm_vision_tower": "tiny/siglip",
        "mm_projector_type": "mlp2x_gelu", "mm_newline_position": "grid", "mm_hidden_size": 32,
        "mm_vision_select_layer": -2, "tokenizer_model_max_length": 32768, "image_token_index": len(plain),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(content))
    read = load_backbone(str(folder))
    assert (read.shape.family, read.image_token) == ("llava_video", "<video>")
    assert read.shape == source.shape
    assert read.tokenizer.encode("a<video>b") == source.tokenizer.encode("a<video>b")
    for name, weight in source.model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], weight)
    frames = torch.randint(0, 256, (2, 60, 100, 3), dtype=torch.uint8).numpy()
    assert torch.equal(read.preprocess(frames), source.preprocess(frames))
    for key, value, words in (
        ("mm_vision_tower", "other/tower", "mm_vision_tower=other/tower: choose one of google/siglip"),
        ("mm_projector_type", "linear", "mm_projector_type=linear: only mlp2x_gelu is read"),
    ):
        (folder / "config.json").write_text(json.dumps({**content, key: value}))
        with pytest.raises(ModelError, match=words):
            load_backbone(str(folder))
