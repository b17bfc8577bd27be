"""The base of all settings classes of training: immutable, and without unknown keys."""

from pydantic import BaseModel, ConfigDict


class FrozenSettings(BaseModel):
    """Settings that refuse unknown keys and cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
