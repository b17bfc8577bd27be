"""Brute force over the controls of a tiny model: what the searches are judged by."""

import torch

STATE = [5, 17, 3, 28]
FEW = tuple(range(0, 40, 3))  # 14 tokens, so that all controls of three tokens are 2,744


def emitted(model, controls, position="before"):
    """The token that greedy decoding emits after each control (N, K), one plain pass for all."""
    state = torch.tensor(STATE).expand(len(controls), -1)
    parts = [controls, state] if position == "before" else [state, controls]
    with torch.no_grad():
        return model(torch.cat(parts, 1)).logits[:, -1].argmax(-1)


def truth(model, tokens, max_k, position="before"):
    """For every token that some control of at most max_k tokens reaches, the least such k."""
    least = {int(emitted(model, torch.empty(1, 0, dtype=torch.long), position)): 0}
    for k in range(1, max_k + 1):
        controls = torch.cartesian_prod(*[torch.tensor(tokens)] * k).view(-1, k)
        for token in emitted(model, controls, position).unique().tolist():
            least.setdefault(token, k)
    return least
