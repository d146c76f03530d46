"""The model around the pooling is PLLaVA's: every recorded number is met, on every set of recorded models."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from both_ways import batch_logits
from reference import (
    CLIP_MEAN,
    CLIP_STD,
    ROOTS,
    draw,
    draw_frames,
    draw_pixels,
    model_folder,
    read,
    write_image_processor,
)
from videopool.models import ModelError, attach, load_adapter, load_backbone, set_alpha
from videopool.models.checkpoint import canonical
from videopool.models.loading import load_image_processor
from videopool.pooling import Adaptive
from videopool.reading.answers import greedy_answers, prefill
from videopool.reading.merging import merge
from videopool.reading.module import VideoLM
from videopool.video import ShrunkFirst

WITHIN = 1e-4  # absolute; the recorded float32 numbers differ from float64 by up to 1e-5


def labelled(root):
    return "in this repository" if root == ROOTS[0] else "shared"


MODELS = [(root, folder.name) for root in ROOTS for folder in sorted(root.glob("model_*"))]
CASES = [(*model, case["file"]) for model in MODELS for case in read(model[0] / model[1] / "cases.json")["cases"]]
VIDEOS = [c for c in CASES if "image_forward" not in c[2]]
IMAGES = [c for c in CASES if "image_forward" in c[2]]


def ids(cases):
    return ["-".join([labelled(c[0]), *map(str, c[1:])]) for c in cases]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A recorded base model, loaded once."""
    loaded = {}

    def get(root, name):
        if (root, name) not in loaded:
            folder = model_folder(root / name, tmp_path_factory.mktemp(name), root / "tokenizer")
            loaded[root, name] = load_backbone(str(folder), name)
        return loaded[root, name]

    return get


def find(root, name, file):
    return next(c for c in read(root / name / "cases.json")["cases"] if c["file"] == file)


def close(ours, golden):
    np.testing.assert_allclose(ours.numpy() if torch.is_tensor(ours) else ours, golden, rtol=0, atol=WITHIN)


def check_reading(lm, golden, media):
    """Layout, logits and loss of a recorded batch."""
    prompt, mask, labels = (torch.from_numpy(golden[k]) for k in ("input_ids", "attention_mask", "labels"))
    merged = merge(lm.backbone, prompt, media, mask, labels)
    assert np.array_equal(merged.mask, golden["merged_attention_mask"])
    assert np.array_equal(merged.positions, golden["position_ids"])
    with torch.inference_mode():
        logits = batch_logits(lm, prompt, media, mask)
        loss = lm.token_losses(prompt, media, mask, labels)[0].mean()
    places = golden.get("logits_positions", np.arange(logits.shape[1]))
    seen = golden["merged_attention_mask"][:, places] == 1
    close(logits[:, places][torch.from_numpy(seen)], golden["logits"][seen])
    close(loss, golden["loss"])


def until_end(backbone, rows):
    answers = []
    for row in rows.tolist():
        ends = [place for place, token in enumerate(row) if token in backbone.end_ids]
        answers.append(row[: ends[0]] if ends else row)
    return answers


@pytest.mark.parametrize(("root", "name", "file"), VIDEOS, ids=ids(VIDEOS))
def test_videos(load, root, name, file):
    case, golden = find(root, name, file), dict(np.load(root / name / file))
    backbone = load(root, name)
    lm = VideoLM(backbone, Adaptive(case["pooling_shape"], expand=True))
    features = backbone.features(draw_pixels(case))
    grid = backbone.grid(features)
    if "vision_features" in golden:
        close(grid.flatten(1, 2), golden["vision_features"])
    if "projected" in golden:
        frames = golden.get("projected_frames", np.arange(len(grid)))
        close(backbone.project(grid).flatten(1, 2)[frames], golden["projected"])
    tokens = lm.visual_tokens(features.unflatten(0, (-1, case["num_frames"])))
    if "pooled" in golden:
        close(tokens, golden["pooled"])
    each = case.get("videos_per_sample", 1)
    check_reading(lm, golden, [list(row) for row in tokens.split(each)])


