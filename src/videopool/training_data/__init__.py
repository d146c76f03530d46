"""Training data: instruction files to labelled examples."""

from videopool.training_data.conversation import (
    IGNORED,
    Conversation,
    ConversationLayout,
    EncodedConversation,
    Round,
    encode_conversation,
)
from videopool.training_data.errors import ConversationError, TrainingDataError
from videopool.training_data.llava import load_llava
from videopool.training_data.mixture import Mixture
from videopool.training_data.source import Example, Source
from videopool.training_data.videochat2 import load_videochat2

__all__ = [
    "IGNORED",
    "Conversation",
    "ConversationError",
    "ConversationLayout",
    "EncodedConversation",
    "Example",
    "Mixture",
    "Round",
    "Source",
    "TrainingDataError",
    "encode_conversation",
    "load_llava",
    "load_videochat2",
]
