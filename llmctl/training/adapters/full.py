"""Full fine-tuning: every weight is trained, and the result is a whole model."""

from llmctl.training.adapters.adapter import AdapterMethod, BaseWeights, NoOptions

FULL = AdapterMethod(
    name="full",
    title="full fine-tuning",
    description="Train every weight of the model; the result is a whole model.",
    settings=NoOptions,
    make_config=None,
    # The updates of a small learning rate vanish in bfloat16 weights.
    base=BaseWeights(dtype="float32"),
)
