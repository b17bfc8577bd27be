"""The name under which PEFT knows Sparse-GIN.

PEFT's `register_peft_method` accepts only names that its `PeftType` enumeration already holds, and offers no
way to add one. That extension, the only place where llmctl reaches into another package's class, is
isolated here.
"""

from __future__ import annotations

from typing import Any

from peft.utils.peft_types import PeftType

from llmctl.errors import UserError

METHOD = "sparse_gin"  # name in PEFT; its PeftType is the upper-case form
PREFIX = "gin_"  # every adapter attribute of a layer starts with this


def add_peft_type(name: str) -> PeftType:
    """Add a member to PEFT's enumeration of methods, or return the one that is there.

    Args:
        name: Name of the method, lower case.

    Returns:
        The member whose key and value are the name in upper case.

    Raises:
        UserError: This Python's enum cannot be extended so; nothing was changed that PEFT would see.
    """
    key = name.upper()
    if key in PeftType.__members__:
        return PeftType[key]
    member: Any = str.__new__(PeftType, key)
    member._name_ = member._value_ = key
    member.__objclass__ = PeftType
    member._sort_order_ = len(PeftType.__members__)
    PeftType._member_names_.append(key)
    PeftType._member_map_[key] = member
    PeftType._value2member_map_[key] = member
    type.__setattr__(PeftType, key, member)
    if PeftType(key) is not member or PeftType[key] is not member or key not in list(PeftType):
        raise UserError(
            f"PEFT's list of methods could not be extended by {key} on this Python: use Python 3.11"
        )
    return member
