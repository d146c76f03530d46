"""Which errors a user can mend: they are told in one line, without a traceback."""

from videopool.benchmarks import BenchmarkError
from videopool.chat import ChatError
from videopool.features import FeatureStoreError
from videopool.models import ModelError
from videopool.norms.errors import NormsError
from videopool.pooling import PoolingContractError, PoolingShapeError
from videopool.results import ResultsError
from videopool.training_data import TrainingDataError
from videopool.video import FrameSamplingError, UnreadableClipError


class ConfigError(ValueError):
    """A configuration that says something impossible."""


class Stopped(BaseException):
    """The user asked to stop; what was in hand is written. Passes through every `except Exception`."""


USER_ERRORS = (
    ConfigError,
    BenchmarkError,
    ChatError,
    FeatureStoreError,
    ModelError,
    NormsError,
    PoolingShapeError,
    PoolingContractError,
    ResultsError,
    TrainingDataError,
    FrameSamplingError,
    UnreadableClipError,
)
