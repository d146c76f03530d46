"""A study whose points are made up, written to disk as a run writes it, with real clips."""

from pathlib import Path

import av

from conftest import numbered_frames
from videopool.results import PointFolder, RecordLog, fingerprint, metrics_of

NASTY = "<script>hacked = 1</script> & \"quoted\" | 50 % of_a $ {b} ~^\\ <img src=x onerror='hacked = 2'>"
TASKS = ("colour", "shape_of")
CLIPS = 3


def write_clips(folder: Path) -> dict[str, Path]:
    """Clips of 12 frames that say their numbers, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {f"clip{number}.mp4": folder / f"clip{number}.mp4" for number in range(CLIPS)}
    for path in clips.values():
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=4, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for frame in numbered_frames(12):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return clips


def record(number: int, right: bool, logprob: float, frames: list[int], question: str = "what is it?") -> dict:
    """The record of a multiple-choice question whose right option, the first, got such a log-probability."""
    return {
        "id": f"s{number}",
        "clip": f"clip{number % CLIPS}.mp4",
        "task": TASKS[number % 2],
        "question": question,
        "options": ["this <b>one</b>", "that"],
        "answer": "this <b>one</b>",
        "status": "ok",
        "prediction": "this <b>one</b>" if right else "that",
        "score": float(right),
        "option_logprobs": [logprob, -0.5],
        "frame_indices": frames,
        "visual_tokens": 10,
    }


def write_point(study: Path, records: list[dict], clips: dict[str, Path], failure: str = "", **about) -> str:
    """A complete point, a failed one, or, without records, a partial one. Returns its name."""
    point = {"model": "mini", "pooling": "none", "stage": "projector", "frames": 4, "visual_tokens": 576}
    seed = {"seed": about.pop("seed")} if "seed" in about else {}
    point |= {"benchmark": "made/test", "split": "test", "prefill_gflops": 1.5, "lora_alpha": None, **about}
    point["map_signature"] = [point["pooling"]]
    groups = {"easy": [TASKS[0]], "hard": [TASKS[1]]}
    identity = {"point": point, "headline": [], "reader": "pyav", "groups": groups, **seed}
    name = "-".join(str(point[key]) for key in ("model", "pooling", "frames")).replace(" ", "-")
    name = "".join(letter for letter in name if letter.isalnum() or letter == "-")[:60]
    folder = PointFolder(study, name, fingerprint(identity))
    with folder:
        folder.write_manifest(
            {"point": point, "identity": identity, "config": {"note": NASTY}, "git": {"dirty": False}}
        )
        folder.write_clips(clips)
        log = RecordLog(folder.path / "records.jsonl")
        log.append(records)
        if failure:
            folder.write_failure(failure, {})
        elif records:
            metrics = metrics_of(records, {"hard": [TASKS[1]]}, lambda task: True)
            folder.write_metrics({**metrics, "seconds_per_sample": 0.01})
    return folder.path.name


def write_study(folder: Path) -> dict[str, str]:
    """Points: a (best), b (its baseline), c (worst), failed, partial. Returns their names.

    a and b differ in score on s3, then in log-probability on s2, s1 and s0, in this order.
    """
    clips = write_clips(folder / "data")
    study = folder / "results" / "made"
    a = [record(n, True, -0.1, [1, 5], NASTY if n == 3 else "what is it?") for n in range(6)]
    b = [record(n, n != 3, -0.1 - (0, 0.3, 2.0, 0.2, 0, 0)[n], [1, 5, 7, 11]) for n in range(6)]
    b[0]["option_logprobs"][0] = -0.2
    c = [record(n, n < 2, -3.0, [1]) for n in range(6)]
    return {
        "a": write_point(study, a, clips, pooling="average time", visual_tokens=144),
        "b": write_point(study, b, clips),
        "c": write_point(study, c, clips, pooling=f"odd {NASTY}", visual_tokens=9),
        "failed": write_point(study, [], clips, failure=f"no clip: {NASTY}", pooling="median", visual_tokens=36),
        "partial": write_point(study, [], clips, pooling="strided", visual_tokens=100),
    }
