"""The types that every room shares: a message and a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}; content may be a list of parts with images
Conversation = Sequence[Message]
