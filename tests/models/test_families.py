"""Each family computes what transformers computes for it, and refuses what it cannot do in one line."""

import json
import shutil

import pytest
import torch
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from both_ways import batch_logits
from random_models import FAMILIES, SIDE, lora_checkpoint, save
from videopool.models import ModelError, attach, load_adapter, load_backbone, set_alpha
from videopool.pooling import FrameCls, NoPooling, Strided
from videopool.reading.answers import greedy_answers, next_token_logits, prefill
from videopool.reading.module import VideoLM

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(str(folder))


def pixels_of(frames, seed=0):
    return torch.randn(frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def ids_of(backbone, text):
    return torch.tensor([backbone.tokenizer.encode(text)])


def expand(ids, marker, count):
    """Transformers' prompts repeat the marker for each visual token."""
    place = ids[0].tolist().index(marker)
    return torch.cat([ids[:, :place], torch.full((1, count), marker), ids[:, place + 1 :]], dim=1)


@torch.inference_mode()
def test_prompt_with_a_clip_equals_transformers(backbone):
    """The released way of reading a clip, or an image where the family knows no clips."""
    model, marker = backbone.model, backbone.media_ids["video"]
    kind = model.config.model_type
    ids = ids_of(backbone, f"USER: {backbone.image_token}\nis there any red star ? ASSISTANT:")
    if kind == "video_llava":
        lm, pixels = VideoLM(backbone, FrameCls(NoPooling())), pixels_of(3)
        given = {"pixel_values_videos": pixels[None]}
    elif kind == "llava_onevision":
        lm, pixels = VideoLM(backbone, Strided(2, "bilinear")), pixels_of(3)
        given = {"pixel_values_videos": pixels[None]}
    elif kind == "llava_next":
        lm, pixels, given = VideoLM(backbone, NoPooling()), pixels_of(1), {}
    else:
        lm, pixels = VideoLM(backbone, NoPooling()), pixels_of(1)
        given = {"pixel_values": pixels}
    tokens = lm.visual_tokens(backbone.features(pixels)[None])
    assert tokens.shape[1] == lm.pooling.num_tokens(len(pixels), 6, 6) + backbone.shape.separators
    ours = batch_logits(lm, ids, [[tokens[0]]])
    if kind == "llava_next":  # its own forward cuts tiles; its parts are compared instead
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        merged = model.get_input_embeddings()(expand(ids, marker, 36))
        merged[0, expand(ids, marker, 36)[0] == marker] = model.model.multi_modal_projector(states)[0]
        theirs = model(inputs_embeds=merged).logits
    else:
        theirs = model(input_ids=expand(ids, marker, tokens.shape[1]), **given).logits
    torch.testing.assert_close(ours, theirs, **CLOSE)


@torch.inference_mode()
def test_shared_prefix_and_packed_questions(backbone):
    """Next-token scores and answers of three questions at once equal those of each alone."""
    lm = VideoLM(backbone, NoPooling())
    tokens = lm.visual_tokens(backbone.features(torch.cat([pixels_of(2), pixels_of(2, 1)])).unflatten(0, (2, 2)))
    texts = ["is there any red star ?", "what is the background ?", "how many objects are there ?"]
    split = [backbone.split_prompt(f"USER: {backbone.image_token}\n{t} ASSISTANT:") for t in texts]
    before, after = split[0][0], [ids for _, ids in split]
    packed = next_token_logits(backbone, prefill(backbone, before, tokens), [after, after[:1]])
    answers = greedy_answers(backbone, prefill(backbone, before, tokens), [after, after[:1]], 5)
    for clip, rows in enumerate([after, after[:1]]):
        for number, ids in enumerate(rows):
            prompt = torch.tensor([[*before, backbone.media_ids["video"], *ids]])
            plain = batch_logits(lm, prompt, [[tokens[clip]]])[0, -1]
            torch.testing.assert_close(packed[clip][number], plain, **CLOSE)
            alone = greedy_answers(backbone, prefill(backbone, before, tokens[clip : clip + 1]), [[ids]], 5)
            assert answers[clip][number] == alone[0][0]


def test_frames_are_one_view_each(backbone):
    """No tiles, and what the family's own size, mean and deviation make of a frame."""
    frames = torch.randint(0, 256, (2, 60, 100, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = backbone.preprocess(frames.numpy())
    assert pixels.shape == (2, 3, SIDE, SIDE)
    assert pixels.min() >= -1.001
    assert pixels.max() <= 1.001


@torch.inference_mode()
def test_video_llava_reads_images_and_videos_in_one_prompt(tmp_path):
    backbone = load_backbone(str(save(tmp_path, "video_llava")))
    model = backbone.model
    text = "USER: <image>\nis there any red star ? <video>\nwhat is the background ? ASSISTANT:"
    ids = ids_of(backbone, text)
    image, video = pixels_of(1, 5), pixels_of(3, 6)
    lm = VideoLM(backbone, FrameCls(NoPooling()))
    unpooled = backbone.project(backbone.grid(backbone.features(image, "image"))).flatten(0, 2)
    media = [unpooled, lm.visual_tokens(backbone.features(video)[None])[0]]
    assert [len(m) for m in media] == [36, 3 * 37]
    ours = batch_logits(lm, ids, [media])
    long = expand(expand(ids, backbone.media_ids["image"], 36), backbone.media_ids["video"], 111)
    theirs = model(input_ids=long, pixel_values=image, pixel_values_videos=video[None]).logits
    torch.testing.assert_close(ours, theirs, **CLOSE)
    # the two towers are two
    assert not torch.allclose(backbone.features(video, "image"), backbone.features(video, "video"), atol=1e-2)


def test_strided_bilinear_is_onevisions_own(tmp_path):
    backbone = load_backbone(str(save(tmp_path, "llava_onevision")))
    grid = torch.randn(1, 2, 6, 6, 64)
    theirs = LlavaOnevisionModel.apply_pooling(backbone.model.model, grid[0].flatten(1, 2))
    torch.testing.assert_close(Strided(2, "bilinear")(grid)[0], theirs.flatten(0, 1), **CLOSE)


def test_several_feature_layers_stand_side_by_side(tmp_path):
    backbone = load_backbone(str(save(tmp_path, "llava", layers=[-2, -1])))
    pixels = pixels_of(1)
    assert backbone.shape.vision_dim == 64
    with torch.inference_mode():
        theirs = backbone.model.model.get_image_features(pixels).pooler_output[0]
    ours = backbone.project(backbone.grid(backbone.features(pixels)))
    torch.testing.assert_close(ours.flatten(1, 2)[0], theirs, **CLOSE)


def test_weights_spread_over_devices_stay_where_they_are(folder, backbone):
    """accelerate's hooks carry tensors from part to part; whoever moves the module does not gather it."""
    spread = load_backbone(str(folder), device_map="auto", max_memory={"cpu": "4GiB"})
    lm = VideoLM(spread, NoPooling())
    before = {name: value.device for name, value in spread.model.named_parameters()}
    lm.to("meta")
    assert {name: value.device for name, value in spread.model.named_parameters()} == before
    pixels = pixels_of(2)
    torch.testing.assert_close(spread.features(pixels), backbone.features(pixels))


def test_rope_factor_stretches_positions(folder, backbone):
    stretched = load_backbone(str(folder), rope_factor=2)
    assert stretched.shape.context == 2 * backbone.shape.context
    table = stretched.model.model.language_model.rotary_emb.inv_freq
    torch.testing.assert_close(table * 2, backbone.model.model.language_model.rotary_emb.inv_freq)
    with pytest.raises(ModelError, match="rope_factor"):
        load_backbone(str(folder), rope_factor=0.5)


def copy(folder, to, without=(), **changes):
    shutil.copytree(folder, to)
    for name in without:
        (to / name).unlink()
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return str(to)


def test_bad_folders_are_told_in_one_line(folder, tmp_path):
    tokens = [p.name for p in folder.iterdir() if "token" in p.name]
    cases = {
        copy(folder, tmp_path / "a", tokens): "has no tokenizer",
        copy(folder, tmp_path / "b", ["preprocessor_config.json"]): r"no image processor \(preprocessor_config.json",
        copy(folder, tmp_path / "c", image_token_index=5000, video_token_index=5000): "no such token",
        copy(folder, tmp_path / "d", image_token_index=5, video_token_index=7): None,
    }
    for path, words in cases.items():
        if words is None:
            continue
        with pytest.raises(ModelError, match=words) as caught:
            load_backbone(path)
        assert "\n" not in str(caught.value)
    wrong = json.loads((folder / "preprocessor_config.json").read_text())
    size = {"height": 64, "width": 64}
    (tmp_path / "d" / "preprocessor_config.json").write_text(json.dumps({**wrong, "crop_size": size, "size": size}))
    with pytest.raises(ModelError, match="makes views of 64 x 64 pixels"):
        load_backbone(str(tmp_path / "d"))


def test_unknown_models_fail_at_once_without_a_network(tmp_path, monkeypatch):
    """A hub that does not answer is asked once, and the line says what to do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        load_backbone("nobody/no-such-model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        load_backbone("nobody/no-such-model")


def test_impossible_settings_are_told(folder):
    for changes, words in (
        ({"dtype": "int4"}, "choose one of float32"),
        ({"attention": "flash_attention_2"}, "sdpa uses flash"),
        ({"device": "cuda:7"}, "attention on cuda:7"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            load_backbone(str(folder), **changes)
        assert "\n" not in str(caught.value)


@torch.inference_mode()
def test_lora_equals_the_formula_in_every_family(folder, tmp_path):
    """W + alpha / r * B A, whatever the names' prefix; grouped heads have values of another height."""
    plain, lora = load_backbone(str(folder)), load_backbone(str(folder))
    path, tensors = lora_checkpoint(plain, tmp_path / "c")
    attach(lora, load_adapter(path), 8.0)
    prefix = "base_model.model.language_model.base_model.model.model."
    for number, layer in enumerate(plain.model.model.language_model.layers):
        for name in ("q_proj", "v_proj"):
            at = f"{prefix}layers.{number}.self_attn.{name}"
            change = tensors[f"{at}.lora_B.weight"] @ tensors[f"{at}.lora_A.weight"]
            getattr(layer.self_attn, name).weight += 8.0 / 4 * change
    for name, value in plain.model.model.multi_modal_projector.state_dict().items():
        value.copy_(tensors[f"whatever.multi_modal_projector.{name}"])
    ids = ids_of(plain, f"USER: {plain.image_token}\nis there any red star ? ASSISTANT:")
    features = plain.features(pixels_of(2))[None]
    unpooled = VideoLM(plain, NoPooling())
    expected = batch_logits(unpooled, ids, [list(unpooled.visual_tokens(features))])
    lm = VideoLM(lora, NoPooling())
    torch.testing.assert_close(batch_logits(lm, ids, [list(lm.visual_tokens(features))]), expected, **CLOSE)
    # no adapter in the tower
    assert not [name for name, _ in lora.model.named_parameters() if "lora" in name and "tower" in name]


@pytest.mark.parametrize("prefix", ["", "model.", "model.language_model.", "_forward_module.language_model.model."])
def test_any_prefix_will_do(tmp_path, prefix):
    backbone = load_backbone(str(save(tmp_path / "m", "llava")))
    path, _ = lora_checkpoint(backbone, tmp_path / "c", rank=2, prefix=prefix)
    checkpoint = load_adapter(path)
    attach(backbone, checkpoint, 2)
    assert set(checkpoint.ranks.values()) == {2}
    assert len(checkpoint.ranks) == 6


def test_bad_checkpoints_are_told_in_one_line(tmp_path):
    folder = str(save(tmp_path / "m", "llava"))
    base = load_backbone(folder)
    cases = {
        "layer": ({"without": ["layers.1.self_attn.q_proj.lora_A"]}, "incomplete: missing keys"),
        "whole layer": ({"without": ["layers.2."]}, "incomplete: missing keys"),
        "projector": ({"without": ["linear_2.bias"]}, "incomplete: missing keys: multi_modal_projector.linear_2.bias"),
        "stranger": ({"more": {"audio_tower.weight": torch.zeros(2)}}, "unexpected keys: audio_tower.weight"),
        "width": (
            {"more": {"x.multi_modal_projector.linear_1.weight": torch.zeros(8, 8)}, "without": ["linear_1.weight"]},
            r"size \[8, 8\], but m has \[64, 32\] there; the checkpoint belongs to another base",
        ),
        "twice": ({"more": {"multi_modal_projector.linear_1.weight": torch.zeros(64, 32)}}, "are the same weight"),
    }
    for name, (changes, words) in cases.items():
        path, _ = lora_checkpoint(base, tmp_path / name, **changes)
        with pytest.raises(ModelError, match=words) as caught:
            attach(load_backbone(folder), load_adapter(path), 4)
        assert "\n" not in str(caught.value)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "config.json").write_text("{}")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"missing: model-1\.safetensors"):
        load_adapter(str(tmp_path / "shards"))
    (tmp_path / "shards" / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_adapter(str(tmp_path / "shards"))
    (tmp_path / "shards" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(str(tmp_path / "shards"))


def test_alpha_needs_lora_and_a_number(tmp_path):
    backbone = load_backbone(str(save(tmp_path / "m", "llava")))
    with pytest.raises(ModelError, match="has no LoRA"):
        set_alpha(backbone, 4)
    path, _ = lora_checkpoint(backbone, tmp_path / "c")
    attach(backbone, load_adapter(path), 4)
    for bad in (-1, "x", True, float("nan")):
        with pytest.raises(ModelError, match=r"lora\.alpha"):
            set_alpha(backbone, bad)
