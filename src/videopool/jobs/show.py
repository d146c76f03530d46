"""job=show: one clip as the model sees it, its norms, and what is left of it under poolings: a film strip and a GIF."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import number, plain
from videopool.config.choices import with_pooling
from videopool.config.errors import ConfigError
from videopool.figures import save_figure
from videopool.figures.film import film_pictures, film_strip, on_one_scale, save_gif
from videopool.film.clip import Shown, ShownClip
from videopool.film.point import ClipPoint
from videopool.measuring.stages import ENCODER, PROJECTOR
from videopool.norms.token_norms import power
from videopool.points.setting import pooling_of, readable, refuse_api
from videopool.results import fingerprint
from videopool.results.errors import writing
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
    shown = [Shown(*pooling_of(one)) for one in configs]
    poolings = {(one.pooling.label, one.stage): one for one in shown}
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
    name = readable(clip.job.name, point.model_name, f"f{len(times)}")
    path = Path(config.results_dir) / config.study / FOLDER / f"{name}-{fingerprint(what)[:8]}"
    rows += on_one_scale(pooled) if job["cells"] == NORM else pooled
    note = f"{NOTES[job['cells']]} {NOTE}"
    with writing(path.parent):
        save_figure(film_strip(frames, times, rows, title, note, columns), path)
        save_gif(film_pictures(frames, times, rows, title), path)
    return Outcome(COMPLETE, f"show {clip.job.name}", f"wrote {path}.png, .svg and .gif", str(path.parent))


def check(config: DictConfig) -> dict[str, Any]:
    """The node `job`, as far as it can be checked without the model. Raises ConfigError."""
    refuse_api(config)
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
