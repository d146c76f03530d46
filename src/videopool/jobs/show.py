"""job=show: one clip as the model sees it, its norms, and its tokens under poolings: a film strip and a GIF."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from videopool.config.build import check, plain, whole
from videopool.config.choices import with_poolings
from videopool.config.errors import ConfigError
from videopool.figures import save_figure
from videopool.figures.film import film_pictures, film_strip, on_one_scale, save_gif
from videopool.film.clip import ClipPoint, ShownClip, ShownPooling
from videopool.measuring.stages import ENCODER, PROJECTOR, parse_stages
from videopool.models.stages import check_needs
from videopool.norms.token_norms import power
from videopool.notes import note
from videopool.points.setting import pooling_of, readable, refuse_api
from videopool.points.twins import PoolingMap, map_of
from videopool.results import fingerprint
from videopool.results.errors import writing
from videopool.runtime.outcome import COMPLETE, Outcome

FOLDER = "show"  # in the study's folder
COLOUR, NORM = "colour", "norm"
NOTES = {
    COLOUR: "Cells: mean colour of the token's pixels, with the pooling's weights.",
    NORM: "Cells: norm of the visual token that the language model reads.",
}
DOTTED = "Dots: the places of tokens; patches without are merged into them."
HATCHED, TIMES = "Hatched: in no token.", "Times below cells: mean of the cell's frames."


def run(config: DictConfig) -> Outcome:
    """Draw a clip under the point's pooling and those of job.poolings."""
    refuse_api(config)
    job = plain(config.job)
    for key in ("poolings", "stages"):
        if not isinstance(job[key], list):
            raise ConfigError(f"job.{key}={job[key]!r}: give a list, as in job.{key}=[...]")
    check(config, {tuple(NOTES): ["job.cells"], whole(1): ["job.columns"]})
    p, norms = power(job["p"]), job["cells"] == NORM
    configs = [config, *with_poolings(config, job["poolings"])]
    point = ClipPoint(config)
    stages = parse_stages(job["stages"], point.shape, point.model_name) if job["stages"] else []
    if wrong := [stage.name for stage in stages if stage.kind not in (ENCODER, PROJECTOR)]:
        raise ConfigError(f"job.stages: {wrong[0]}: choose from {ENCODER}, {ENCODER}.<layer>, {PROJECTOR}")
    shown = [ShownPooling(*pooling_of(each)) for each in configs]
    poolings = {(each.pooling.label, each.stage): each for each in shown}
    maps: dict[PoolingMap, str] = {}
    for each in poolings.values():
        check_needs(each.pooling, point.shape, point.model_name, each.stage)
        own, line = map_of(each.pooling, each.stage, point)
        if line:
            note(line)
        elif own in maps:
            note(f"{each.pooling.label}: the same map as {maps[own]}")
        maps.setdefault(own, each.pooling.label)
    clip = ShownClip(point)
    pooled = [clip.pooled_row(each, p if norms else None) for each in poolings.values()]
    rows = [clip.norm_row(stage, p) for stage in stages]
    rows += on_one_scale(pooled) if norms else pooled
    frames, times = clip.plain.pictures, clip.times
    title = f"{clip.job.name}, {point.model_name}"
    identity = {
        "model": point.model_identity,
        "adapter": point.adapter,
        "frame_size": point.model.get("frame_size"),
        "clip": str(clip.job.clip.absolute()),
        "bounds": [clip.job.start, clip.job.end],
        "frames": plain(config.frames),
        "longest": config.compat.longest,
        "poolings": [plain(each.pooling) for each in configs],
        "job": job,
    }
    name = readable(clip.job.name, point.model_name, f"f{len(times)}")
    path = Path(config.results_dir) / config.study / FOLDER / f"{name}-{fingerprint(identity)[:8]}"
    gaps = any(np.isnan(picture).any() for row in rows for picture in row.pictures)
    more = {HATCHED: gaps, DOTTED: any(row.marks for row in rows), TIMES: any(row.captions for row in rows)}
    legend = " ".join([NOTES[job["cells"]], *(line for line, told in more.items() if told)])
    strip = film_strip(frames, times, rows, title, legend, job["columns"])
    with writing(path.parent):
        formats = [Path(name).suffix for name in save_figure(strip, path)]
        save_gif(film_pictures(frames, times, rows, title), path)
    wrote = f"wrote {path}{', '.join(formats)} and .gif: {strip.get_label()}"
    return Outcome(COMPLETE, f"show {clip.job.name}", wrote, str(path.parent))
