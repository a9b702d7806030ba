"""Parameter groups: what decays, and how fast each layer learns."""

from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from ..network.class_token_vit import ClassTokenViT


def parameter_groups(
    model: ClassTokenViT,
    lr: float,
    weight_decay: float,
    layer_decay: float | None = None,
    gate_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Group the network's parameters for an optimiser, through timm.

    Tokens, position embedding, norms and biases never decay. Gates have a learning
    rate of their own, and never decay either (METHOD, section 3).

    Args:
        model: The network.
        lr: Learning rate of the heads, and without *layer_decay* of everything.
        weight_decay: Of the weights that decay.
        layer_decay: Factor, 0…1, by which each layer learns more slowly than the one
            above it, for pre-trained starts; None: all alike.
        gate_lr: Learning rate of the gates; None: *lr*.

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``; together they hold every
        trained parameter once.
    """
    gates = [gate.log_a for gate in model.gates]
    own = {id(gate) for gate in gates}
    if layer_decay is None:
        groups = param_groups_weight_decay(
            model, weight_decay, no_weight_decay_list=model.no_weight_decay()
        )
    else:
        groups = param_groups_layer_decay(
            model,
            weight_decay,
            no_weight_decay_list=model.no_weight_decay(),
            layer_decay=layer_decay,
        )
    kept = []
    for group in groups:
        params = [p for p in group['params'] if id(p) not in own]
        if params:
            kept.append(
                {
                    'params': params,
                    'lr': lr * group.get('lr_scale', 1.0),
                    'weight_decay': group['weight_decay'],
                }
            )
    if gates:
        rate = lr if gate_lr is None else gate_lr
        kept.append({'params': gates, 'lr': rate, 'weight_decay': 0.0})
    return kept
