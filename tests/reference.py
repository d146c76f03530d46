"""Numbers recorded from the PLLaVA reference code on tiny random models, and the inputs they belong to.

tests/data/goldens holds a small part of them, with weights that are drawn again from a seed; a full set
lies beside the checkout where shared material is there, or where VIDEOPOOL_GOLDENS says. Both have the same layout.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent / "data" / "goldens"
SHARED = Path(os.environ.get("VIDEOPOOL_GOLDENS", Path(__file__).parents[2] / "shared" / "goldens"))
ROOTS = [HERE, *([SHARED] if all((SHARED / name).is_dir() for name in ("preprocess", "e2e")) else [])]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read(path: Path):
    return json.loads(path.read_text())


def draw(seed: int, shape) -> torch.Tensor:
    """float32 standard normal numbers."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def draw_pixels(case) -> torch.Tensor:
    """Pixels of a case; of several seeds the draws stand one behind the other."""
    seeds = case["pixel_seed"] if isinstance(case["pixel_seed"], list) else [case["pixel_seed"]]
    shape = [case["pixel_shape"][0] // len(seeds), *case["pixel_shape"][1:]]
    pixels = torch.cat([draw(seed, shape) for seed in seeds])
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == case["pixel_sha256"]
    return pixels


def draw_frames(seed: int, n: int, height: int, width: int, **_) -> np.ndarray:
    """uint8 frames [n, height, width, 3]: coloured waves with noise."""
    rs = np.random.RandomState(seed)
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    frames = []
    for t in range(n):
        f, g, p = rs.uniform(0.5, 4, size=3), rs.uniform(0.5, 4, size=3), rs.uniform(0, 6.28, size=3)
        waves = [127.5 + 90 * np.sin(6.28 * (f[c] * x + g[c] * y) + p[c] + 0.3 * t) for c in range(3)]
        noisy = np.stack(waves, -1) + rs.randint(-30, 31, size=(height, width, 1))
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return np.stack(frames)


def _scale(name: str, shape) -> tuple[float, float]:
    if name.endswith(".bias"):
        return 0.05, 0.0
    if "norm" in name or "layrnorm" in name:
        return 0.1, 1.0
    for part, scale in {"lm_head": 0.15, "embed_tokens": 0.3, "class_emb": 0.2, "position_emb": 0.2}.items():
        if part in name:
            return scale, 0.0
    return 1.2 / np.sqrt(np.prod(shape[1:])), 0.0


def base_weights(folder: Path) -> dict[str, np.ndarray]:
    """A base model's weights: saved ones, or drawn by the rule that made the recorded models."""
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    spec = read(folder / "weights.json")
    rs, made, digest = np.random.RandomState(spec["seed"]), {}, hashlib.sha256()
    for name in sorted(spec["shapes"]):
        scale, offset = _scale(name, spec["shapes"][name])
        noise = rs.standard_normal(spec["shapes"][name]).astype(np.float32)
        made[name] = noise * np.float32(scale) + np.float32(offset)
        digest.update(made[name].tobytes())
    assert digest.hexdigest() == spec["sha256"]
    return made


def model_folder(golden: Path, to: Path, tokenizer: Path) -> Path:
    """A recorded base model as a folder that can be loaded: weights under the reference's names, and the rest."""
    to.mkdir(parents=True, exist_ok=True)
    save_file(base_weights(golden), to / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(golden / "config.json", to / "config.json")
    for path in tokenizer.iterdir():
        shutil.copy(path, to / path.name)
    size = read(golden / "config.json")["vision_config"]["image_size"]
    write_image_processor(to, size)
    return to


def write_image_processor(folder: Path, size: int) -> None:
    """CLIP's preprocessing at a size."""
    content = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