@pytest.mark.parametrize(("root", "name", "file"), VIDEOS, ids=ids(VIDEOS))
def test_the_path_of_evaluation_gives_the_same_answers(load, root, name, file):
    """Prefix cache and question behind it, as evaluation reads a clip; not the batch in one go."""
    case, golden = find(root, name, file), dict(np.load(root / name / file))
    if "generated_ids" not in golden or case.get("videos_per_sample", 1) > 1:
        pytest.skip("no greedy answer recorded, or two clips in one prompt")
    backbone = load(root, name)
    features = backbone.features(draw_pixels(case)).unflatten(0, (-1, case["num_frames"]))
    tokens = VideoLM(backbone, Adaptive(case["pooling_shape"], expand=True)).visual_tokens(features)
    expected = until_end(backbone, golden["generated_ids"])
    for row, prompt in enumerate(golden["input_ids"]):
        kept = prompt[golden["attention_mask"][row] == 1].tolist()
        place = kept.index(backbone.media_ids["video"])
        prefix = prefill(backbone, kept[:place], tokens[row : row + 1])
        answer = greedy_answers(backbone, prefix, [[kept[place + 1 :]]], golden["generated_ids"].shape[1])
        assert answer == [[expected[row]]]


@pytest.mark.parametrize(("root", "name", "file"), IMAGES, ids=ids(IMAGES))
def test_images_are_clips_of_one_frame(load, root, name, file):
    """The trainer's images: equal to the reference alone, and not mixed up in a batch, as they are there."""
    case, golden = find(root, name, file), dict(np.load(root / name / file))
    backbone = load(root, name)
    lm = VideoLM(backbone, Adaptive(case["pooling_shape"], expand=True, pad_frames=case["num_frames"]))
    images = draw(case["image_seed"], case["image_shape"])
    features = backbone.features(images)
    if "vision_features_one_per_image" in golden:
        close(backbone.grid(features).flatten(1, 2), golden["vision_features_one_per_image"])
    tokens = lm.visual_tokens(features[:, None])
    for number in range(len(images)):
        alone = lm.visual_tokens(backbone.features(images[number : number + 1])[:, None])
        close(tokens[number : number + 1], alone)
    if case["batch"] == 1:
        close(tokens, golden["pooled"])
        check_reading(lm, golden, [[one] for one in tokens])
    else:
        assert not np.allclose(tokens, golden["pooled"], atol=1e-2)


@pytest.mark.parametrize(("root", "name"), MODELS, ids=ids(MODELS))
def test_projector_and_pooling_alone(load, root, name):
    """Short clips and images, padded the reference's way (compat=pllava)."""
    backbone, golden = load(root, name), np.load(root / name / "projector_direct.npz")
    cases = read(root / name / "cases.json")["projector_direct"]
    for case in cases:
        features = draw(case["feature_seed"], case["feature_shape"])
        pooling = Adaptive(case["pooling_shape"], expand=True, pad_frames=case["num_frames"])
        grid = features.unflatten(1, (backbone.shape.height, backbone.shape.width))
        with torch.inference_mode():
            tokens = pooling(backbone.project(grid)[None])
        close(tokens[0], golden[case["key"]].reshape(tokens[0].shape))
    assert cases


EDGES = [
    (root, name, case["case"])
    for root, name in MODELS
    if (root / name / "merge_edge_cases.json").is_file()
    for case in read(root / name / "merge_edge_cases.json")
]


