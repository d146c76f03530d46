"""A model's view of one clip as pictures: its frames, norms of their patches, and the tokens of poolings."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from videopool.benchmarks import Benchmark, Sample
from videopool.benchmarks.errors import listed
from videopool.config.errors import ConfigError
from videopool.errors import UserError
from videopool.features import ClipJob, in_order, load_clip, read_again, request_clip
from videopool.figures.film import FilmRow, seconds
from videopool.figures.words import pooling_words, stage_words
from videopool.inference.backbones import point_backbone
from videopool.inference.feature_key import feature_source, trainer_device
from videopool.inference.read_plan import group_by_clip, image_processor_of, read_plan
from videopool.inference.reader import ClipReader
from videopool.measuring.stages import ENCODER, PROJECTOR, NormStage
from videopool.models.backbone import VISION_CHUNK
from videopool.models.stages import TEXT, THUMBNAIL, check_needs
from videopool.models.tower_outputs import LayerStates, tower_outputs
from videopool.norms import token_norms
from videopool.points.early import check_machine
from videopool.points.point import Point
from videopool.pooling import GridPooling, NoPooling, Pooling
from videopool.pooling.tracing import PatchTrace
from videopool.video import from_pixels

NOISE = 0.2  # tolerance of a token's mean time, as a share of the time between frames
ROUNDING = 5e-3  # seconds


class ClipPoint(Point):
    """A point with one clip, which may be a file of its own: then no benchmark is read."""

    def fit(self) -> None:
        """As a point's, but nothing is read into the language model's context."""
        check_needs(self.pooling, self.shape, self.model_name, self.stage)
        check_machine(self.config, self.model)

    def take_benchmark(self) -> Benchmark:
        name = self.config.clip
        if self.from_file:
            path = Path(str(name))
            return Benchmark(path.name, "", [Sample(path.name, path, path.name, "")], "")
        try:
            return super().take_benchmark()
        except UserError as error:
            if name is None:
                raise
            raise ConfigError(f"clip={name}: no such file, and no benchmark to look in: {error}") from error

    @property
    def from_file(self) -> bool:
        """Whether the clip is named by its path."""
        return self.config.clip is not None and Path(str(self.config.clip)).exists()

    @property
    def clip(self) -> ClipJob:
        """The clip of this name, or the first. Raises ConfigError if the benchmark has no such clip."""
        name, clips = self.config.clip, group_by_clip(self.benchmark.samples)
        if name is None or self.from_file:
            return clips[0]
        for clip in clips:
            if str(name) in (clip.name, clip.clip.name, clip.clip.stem):
                return clip
        names = list(dict.fromkeys(clip.name for clip in clips))
        where = f"{self.benchmark.id} ({len(names)}: {listed(names)})"
        raise ConfigError(f"clip={name}: no such file, and no clip of {where}")


class ShownPooling(NamedTuple):
    """A pooling and its stage."""

    pooling: Pooling
    stage: str


class View(NamedTuple):
    """A clip as the tower sees it under one pooling."""

    reader: ClipReader  # backbone and pooling
    features: Tensor  # [1, T, C + H*W, Dv], on the backbone's device; a thumbnail's come after the frames'
    pixels: Tensor  # [T, 3, S, S] as the tower gets them; without a thumbnail
    pictures: np.ndarray  # [T, S, S, 3] in 0..1, cropped to the patches; without a thumbnail
    frame_times: Tensor  # [T] seconds; the mean for a tiled image
    beside: dict[str, Tensor]  # the tower's other outputs [1, T, rows, width], as `features`


class ShownClip:
    """One clip under several poolings. Raises ConfigError if there is no such clip, or it cannot be read."""

    def __init__(self, point: ClipPoint) -> None:
        self.point, self.job = point, point.clip
        self.backbone = point_backbone(point.model, point.model_identity, point.adapter)
        if not self.backbone.placed:
            self.backbone.to(trainer_device(point.config))
        self.plain = self.view(ShownPooling(NoPooling(), "projector"))
        self.times: list[float] = self.plain.frame_times.tolist()  # seconds of the frames
        # The prompt for poolings that need one: the clip's first question, or the request for a description.
        self.question = self.job.samples[0].question or point.prompt.describe

    @torch.no_grad()
    def view(self, shown: ShownPooling) -> View:
        """The clip as the tower sees it under a pooling."""
        point, backbone, pooling = self.point, self.backbone, shown.pooling
        check_needs(pooling, backbone.shape, point.model_name, shown.stage)
        processor = image_processor_of(point.config, backbone)
        plan = read_plan(point.sampler, str(point.config.job.reader), processor, pooling, together=backbone.together)
        outputs = tower_outputs(pooling, backbone.shape, point.model_name)
        source = feature_source(point.config, backbone, outputs=outputs)
        reader = ClipReader(backbone, pooling, shown.stage, point.store, plan, source)
        loaded = load_clip(request_clip(self.job, plan, point.store, source), plan)
        ((features, reason),) = reader.read([loaded])
        if features is None:
            raise ConfigError(f"clip: {reason}")
        frames = loaded.views[:-1] if THUMBNAIL in pooling.needs else loaded.views
        unique = in_order(frames)
        pixels = read_again(plan, loaded, unique, reader.seconds)[[unique.index(frame) for frame in frames]]
        cell = backbone.shape.patch * backbone.shape.merge  # its side in pixels
        height, width = (side // cell * cell for side in pixels.shape[2:])
        pictures = from_pixels(processor, pixels[:, :3])[:, :height, :width]  # the first of several
        beside = {name: values[None] for name, values in loaded.beside.items()}
        return View(reader, features[None].to(backbone.device), pixels, pictures, reader.frame_times(loaded), beside)

    @torch.no_grad()
    def norm_row(self, stage: NormStage, p: float) -> FilmRow:
        """Norms of the frames' patches after the tower, one of its layers, or the projector, to be laid over them."""
        backbone = self.backbone
        grid = backbone.grid(self.plain.features[0])
        if stage.layer is not None:
            size = backbone.shape.tower_rows, backbone.shape.tower_dim
            output = [LayerStates(stage.name, size, (stage.layer,))]
            chunks = self.plain.pixels.split(VISION_CHUNK)
            grid = backbone.grid(torch.cat([backbone.encode_at_once(one, "video", output)[0] for one in chunks]))
        norms = token_norms(backbone.project(grid) if stage.kind == PROJECTOR else grid, p)
        label = f"norms {'after' if stage.layer is None else 'in'} the {stage_words(stage.name)}"
        return FilmRow(label, list(norms.float().cpu().numpy()), unit=f"L{p:g} norm", over=True)

    def pooled_row(self, shown: ShownPooling, p: float | None = None) -> FilmRow:
        """The tokens of a pooling, in colour or, with a p, as norms. Raises PoolingContractError if untraceable."""
        view, pooling, before = self.view(shown), shown.pooling, shown.stage == ENCODER
        with torch.no_grad():
            question = self.backbone.text_vector(self.question)[None] if TEXT in pooling.needs else None
            grid, context = view.reader.pooling_input(view.features, question, view.frame_times, view.beside)
        trace = PatchTrace(pooling, grid, context)
        frames, height, width = grid.shape[1:4]
        if p is None:
            # mean colours of patches [T, H, W, 3]
            patches = torch.from_numpy(view.pictures.copy()).unflatten(2, (width, -1)).unflatten(1, (height, -1))
            values = trace.of_tokens(patches.mean(dim=(2, 4)))
        else:
            tokens = trace.tokens.to(self.backbone.dtype)
            with torch.no_grad():
                values = token_norms(self.backbone.project(tokens) if before else tokens, p)[:, None]
        label = f"{pooling_words(pooling.label)}{' before the projector' if before else ''}"
        label += f" for: {self.question}" if TEXT in pooling.needs else ""
        label += f"\n{len(trace.read)} tokens"
        if missing := int((~trace.read).sum()):
            label += f", {missing} from elsewhere"
        times = view.frame_times.cpu()
        if isinstance(pooling, GridPooling):
            out = pooling.out_shape(frames, height, width)
            cells = values.masked_fill(~trace.read[:, None], torch.nan).unflatten(0, out)
            read = trace.of_tokens(times.view(-1, 1, 1, 1).expand(frames, height, width, 1)).view(out[0], -1)
            times = read.nanmean(dim=1).cpu()
        else:
            cells = trace.of_patches(values)
        slack = NOISE * (max(self.times) - min(self.times)) / len(self.times) + ROUNDING
        same = len(times) == len(self.times) and np.allclose(times, self.times, atol=slack, rtol=0)
        captions = [] if same else [seconds(time, max(self.times)) for time in times.tolist()]
        pictures = cells if p is None else cells[..., 0]
        marks: list[np.ndarray] = []
        places = pooling.token_places(grid, context)
        if places is not None and cells[..., 0].isfinite().sum() > places.numel():
            marked = torch.zeros(frames, height, width, dtype=torch.bool).flatten()
            marked[places[places >= 0].cpu()] = True  # kept ones and anchors, beside which others are merged
            marks = list(marked.view(frames, height, width).numpy())
        unit = "" if p is None else f"L{p:g} norm"
        return FilmRow(label, list(pictures.float().cpu().numpy()), captions, unit, marks=marks)
