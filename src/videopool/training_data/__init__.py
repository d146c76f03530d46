"""Training data: instruction files to labelled examples."""

from videopool.training_data.conversation import (
    IGNORED,
    Conversation,
    ConversationError,
    ConversationLayout,
    EncodedConversation,
    Round,
    encode_conversation,
)
from videopool.training_data.source import Example, Mixture, Source, TrainingDataError, load_llava, load_videochat2

__all__ = [
    "IGNORED", "Conversation", "ConversationError", "ConversationLayout", "EncodedConversation", "Example", "Mixture",
    "Round", "Source", "TrainingDataError", "encode_conversation", "load_llava", "load_videochat2",
]  # fmt: skip