@pytest.mark.parametrize(("root", "name", "title"), EDGES, ids=ids(EDGES))
def test_odd_prompts(load, root, name, title):
    """Where the reference lays a batch out, so do we; where it fails on a sane batch, we do not."""
    backbone = load(root, name)
    case = next(c for c in read(root / name / "merge_edge_cases.json") if c["case"] == title)
    prompt = torch.tensor(case["input_ids"])
    mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    clips = case["n_frames_given"] // case["num_frames"]
    media, given = [], 0
    for row in case["input_ids"]:
        wanted = row.count(backbone.media_ids["video"])
        media.append([torch.randn(int(np.prod(case["pooling_shape"])), backbone.shape.dim) for _ in range(wanted)])
        given += wanted
    if given != clips:
        surplus = [[*media[0], *([media[0][0]] if media[0] else [torch.zeros(1, backbone.shape.dim)])], *media[1:]]
        with pytest.raises(ModelError, match="places for visual tokens"):
            merge(backbone, prompt, surplus if clips > given else [[] for _ in media], mask)
        return
    row = case["zeroed_embedding_row"]
    weight = backbone.model.get_input_embeddings().weight
    before = None if row is None else weight[row].clone()
    try:
        if row is not None:
            weight[row] = 0
        merged = merge(backbone, prompt, media, mask)
    finally:
        if row is not None:
            weight[row] = before
    if case["result"] == "ok":
        assert merged.mask.tolist() == case["merged_attention_mask"]
        assert merged.positions.tolist() == case["position_ids"]
    else:  # zero embeddings, unequal counts, no mask: read all the same
        assert merged.mask.sum() == (
            (prompt.numel() if mask is None else int(mask.sum())) + sum(len(m) - 1 for r in media for m in r)
        )


LORA = [(root, path.name) for root in ROOTS for path in sorted((root / "lora").glob("checkpoint_*"))]


def lora_logits(root, name):
    """Recorded float32 logits of a checkpoint by alpha; {} for one without."""
    rank = name.removeprefix("checkpoint_")
    own = root / "lora" / f"logits_{rank}.npz"
    if own.is_file():
        golden, mark = np.load(own), "logits_fp32_alpha"
    elif rank == f"r{read(root / 'lora' / 'cases.json')['r']}":
        golden, mark = np.load(root / "lora" / "logits.npz"), "logits_alpha"
    else:
        return None, {}
    return golden, {float(k.removeprefix(mark)): golden[k] for k in golden if k.startswith(mark)}


@pytest.fixture
def lora_base(tmp_path):
    """A fresh base for a checkpoint, with a function that reads the recorded prompt."""

    def make(root, dtype="float32"):
        case = read(root / "lora" / "cases.json")
        golden = (root / "lora" / case["base_model"]).resolve().parent
        folder = tmp_path / "base"
        if not folder.is_dir():
            model_folder(golden, folder, root / "tokenizer")
        backbone = load_backbone(str(folder), dtype=dtype)
        lm = VideoLM(backbone, Adaptive(case["pooling_shape"], expand=True))

        def logits(prompt):
            with torch.inference_mode():
                features = backbone.features(draw_pixels(case))[None]
                return batch_logits(lm, torch.from_numpy(prompt), [list(lm.visual_tokens(features))]).numpy()

        return backbone, logits

    return make


