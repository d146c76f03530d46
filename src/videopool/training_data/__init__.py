"""Instruction data for fine-tuning."""

from videopool.training_data.conversation import (
    IGNORED,
    Conversation,
    ConversationLayout,
    EncodedConversation,
    Round,
    encode_conversation,
)
from videopool.training_data.errors import ConversationError

__all__ = [
    "IGNORED",
    "Conversation",
    "ConversationError",
    "ConversationLayout",
    "EncodedConversation",
    "Round",
    "encode_conversation",
]
