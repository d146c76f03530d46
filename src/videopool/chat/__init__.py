"""Requests to language models behind OpenAI-compatible servers: a client, retries, many requests at once."""

from videopool.chat.asking import ask_all
from videopool.chat.endpoint import ChatEndpoint, Reply
from videopool.chat.errors import ChatError, NoText, RequestFailed
from videopool.chat.images import FORMATS, image_part

__all__ = ["FORMATS", "ChatEndpoint", "ChatError", "NoText", "Reply", "RequestFailed", "ask_all", "image_part"]