@pytest.mark.parametrize(("root", "name"), LORA, ids=ids(LORA))
def test_checkpoints_and_their_alphas(lora_base, root, name):
    """One load, then alpha after alpha; the first one again at the end is the same to the bit."""
    golden, by_alpha = lora_logits(root, name)
    if not by_alpha:
        pytest.skip("no logits recorded for this one; it is compared in another test")
    backbone, logits = lora_base(root)
    prompt = golden["input_ids"]
    untouched = logits(prompt)
    if "logits_base_without_checkpoint" in golden:
        close(untouched, golden["logits_base_without_checkpoint"])
    checkpoint = load_adapter(str(root / "lora" / name))
    projector = backbone.model.model.multi_modal_projector.linear_1.weight.clone()
    language = backbone.model.model.language_model.layers[0].self_attn.q_proj.weight.clone()
    first = next(iter(by_alpha))
    attach(backbone, checkpoint, first)
    seen = {}
    for alpha, expected in by_alpha.items():
        set_alpha(backbone, alpha)
        seen[alpha] = logits(prompt)
        close(seen[alpha], expected)
        if f"generated_alpha{alpha:g}" in golden:
            features = backbone.features(draw_pixels(read(root / "lora" / "cases.json")))[None]
            shape = read(root / "lora" / "cases.json")["pooling_shape"]
            tokens = VideoLM(backbone, Adaptive(shape, expand=True)).visual_tokens(features)
            answers = golden[f"generated_alpha{alpha:g}"]
            (asked,) = prompt.tolist()
            place = asked.index(backbone.media_ids["video"])
            prefix = prefill(backbone, asked[:place], tokens)
            written = greedy_answers(backbone, prefix, [[asked[place + 1 :]]], answers.shape[1])
            assert written == [until_end(backbone, answers)]
    set_alpha(backbone, first)
    assert np.array_equal(logits(prompt), seen[first])
    # alpha 0: the base language model behind the trained projector, which is not the base's.
    set_alpha(backbone, 0)
    layer = backbone.model.model.language_model.layers[0].self_attn.q_proj
    assert torch.equal(layer.base_layer.weight, language)
    assert not torch.equal(backbone.model.model.multi_modal_projector.linear_1.weight, projector)
    assert not np.allclose(logits(prompt), untouched, atol=WITHIN)


SHARDED = [c for c in LORA if (c[0] / "lora" / c[1] / "model.safetensors.index.json").is_file()]


@pytest.mark.parametrize(("root", "name"), SHARDED, ids=ids(SHARDED))
def test_whole_wrapped_models_in_shards(lora_base, root, name):
    """A state dict of the whole wrapped model: each weight ends up where it belongs, to the bit of its dtype."""
    backbone, logits = lora_base(root)
    checkpoint = load_adapter(str(root / "lora" / name))
    attach(backbone, checkpoint, 4.0)
    saved = {}
    for shard in (root / "lora" / name).glob("*.safetensors"):
        saved |= load_file(shard)
    state = {canonical(key): value for key, value in backbone.model.state_dict().items()}
    assert len(saved) >= len(checkpoint._places)
    for key, value in saved.items():
        if canonical(key) in checkpoint._places:
            assert torch.equal(state[canonical(key)], value.float()), key
    small = next((n for r, n in LORA if r == root and name.startswith(n) and n != name), None)
    golden, by_alpha = lora_logits(root, small) if small else (None, {})
    if by_alpha:  # the same model but for the rounding of its weights to 8 bits
        assert np.abs(logits(golden["input_ids"]) - by_alpha[4.0]).max() < 0.3


@pytest.mark.parametrize("root", [r for r in ROOTS if (r / "lora" / "logits_r128.npz").is_file()])
def test_half_precision_stays_near(lora_base, root):
    """In bfloat16 we and the reference's own loader both err; no further apart than its own error."""
    backbone, logits = lora_base(root, "bfloat16")
    golden = np.load(root / "lora" / "logits_r128.npz")
    attach(backbone, load_adapter(str(root / "lora" / "checkpoint_r128")), 4.0)
    ours = logits(golden["input_ids"])
    own_error = np.abs(golden["logits_bf16_load_pllava_alpha4"] - golden["logits_fp32_alpha4"]).max()
    assert np.abs(ours - golden["logits_fp32_alpha4"]).max() < 2 * own_error


PREPROCESS = [(root, c["key"]) for root in ROOTS for c in read(root / "preprocess" / "cases.json")["cases"]]


