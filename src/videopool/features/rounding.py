"""Features in the dtype of a store.

Rounding is to the nearest. Relative error in the dtype's normal range: at most 2^-11 for float16, 2^-8 for bfloat16.
Below 2^-14, float16 has an absolute error of at most 2^-25 instead.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from videopool.errors import UserError
from videopool.features.source import View

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LOSSLESS = {("float16", "float32"), ("bfloat16", "float32")}


class FeatureStoreError(UserError, ValueError):
    """A store with wrong settings, or features that it cannot hold."""


def check_dtype(dtype: str | None) -> str | None:
    """The dtype of a store. Raises FeatureStoreError if there is no such dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise FeatureStoreError(f"features.dtype={dtype}: choose one of {', '.join(DTYPES)}, or null to round nothing")
    return dtype


def rounds(own: str, kept: str | None, precision: object = None) -> str | None:
    """The dtype that features are rounded to, from those of model and store; None if the store changes no value."""
    # With a precision of the trainer, the features' dtype may differ from the model's.
    if kept is None or (precision is None and (own == kept or (own, kept) in LOSSLESS)):
        return None
    return kept


def round_features(features: Mapping[View, Tensor], dtype: str | None) -> dict[View, Tensor]:
    """Features in a store's dtype; unchanged for None. Raises FeatureStoreError if a finite value is out of range."""
    if dtype is None:
        return dict(features)
    rounded = {view: own.to(DTYPES[dtype]) for view, own in features.items()}
    for view, own in features.items():
        if own.dtype != DTYPES[dtype] and not finite(rounded[view]) and finite(own):
            wider = "bfloat16" if dtype == "float16" else "float32"
            raise FeatureStoreError(
                f"features.dtype={dtype} holds values up to {torch.finfo(DTYPES[dtype]).max:.4g}, the tower's reach "
                f"{float(own.abs().max()):.4g}: say features.dtype={wider}"
            )
    return rounded


def finite(features: Tensor) -> bool:
    """Whether there is neither infinity nor NaN. True for an empty tensor."""
    if not features.numel():
        return True
    low, high = torch.aminmax(features)  # NaN propagates to both; much faster than torch.isfinite
    return math.isfinite(low) and math.isfinite(high)
