"""Chat: client for OpenAI-compatible servers."""

from videopool.chat.asking import ask_all
from videopool.chat.endpoint import FORMATS, ChatEndpoint, ChatError, NoText, Reply, RequestFailed, image_part

__all__ = ["FORMATS", "ChatEndpoint", "ChatError", "NoText", "Reply", "RequestFailed", "ask_all", "image_part"]