@pytest.mark.parametrize(("root", "key"), PREPROCESS, ids=ids(PREPROCESS))
def test_preprocessing_is_within_one_grey_level(tmp_path, root, key):
    case = next(c for c in read(root / "preprocess" / "cases.json")["cases"] if c["key"] == key)
    golden = np.load(root / "preprocess" / "pixel_values.npz")
    (tmp_path / "config.json").write_text("{}")
    write_image_processor(tmp_path, case["clip_size"])
    processor = load_image_processor(str(tmp_path), image_size=case["clip_size"])
    videos = case.get("videos") or [{"height": case["height"], "width": case["width"], **case}]
    pixels = []
    for video in videos:
        frames = draw_frames(video["seed"], video["n_frames"], video["height"], video["width"])
        pixels.append(processor(images=list(frames), return_tensors="pt")["pixel_values"].numpy())
    ours = np.concatenate(pixels)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    grey = np.rint((ours * std + mean) * 255)
    compared = 0
    if key in golden:
        assert np.abs(grey[: len(golden[key])] - (golden[key] * std + mean) * 255).max() <= 1.01
        compared += 1
    if f"{key}_stride12" in golden:
        thin = (golden[f"{key}_stride12"] * std + mean) * 255
        assert np.abs(grey[: len(thin), :, ::12, ::12] - thin).max() <= 1.01
        compared += 1
    if f"{key}_uint8_frame0" in golden:
        assert np.abs(grey[0] - golden[f"{key}_uint8_frame0"]).max() <= 1
        compared += 1
    if f"{key}_uint8" in golden and len(videos) == 1:
        assert np.abs(grey[: len(golden[f"{key}_uint8"])] - golden[f"{key}_uint8"]).max() <= 1
        compared += 1
    if "mean_per_frame_channel" in case:
        np.testing.assert_allclose(ours.mean((2, 3)), case["mean_per_frame_channel"], atol=1 / 255 / 0.26)
        compared += 1
    assert compared or len(videos) > 1


@pytest.mark.parametrize(("root", "key"), PREPROCESS, ids=ids(PREPROCESS))
def test_frames_are_first_resized_as_the_reference_resizes_them(root, key):
    """compat=pllava, byte for byte before the image processor, and to a grey level behind it."""
    case = next(c for c in read(root / "preprocess" / "cases.json")["cases"] if c["key"] == key)
    if "intermediate_sha256" not in case:
        pytest.skip("several clips of different shape, of which ours are read one by one")
    side = case["clip_size"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    shrunk = ShrunkFirst(processor, 640)
    frames = draw_frames(case["seed"], case["n_frames"], case["height"], case["width"])
    first = np.stack([shrunk.shrunk(frame) for frame in frames])
    assert list(first.shape[1:3]) == case["intermediate_hw"]
    assert hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest() == case["intermediate_sha256"]
    golden = np.load(root / "preprocess" / "pixel_values.npz")
    if f"{key}_uint8_frame0" in golden:
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        grey = (shrunk(images=list(frames[:1]), return_tensors="pt")["pixel_values"][0].numpy() * std + mean) * 255
        assert np.abs(np.rint(grey) - golden[f"{key}_uint8_frame0"]).max() <= 1


E2E = [(root, number) for root in ROOTS for number in range(len(read(root / "e2e" / "cases.json")))]


@pytest.mark.parametrize(("root", "number"), E2E, ids=ids(E2E))
def test_from_frames_to_answer(load, root, number):
    """uint8 frames through preprocessing, tower, pooling and a hundred greedy tokens."""
    case = read(root / "e2e" / "cases.json")[number]
    backbone = load(root, "model_A")
    assert backbone.shape.image_size == case["clip_size"]
    features = backbone.features(backbone.preprocess(draw_frames(**case["frames"])))[None]
    tokens = VideoLM(backbone, Adaptive(case["pooling_shape"], expand=True)).visual_tokens(features)
    before, after = case["input_ids"], []
    place = before.index(backbone.media_ids["video"])
    before, after = before[:place], before[place + 1 :]
    answer = greedy_answers(backbone, prefill(backbone, before, tokens), [[after]], case["max_new_tokens"])[0][0]
    assert answer == until_end(backbone, np.array([case["generated"]]))[0]
