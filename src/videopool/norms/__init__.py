"""Norms of visual tokens: tensors in, numbers out."""

from videopool.norms.attention import AttentionNorms
from videopool.norms.errors import NormsError
from videopool.norms.outliers import OutlierRules
from videopool.norms.saved import Measurement, SavedNorms, load_norms
from videopool.norms.stage import ClipNorms, StageNorms
from videopool.norms.token_norms import token_norms

__all__ = [
    "AttentionNorms", "ClipNorms", "Measurement", "NormsError", "OutlierRules", "SavedNorms", "StageNorms",
    "load_norms", "token_norms",
]  # fmt: skip
