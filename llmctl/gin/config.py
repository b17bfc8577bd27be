"""The configuration of a Sparse-GIN adapter: one dataclass, checked on construction.

The defaults are those of the published fine-tuning example (arXiv 2501.02393 and its code): all heads summed
and clamped at 1, sharpened with slope 10 around 0.1, entries at or below 0.6 dropped, one GIN per layer
between attention and MLP, PReLU, a trainable scale that starts at 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from peft import PeftConfig

from llmctl.errors import UserError
from llmctl.gin.graph import GraphRule, HeadMerge, SelfLoops
from llmctl.gin.layer import Activation, GinShape, Norm
from llmctl.gin.layouts import LAYOUTS, Placement
from llmctl.gin.peft_type import METHOD, add_peft_type


@dataclass
class SparseGinConfig(PeftConfig):
    """Configuration of a Sparse-GIN adapter, used like any PEFT configuration.

    Raises (on construction):
        UserError: A field is out of its range, or two fields contradict each other.
    """

    # Where
    layers: list[int] | None = None  # indices of the decoder layers that get a GIN; None is all of them
    placement: Placement = "before_mlp"  # after attention before the MLP, after the MLP, or beside it
    # The graph
    heads: HeadMerge = "sum"  # how the heads become one graph; "each" keeps one graph and one GIN per head
    mix_width: int = 8  # hidden width of the learned mix over heads; only read where heads is "mix"
    sharpness: float | None = 10.0  # slope of sigmoid(sharpness * (A - threshold)); None keeps A as it is
    threshold: float = 0.1  # attention weight at which the sharpened edge is 0.5
    epsilon: float = 0.6  # edges at or below this weight, after sharpening, are dropped
    top_fraction: float | None = None  # keep this share of each token's visible tokens; None keeps all
    self_loops: SelfLoops = "keep"  # "only" is the ablation without messages between tokens
    edge_weights: bool = True  # False: every edge that is kept weighs 1
    distance_scale: float | None = None  # edges weigh exp(-distance / distance_scale), in tokens
    detach_graph: bool = False  # True: no gradient to the queries and keys that the graph is made of
    # The GIN
    width: int = 128  # features of a node after the down-projection
    depth: int = 1  # rounds of message passing
    activation: Activation = "prelu"
    dropout: float = 0.0
    norm: Norm = "rms"  # of what is added to the residual stream
    # The scale of what is added: linear in depth between these two
    scale_first: float = 0.0
    scale_last: float = 0.0  # the paper's schedule ends at 0.5
    train_scale: bool = True  # one trained number per layer; False keeps its initial value
    # PEFT's own
    target_modules: list[str] | str | None = None  # filled in from `layers` and the model's family
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    # Sizes of the base model, filled in when the adapter is added to it, and compared when it is loaded
    base_sizes: dict[str, int] | None = None

    def __post_init__(self) -> None:
        """Set the PEFT type and refuse what cannot work.

        Raises:
            UserError: A field is out of its range, or two fields contradict each other.
        """
        super().__post_init__()
        self.peft_type = add_peft_type(METHOD)
        # A configuration from a file has them; those of a new one change with the model that it is used on.
        self._saved_sizes = self.base_sizes
        self._check_choices()
        self._check_numbers()
        self._check_layers()
        self._check_graph()

    def rule(self) -> GraphRule:
        """How attention becomes a graph, as the tensor code reads it."""
        return GraphRule(
            heads=self.heads,
            sharpness=self.sharpness,
            threshold=self.threshold,
            epsilon=self.epsilon,
            top_fraction=self.top_fraction,
            self_loops=self.self_loops,
            edge_weights=self.edge_weights,
            distance_scale=self.distance_scale,
        )

    def shape(self, hidden: int, heads: int) -> GinShape:
        """The sizes of one layer's GIN in a model with this hidden size and this many attention heads.

        Raises:
            UserError: A graph a head was asked for and the width does not divide by the heads.
        """
        graphs = heads if self.heads == "each" else 1
        if self.width % graphs:
            raise UserError(
                f"width is {self.width}, but heads='each' shares it among {heads} attention heads: "
                f"set width to a multiple of {heads}"
            )
        return GinShape(
            hidden=hidden,
            width=self.width,
            depth=self.depth,
            graphs=graphs,
            mixed_heads=heads if self.heads == "mix" else 0,
            mix_width=self.mix_width,
            activation=self.activation,
            dropout=self.dropout,
            norm=self.norm,
        )

    def initial_scale(self, layer_idx: int, num_layers: int) -> float:
        """The scale at which a layer starts: linear in depth from `scale_first` to `scale_last`."""
        share = layer_idx / (num_layers - 1) if num_layers > 1 else 0.0
        return self.scale_first + (self.scale_last - self.scale_first) * share

    def _check_choices(self) -> None:
        choices = {
            "placement": Placement,
            "heads": HeadMerge,
            "self_loops": SelfLoops,
            "activation": Activation,
            "norm": Norm,
        }
        for field, allowed in choices.items():
            value = getattr(self, field)
            if value not in get_args(allowed):
                raise UserError(f"{field} is {value!r}, but it must be one of {', '.join(get_args(allowed))}")

    def _check_numbers(self) -> None:
        for field in ("width", "depth", "mix_width"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise UserError(f"{field} is {value!r}, but it must be a whole number of at least 1")
        for field in ("dropout", "threshold", "epsilon", "scale_first", "scale_last"):
            _check_is_number(field, getattr(self, field))
        for field in ("sharpness", "distance_scale", "top_fraction"):
            if getattr(self, field) is not None:
                _check_is_number(field, getattr(self, field))
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}, but it must lie in [0, 1): 0 turns it off")
        for field in ("threshold", "scale_first", "scale_last"):
            if not math.isfinite(getattr(self, field)):
                raise UserError(f"{field} is {getattr(self, field)}, but a finite number is needed")
        if not self.train_scale and self.scale_first == self.scale_last == 0:
            raise UserError(
                "train_scale is False and both scales are 0, so the adapter could never have an effect: "
                "set scale_last, for instance to 0.5, or train_scale to True"
            )

    def _check_layers(self) -> None:
        if self.layers is None:
            return
        is_valid = isinstance(self.layers, list | tuple) and all(
            type(layer) is int and layer >= 0 for layer in self.layers
        )
        if not is_valid or not self.layers or len(set(self.layers)) < len(self.layers):
            raise UserError(
                f"layers is {self.layers!r}, but distinct indices counted from 0 are needed: "
                "leave it out for all layers"
            )
        if self.target_modules is None:
            self.layers = sorted(self.layers)
        # A saved configuration has both: the target modules that were made from the layers.
        elif self.target_modules not in [layout.pattern(self.layers) for layout in LAYOUTS.values()]:
            raise UserError(
                f"layers is {self.layers} and target_modules is {self.target_modules!r}, but both choose the "
                "layers: remove one of them"
            )

    def check_base(self, sizes: Mapping[str, int]) -> None:
        """Refuse a model whose sizes differ from those of the model that the adapter was trained on.

        Args:
            sizes: hidden_size, num_hidden_layers and num_attention_heads of the model.

        Raises:
            UserError: A size differs; the message has both values.
        """
        saved = self._saved_sizes or {}
        different = [name for name in sizes if name in saved and saved[name] != sizes[name]]
        if different:
            needed, found = (
                ", ".join(f"{name} {values[name]}" for name in different) for values in (saved, sizes)
            )
            raise UserError(
                f"the Sparse-GIN adapter was trained on a model with {needed}, but this model has {found}: "
                f"load it on its own base model{_name_of(self.base_model_name_or_path)}"
            )

    def _check_graph(self) -> None:
        for field in ("sharpness", "distance_scale"):
            value = getattr(self, field)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"{field} is {value}, but it must be above 0: None turns it off")
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            raise UserError(
                f"top_fraction is {self.top_fraction}, but it must lie in (0, 1]: None keeps all edges"
            )
        if not self.epsilon >= 0:
            raise UserError(f"epsilon is {self.epsilon}, but it must be 0 or more: 0 drops only empty edges")
        highest = 1.0
        if self.sharpness is not None:
            highest = 1 / (1 + math.exp(-self.sharpness * (1 - self.threshold)))
        if self.epsilon >= highest:
            raise UserError(
                f"epsilon is {self.epsilon}, but an edge weighs at most {highest:.3g} with sharpness "
                f"{self.sharpness} and threshold {self.threshold}, so none would be kept: lower epsilon"
            )


def _check_is_number(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{field} is {value!r}, but a number is needed")


def _name_of(model: str | None) -> str:
    return f", {model}" if model else ""
