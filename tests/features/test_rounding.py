"""What rounding does to a value, and what it refuses."""

import pytest
import torch

from made_features import key, made
from videopool.features import DiskStore, FeatureStoreError, MemoryStore, rounds
from videopool.features.store import DTYPES, finite, round_features

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half the spacing of values just above 1


@pytest.mark.parametrize("dtype", UNIT)
def test_the_error_is_within_the_bound_and_reaches_it(dtype):
    """Over float16's normal range, and with values half-way between two neighbours."""
    generator = torch.Generator().manual_seed(0)
    mantissa = 1 + torch.rand(200_000, generator=generator, dtype=torch.float64)
    exponent = torch.randint(-14, 15, (200_000,), generator=generator)
    values = (mantissa * 2.0**exponent).float()
    values[:1000] = 1 + UNIT[dtype]  # a tie
    values *= torch.where(torch.rand(200_000, generator=generator) < 0.5, -1.0, 1.0)
    rounded = round_features({0: values}, dtype)[0]
    error = ((rounded.double() - values.double()) / values.double()).abs().max()
    assert 0.99 * UNIT[dtype] / (1 + UNIT[dtype]) <= error <= UNIT[dtype]
    assert torch.equal(round_features({0: rounded}, dtype)[0], rounded)


def test_below_its_normal_range_float16_has_an_absolute_bound():
    values = torch.rand(100_000, dtype=torch.float64).float() * 2.0**-14
    rounded = round_features({0: values}, "float16")[0]
    assert (rounded.double() - values.double()).abs().max() <= 2.0**-25


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float32])
def test_float32_and_null_change_nothing(own):
    values = torch.randn(50_000).to(own)
    for dtype in ("float32", None):
        assert torch.equal(round_features({0: values}, dtype)[0].to(own), values)
    assert round_features({0: values}, None)[0].dtype == own


@pytest.mark.parametrize(("value", "fits"), [(65504.0, True), (65519.0, True), (65520.0, False), (-1e9, False)])
def test_values_beyond_float16_are_refused_in_one_line(tmp_path, value, fits):
    features = made(1, 2)
    features[2][3, 3] = value
    for store in (DiskStore(tmp_path / "kept", 1 << 20, "float16"), MemoryStore(1 << 20, "float16")):
        if fits:
            assert float(store.put(key(0), features)[2][3, 3]) == 65504
            continue
        with pytest.raises(FeatureStoreError, match=r"say features\.dtype=bfloat16") as caught:
            store.put(key(0), features)
        assert "\n" not in str(caught.value)
        store.finish()
        assert store.missing(key(0), [1, 2]) == [1, 2]
    MemoryStore(1 << 20, "bfloat16").put(key(0), features)


def test_a_tower_that_fails_is_passed_on_and_not_kept(tmp_path):
    """Infinity and NaN are the model's own: a point without a store would compute with them too."""
    for bad in (float("inf"), float("nan")):
        features = made(1, 2)
        features[2][3, 3] = bad
        store = DiskStore(tmp_path / "kept", 1 << 20)
        assert not finite(store.put(key(0), features)[2])
        assert store.finish() == []
        assert store.missing(key(0), [1, 2]) == [1, 2]


@pytest.mark.parametrize("own", DTYPES)
def test_what_is_rounded_is_part_of_the_points_identity(own):
    values = torch.randn(10_000).to(DTYPES[own])
    for kept in (*DTYPES, None):
        back = round_features({0: values}, kept)[0].to(DTYPES[own])
        if rounds(own, kept) is None:
            assert torch.equal(back, values)
        else:
            assert rounds(own, kept) == kept
    # With a precision of the trainer, the model's dtype says nothing about the features'.
    assert rounds(own, own, "64-true") == own
    assert rounds(own, None, "64-true") is None
