"""What a pooling of one's own is told when it breaks its promise; settings and tokens that are refused or left out."""

import re

import pytest
import torch

from videopool.models.errors import ModelError
from videopool.models.stages import check_needs
from videopool.pooling import (
    Average,
    Chain,
    GridPooling,
    Pooling,
    PoolingContractError,
    PoolingShapeError,
    RescaleNorm,
    announced,
    checked,
    map_signature,
)


class First(Pooling):
    """The first frame, as it is; or what is asked for."""

    def __init__(self, made=lambda tokens: tokens, count=lambda tokens: tokens):
        super().__init__()
        self.made, self.count = made, count

    def forward(self, grid, context=None):
        return self.made(grid[:, 0].flatten(1, 2))

    def num_tokens(self, frames, height, width):
        return self.count(height * width)


class Flat(GridPooling):
    def pool(self, grid, context=None):
        return grid[:, :1].flatten(1, 3)

    def out_shape(self, frames, height, width):
        return frames, height, width


def stumble(tokens):
    raise KeyError("nothing\nhere")


BROKEN = {
    "rank": (First(lambda tokens: tokens[0]), r"returned \(6, 3\).* num_tokens announces \(1, 6, 3\)"),
    "number": (First(count=lambda tokens: tokens + 1), r"returned \(1, 6, 3\).* announces \(1, 7, 3\)"),
    "batch": (First(lambda tokens: tokens.repeat(2, 1, 1)), r"returned \(2, 6, 3\)"),
    "dim": (First(lambda tokens: tokens[..., :1]), r"returned \(1, 6, 1\)"),
    "nothing": (First(lambda tokens: None), "returned NoneType"),
    "a list": (First(lambda tokens: [tokens]), "returned list"),
    "a rank inside": (Flat(), r"failed in forward.*IndexError"),
    "whole numbers": (First(lambda tokens: tokens.long()), r"torch\.int64.* must be floating-point numbers"),
    "device": (First(lambda tokens: tokens.to("meta")), r"on meta .* on cpu"),
    "an error": (First(stumble), r"failed in forward \(.*test_contract\.py, line \d+\): KeyError: 'nothing"),
    "no tokens": (First(count=lambda tokens: 0), r"num_tokens\(2, 2, 3\) must be a positive integer, got 0"),
    "half a token": (First(count=lambda tokens: tokens / 4), "must be a positive integer, got 1.5"),
    "no number": (First(count=lambda tokens: None), "must be a positive integer, got None"),
    "an error in num_tokens": (First(count=stumble), r"failed in num_tokens \(.*: KeyError"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_promise_is_one_line_that_names_the_class(broken):
    pooling, told = BROKEN[broken]
    name = re.escape(f"{type(pooling).__module__}.{type(pooling).__name__}")
    for call in (lambda: checked(pooling, torch.rand(1, 2, 2, 3, 3)), lambda: map_signature(pooling, 2, 2, 3)):
        with pytest.raises(PoolingContractError, match=f"^{name}.*{told}") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_errors_that_say_enough_pass():
    for error in (PoolingShapeError("too small"), MemoryError(), torch.OutOfMemoryError()):

        def raising(tokens, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            checked(First(raising), torch.rand(1, 2, 2, 3, 3))
        assert caught.value is error


def test_what_needs_no_complaint():
    grid = torch.rand(1, 2, 2, 3, 3, dtype=torch.bfloat16)
    found = checked(First(lambda tokens: tokens.double(), lambda tokens: torch.tensor(tokens)), grid)
    assert torch.equal(found, grid[:, 0].flatten(1, 2))
    assert found.dtype == torch.bfloat16
    assert type(announced(First(count=lambda tokens: torch.tensor(tokens)), 1, 2, 3)) is int


def test_parameters_may_be_of_one_precision():
    class Learned(First):
        dim = 5

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 5)

        def forward(self, grid, context=None):
            return self.layer(super().forward(grid))

    assert len(map_signature(Learned(), 2, 2, 3)) == 7


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Average(["time"]), r"pooling\.axis=\['time'\]: choose one of time, space, both"),
        (lambda: Chain(3), r"pooling\.steps must be a list of at least one pooling, got 3"),
        (lambda: Chain({}), r"pooling\.steps must be a list of at least one pooling"),
    ],
)
def test_settings_of_another_kind_are_told(make, told):
    with pytest.raises(PoolingShapeError, match=told):
        make()


def test_an_infinite_token_spoils_no_other():
    grid = torch.rand(2, 2, 2, 3, 4, dtype=torch.float64)
    grid[0, 1, 0, 2, 1] = torch.inf
    found = RescaleNorm()(grid)
    mean = torch.cat([grid[0, 0].flatten(0, 1), grid[0, 1].flatten(0, 1)[[0, 1, 3, 4, 5]]]).norm(dim=-1).mean()
    finite = found[0].isfinite().all(-1)
    assert finite.sum() == 11
    torch.testing.assert_close(found[0, finite].norm(dim=-1), mean.expand(11))


@pytest.mark.parametrize("needs", [["cls"], "cls", None])
def test_needs_are_a_set(needs):
    class Needy(First):
        pass

    Needy.needs = needs
    with pytest.raises(ModelError, match=r"Needy: needs must be a set of names"):
        check_needs(Needy(), None, "mini", "projector")
