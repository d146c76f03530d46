"""Norms of visual tokens: tensors in, numbers out."""

from videopool.norms.attention import AttentionNorms
from videopool.norms.errors import NormsError
from videopool.norms.lineage import Births, Crossed, LeadingNeurons
from videopool.norms.outliers import OutlierRules
from videopool.norms.overlap import Overlap
from videopool.norms.saved import Measurement, SavedNorms, load_norms
from videopool.norms.stage import ClipNorms, StageNorms
from videopool.norms.token_norms import token_norms
from videopool.norms.vocabulary import VocabularyKinds, nearest

__all__ = [
    "AttentionNorms", "Births", "ClipNorms", "Crossed", "LeadingNeurons", "Measurement", "NormsError", "OutlierRules",
    "Overlap", "SavedNorms", "StageNorms", "VocabularyKinds", "load_norms", "nearest", "token_norms",
]  # fmt: skip
