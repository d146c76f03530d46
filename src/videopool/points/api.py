"""A point with a model behind an API: frames go out as images, words come back."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from videopool.chat import FORMATS, ChatEndpoint
from videopool.config.build import Number, Rules, check, plain, whole
from videopool.config.errors import ConfigError
from videopool.notes import note
from videopool.points.point import Point
from videopool.points.setting import refuse_reading
from videopool.pooling import NoPooling

ENDPOINT = ("base_url", "model", "key_env", "timeout", "concurrency", "retries", "backoff")
MILLION = 1e6
MOST_SIDE = 16_384  # pixels
RULES: Rules = {
    ("grid", "frames"): ("model.view",),
    FORMATS: ("model.format",),
    whole(1): ("model.rows", "model.cols"),
    whole(1, 100): ("model.quality",),
    whole(1, MOST_SIDE): ("model.max_side",),
}
UNKNOWN = ("lora_alpha", "visual_tokens", "separators", "prefill_gflops", "map_signature", "windows")


class ApiPoint(Point):
    """A point with a model behind an API: no pooling, no access to its inside. Raises UserError as Point."""

    def take_model(self) -> None:
        """Check the settings of the API and build its client."""
        model = self.model
        if type(self.pooling) is not NoPooling or self.stage != "projector":
            raise ConfigError("model=api: tokens of a model behind an API cannot be pooled; say pooling=none")
        refuse_reading(self.config, "a model behind an API")
        if self.config.lora.checkpoint is not None:
            raise ConfigError("model=api: a model behind an API takes no lora.checkpoint; say lora=none")
        check(self.config, {**RULES, Number(0, null=True): [f"model.prices.{kind}" for kind in model["prices"]]})
        rows, cols, frames = model["rows"], model["cols"], self.sampler.num
        if model["view"] == "grid" and rows * cols != frames:
            raise ConfigError(f"model.rows={rows} and model.cols={cols} need frames.num={rows * cols}, got {frames}")
        self.endpoint = ChatEndpoint("model", **{key: model[key] for key in ENDPOINT})
        note(self.endpoint.warning)
        self.adapter = None

    def fit(self) -> None:
        """No-op: nothing here depends on the machine."""

    def check(self) -> None:
        """Raises ChatError if the key is not set, ConfigError if the benchmark needs likelihoods."""
        self.endpoint.require_key()
        choices = any(sample.options for sample in self.benchmark.samples)
        if choices and self.benchmark.scoring != "generate":
            raise ConfigError("model=api: no likelihoods come from an API; say benchmark.scoring=generate")

    @property
    def view(self) -> dict[str, object]:
        """The settings that change the images."""
        names = ["view", "format", "max_side"]
        names += ["rows", "cols"] if self.model["view"] == "grid" else []
        names += ["quality"] if self.model["format"] == "jpeg" else []
        return {name: self.model[name] for name in names}

    @property
    def model_name(self) -> str:
        """The model's name in tables, with the view."""
        view = f"grid {self.model['rows']}x{self.model['cols']}" if self.model["view"] == "grid" else "frames"
        return f"{self.model['name'] or self.model['model']} {view}"

    def identity(self) -> dict[str, object]:
        """All that determines the numbers; prices change metrics, not answers."""
        return {**super().identity(), "prices": self.model["prices"]}

    @cached_property
    def answer_identity(self) -> dict[str, object]:
        """All that determines the answers, as far as it is known here."""
        return {
            "model": {"base_url": self.endpoint.base_url, "model": self.endpoint.model, **self.view},
            "frames": plain(self.config.frames),
            **self.question_identity(),
        }

    def describe_model(self) -> dict[str, object]:
        """None for columns that only the server knows."""
        return dict.fromkeys(UNKNOWN)

    def more_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Tokens of all answers, and their cost where both prices are known."""
        kinds = {"input": "prompt_tokens", "output": "completion_tokens"}
        used = {kind: sum(int(record.get(name) or 0) for record in records) for kind, name in kinds.items()}
        prices = self.model["prices"]
        known = all(prices[kind] is not None for kind in kinds)
        return {
            **{f"api_{name}": used[kind] for kind, name in kinds.items()},
            "api_cost": sum(prices[kind] * used[kind] for kind in kinds) / MILLION if known else None,
        }
