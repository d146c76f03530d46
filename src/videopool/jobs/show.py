"""job=show: one clip as the model sees it, its norms, and what is left of it under poolings: a film strip and a GIF."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import build_pooling, number, plain
from videopool.config.catalogue import with_pooling
from videopool.config.errors import ConfigError
from videopool.figures import save_figure
from videopool.figures.film import film_pictures, film_strip, on_one_scale, save_gif
from videopool.film.clip import Shown, ShownClip
from videopool.film.point import ClipPoint
from videopool.measuring.stages import ENCODER, PROJECTOR
from videopool.models.stages import STAGES
from videopool.norms.token_norms import power
from videopool.results import ResultsError, fingerprint
from videopool.runtime.outcome import COMPLETE, Outcome

FOLDER = "show"  # in the study's folder
COLOUR, NORM = "colour", "norm"
NOTES = {
    COLOUR: "Cells: mean colour of the pixels that a token is made of, as the pooling weighs them.",
    NORM: "Cells: norm of the visual token, as the language model reads it.",
}
NOTE = "Hatched: in no token. Times below cells: mean over what they are made of."


def run(config: DictConfig) -> Outcome:
    """Draw a clip under the point's pooling and those of job.poolings.

    Raises:
        ConfigError: a setting is impossible, or there is no such clip, or it cannot be read.
        PoolingContractError: a pooling whose tokens cannot be traced to patches.
        ResultsError: the files cannot be written.
    """
    job = check(config)
    p, columns = power(job["p"]), number(config, "job.columns", 1, whole=True)
    configs = [config, *(with_pooling(config, name) for name in job["poolings"])]
    point = ClipPoint(config)
    poolings = {(one.pooling.label, one.stage): one for one in map(_shown, configs)}
    clip = ShownClip(point)
    pooled = [clip.pooled_row(one, p if job["cells"] == NORM else None) for one in poolings.values()]
    rows = [clip.norm_row(stage, p) for stage in job["stages"]]
    frames, times = clip.plain.pictures, clip.plain.times
    title = f"{clip.job.name}, {point.model_name}"
    what = {
        "model": point.model_identity,
        "adapter": point.adapter,
        "clip": str(clip.job.clip.absolute()),
        "bounds": [clip.job.start, clip.job.end],
        "frames": plain(config.frames),
        "longest": config.compat.longest,
        "poolings": [plain(one.pooling) for one in configs],
        "job": job,
    }
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{clip.job.name}-{point.model_name}-f{len(times)}").strip("-")
    path = Path(config.results_dir) / config.study / FOLDER / f"{name}-{fingerprint(what)[:8]}"
    rows += on_one_scale(pooled) if job["cells"] == NORM else pooled
    note = f"{NOTES[job['cells']]} {NOTE}"
    try:
        save_figure(film_strip(frames, times, rows, title, note, columns), path)
        save_gif(film_pictures(frames, times, rows, title), path)
    except OSError as error:
        raise ResultsError(f"{path.parent} cannot be written: {error.strerror or error}") from error
    return Outcome(COMPLETE, f"show {clip.job.name}", f"wrote {path}.png, .svg and .gif", str(path.parent))


def check(config: DictConfig) -> dict[str, Any]:
    """The node `job`, as far as it can be checked without the model. Raises ConfigError."""
    if "base_url" in config.model:
        raise ConfigError("model=api: nothing is known of the inside of a model behind an API; choose another model")
    job = plain(config.job)
    for key in ("poolings", "stages"):
        if not isinstance(job[key], list):
            raise ConfigError(f"job.{key}={job[key]!r}: give a list, as in job.{key}=[...]")
    for stage in job["stages"]:
        if stage not in (ENCODER, PROJECTOR):
            raise ConfigError(f"job.stages: {stage}: choose from {ENCODER}, {PROJECTOR}")
    if job["cells"] not in NOTES:
        raise ConfigError(f"job.cells={job['cells']!r}: choose one of {', '.join(NOTES)}")
    return job


def _shown(config: DictConfig) -> Shown:
    """A configuration's pooling. Raises ConfigError if it is none, or acts at no stage."""
    pooling, stage = build_pooling(config), str(config.pooling.get("stage", PROJECTOR))
    if stage not in STAGES:
        raise ConfigError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
    return Shown(pooling, stage)
