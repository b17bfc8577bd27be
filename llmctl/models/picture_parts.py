"""Messages whose content is parts, text and pictures; without torch, so that light engines read them too."""

from __future__ import annotations

import base64
import io
from typing import Any

from llmctl.errors import UserError
from llmctl.messages import Conversation


def split_pictures(conversation: Conversation, image_token: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """A conversation as a processor's chat template takes it, and its pictures in order.

    Args:
        conversation: Contents are text, or parts `{"type": "text", "text": ...}` and
            `{"type": "image", "image": a PIL image}`.
        image_token: The model's mark for a picture; in text it means nothing, and loses its brackets.

    Raises:
        UserError: A part is of another kind.
    """
    messages, pictures = [], []
    for message in conversation:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        plain = []
        for part in parts:
            if part.get("type") == "image" and hasattr(part.get("image"), "convert"):
                pictures.append(part["image"])
                plain.append({"type": "image"})
            elif part.get("type") == "text":
                text = str(part["text"]).replace(image_token, image_token.strip("<|>[]"))
                plain.append({"type": "text", "text": text})
            else:
                raise UserError(
                    f"a message holds the part {str(part)[:60]}, but a part is a text, or an image that is a "
                    "PIL image"
                )
        messages.append({**message, "content": plain})
    return messages, pictures


def with_data_addresses(conversation: Conversation) -> list[Any]:
    """A conversation as an OpenAI-compatible server takes it: each picture as a PNG inside its address."""
    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [_with_address(part) for part in message["content"]]}
        for message in conversation
    ]


def _with_address(part: Any) -> Any:
    if part.get("type") != "image" or not hasattr(part.get("image"), "save"):
        return part
    data = io.BytesIO()
    part["image"].save(data, format="PNG")
    address = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": address}}
