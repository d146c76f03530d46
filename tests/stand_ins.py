"""Tiny stand-ins of what docs/reproduce.md downloads, laid out as on that page: weights, clips and annotations."""

import json
from pathlib import Path

import av
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import numbered_frames
from random_models import save

# Tasks of MVBench by the folder of their clips.
MVBENCH = {
    "star/Charades_v1_480": ("action_sequence", "action_prediction", "object_interaction"),
    "ssv2_video": ("action_antonym",),
    "Moments_in_Time_Raw/videos": ("fine_grained_action",),
    "FunQA_test/test": ("unexpected_action",),
    "clevrer/video_validation": (
        "object_existence", "moving_direction", "moving_count", "moving_attribute", "counterfactual_inference",
    ),
    "perception/videos": ("object_shuffle", "action_count", "state_change", "character_order"),
    "sta/sta_video": ("action_localization",),
    "scene_qa/video": ("scene_transition",),
    "nturgbd": ("fine_grained_pose",),
    "vlnqa": ("egocentric_navigation",),
    "tvqa/frames_fps3_hq": ("episodic_reasoning",),
}  # fmt: skip
SUFFIX = {"ssv2_video": ".webm", "nturgbd": ".avi", "tvqa/frames_fps3_hq": ""}
CODEC = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".webm": "libvpx"}
BOUNDED = ("action_sequence", "action_prediction", "object_interaction", "action_localization", "episodic_reasoning")
QUESTIONS = 2  # on each clip of the open questions
FRAMES, FPS = 12, 4


def clip(path: Path) -> Path:
    """A clip of three seconds, or a folder of frames where the name has no suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = numbered_frames(FRAMES)
    if path.suffix == "":
        path.mkdir(exist_ok=True)
        for number, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(path / f"{number:05d}.jpg")
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODEC[path.suffix], rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def written(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def mvbench(root: Path) -> None:
    """json/ of all 20 tasks and video/, with the folders of the release."""
    for folder, tasks in MVBENCH.items():
        names = [f"{name}{SUFFIX.get(folder, '.mp4')}" for name in ("EDXBD", "1H3WL")][: min(len(tasks), 2)]
        for name in names:
            clip(root / "video" / folder / name)
        for task in tasks:
            rows = [
                {
                    "video": name,
                    "question": f"What moves in {n}?",
                    "candidates": ["a dog", "a cat", "it"],
                    "answer": "it",
                }
                for n, name in enumerate(names)
            ]
            if task in BOUNDED:
                rows = [{**row, "start": 0.5, "end": 2.5, "question_id": "T1_1"} for row in rows]
            if task == "episodic_reasoning":
                rows = [{**row, "fps": 3} for row in rows]
            written(root / "json" / f"{task}.json", rows)


def vcgbench(root: Path) -> None:
    """Three files of questions, and clips of two containers."""
    names = ["v_p1QGn0IzfW0", "v_8KsVaJLOYzI"]
    for name, suffix in zip(names, (".mp4", ".mkv"), strict=True):
        clip(root / "Videos" / "Benchmarking" / f"{name}{suffix}")
    asked = {
        "generic": [
            {"Q": f"What happens in {n}?", "A": "A dance.", "video_name": name} for n, name in enumerate(names)
        ],
        "temporal": [{"Q": "What comes first?", "A": "A bow.", "video_name": names[0]}],
        "consistency": [{"Q1": "Who?", "Q2": "Which person?", "A": "She.", "video_name": name} for name in names],
    }
    for part, rows in asked.items():
        written(root / "Zero_Shot_QA" / "Benchmarking_QA" / f"{part}_qa.json", rows)


QA = {  # by folder: of the clips, their names, and the types of the questions
    "MSVD_Zero_Shot_QA": ("videos", ["-4wsuPCjDBc_5_15.avi", "-7KMZQEsJW4_205_208.avi"], None),
    "MSRVTT_Zero_Shot_QA": ("videos/all", ["video7010.mp4", "video7011.mp4"], None),
    "TGIF_QA": ("videos_mp4", ["tumblr_no00ddrCNs1rj0ifso1_500.mp4", "tumblr_m4387mGrlc1r6m5e8o1_250.mp4"], (0, 2)),
    "ActivityNet": ("all_test", ["v_1QIUV7WYKXg.mp4", "v_--tFD65KaK4.mkv"], (3, 5)),
}


def video_qa(root: Path, folder: str) -> None:
    """test_q.json, test_a.json and the clips of one data set of open questions."""
    below, names, types = QA[folder]
    asked, told = [], []
    for name in names:
        clip(root / folder / below / name)
        stem = Path(name).stem.removeprefix("v_") if folder == "ActivityNet" else Path(name).stem
        for number in range(QUESTIONS):
            identity = stem if folder == "TGIF_QA" else f"v_{stem}_{number}"  # TGIF's questions share the clip's
            asked.append({"video_name": stem, "question": f"what moves {number}?", "question_id": identity})
            told.append({"answer": "it", "question_id": identity, **({"type": types[number]} if types else {})})
    written(root / folder / "test_q.json", asked)
    written(root / folder / "test_a.json", told)


def pllava_checkpoint(base: Path, to: Path, rank: int = 4) -> Path:
    """The whole model with LoRA on queries and values in two shards, with the names of PLLaVA's released ones."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, value in load_file(base / "model.safetensors").items():
        if not name.startswith("language_model."):
            tensors[name] = value
            continue
        plain = name.removesuffix(".weight").replace("language_model.", "language_model.base_model.model.", 1)
        if not plain.endswith(("q_proj", "v_proj")):
            tensors[f"{plain}.weight"] = value
            continue
        tensors[f"{plain}.base_layer.weight"] = value
        for part, shape in (("lora_A", (rank, value.shape[1])), ("lora_B", (value.shape[0], rank))):
            tensors[f"{plain}.{part}.default.weight"] = torch.randn(shape, generator=generator) * 0.1
    to.mkdir(parents=True)
    keys = sorted(tensors)
    shards = {f"model-0000{n}-of-00002.safetensors": keys[n - 1 :: 2] for n in (1, 2)}
    for shard, own in shards.items():
        save_file({key: tensors[key].contiguous() for key in own}, to / shard)
    places = {key: shard for shard, own in shards.items() for key in own}
    (to / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (to / "config.json").write_text(json.dumps({"model_type": "pllava"}))
    return to


def weights(folder: Path) -> dict[str, Path]:
    """The three downloads, by their ids on the hub."""
    base = save(folder / "base", "llava_next")
    return {
        "llava-hf/llava-v1.6-vicuna-7b-hf": base,
        "ermu2001/pllava-7b": pllava_checkpoint(base, folder / "pllava"),
        "LanguageBind/Video-LLaVA-7B-hf": save(folder / "video_llava", "video_llava"),
    }


def data(root: Path) -> None:
    """All that the page has under DATAS."""
    mvbench(root / "MVBench")
    vcgbench(root / "VCGBench")
    for folder in QA:
        video_qa(root / "VideoQA", folder)
