"""What all recipes of reach share: how the model is loaded, and what a control may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from llmctl.errors import UserError
from llmctl.reach.problem import Position
from llmctl.runs import Recipe
from llmctl.runs.files import disk_errors_as_user_errors


class LoadSettings(Recipe):
    """How the model is loaded."""

    device: str = "auto"
    """"auto", "cpu", "cuda", ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights; auto is float32 on a CPU and bfloat16 on a GPU that supports it."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """Quantization of the weights through bitsandbytes."""
    trust_remote_code: bool = False
    """Run model code that comes with the weights."""
    device_map: str | None = None
    """Accelerate's placement over several GPUs, e.g. "auto"."""

    def options(self) -> dict[str, Any]:
        """As `llmctl.models.load` takes them."""
        options = self.model_dump(exclude={"device_map"})
        return options if self.device_map is None else {**options, "device_map": self.device_map}


class ControlRules(Recipe):
    """Where a control stands, and what it may hold."""

    position: Position = "before"
    """See `llmctl.reach.Problem`."""
    tokens: Literal["any", "printable", "words"] = "any"
    """Any token, printable text only, or dictionary words only."""
    dictionary: Path | None = None
    """A file with one word per line, for tokens "words"; null is the dictionary of the system."""
    forbidden: tuple[int | str, ...] = ()
    """Token ids, or texts whose every token no control may hold."""
    must_roundtrip: bool = False
    """Only controls whose prompt, decoded and encoded again, gives the same ids."""

    @model_validator(mode="after")
    def _dictionary_is_used(self) -> ControlRules:
        if self.dictionary is not None and self.tokens != "words":
            raise ValueError(
                f"dictionary is given and tokens is {self.tokens}, but only words are looked up: "
                "set tokens=words, or leave it out"
            )
        return self

    def words(self) -> frozenset[str] | None:
        """The dictionary's words in lower case, None where there is none of the user's own.

        Raises:
            UserError: It cannot be read.
        """
        if self.dictionary is None:
            return None
        if not self.dictionary.is_file():
            raise UserError(f"dictionary is {self.dictionary}, but there is no such file")
        with disk_errors_as_user_errors(f"read {self.dictionary}"):
            lines = self.dictionary.read_text(encoding="utf-8", errors="ignore").splitlines()
        return frozenset(word.strip().lower() for word in lines if word.strip())
