"""Parameter groups: what decays, and how fast each layer learns."""

from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from ..errors import SettingError
from ..network.class_token_vit import ClassTokenViT

#: Parts that pre-trained weights do not have.
HEADS = ('head.', 'patch_head.', 'local_head.')


def parameter_groups(
    model: ClassTokenViT,
    lr: float,
    weight_decay: float,
    layer_decay: float | None = None,
    gate_lr: float | None = None,
    head_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Group the network's parameters for an optimizer, through timm.

    Tokens, position embedding, norms and biases never decay. Gates have a learning
    rate of their own, and never decay either (METHOD, section 3).

    Args:
        model: The network.
        lr: Learning rate of the last layers, and without *layer_decay* of everything.
        weight_decay: Of the weights that decay.
        layer_decay: Factor, 0…1, by which each layer learns more slowly than the one
            above it, for pre-trained starts; None: all alike.
        gate_lr: Learning rate of the gates; None: *lr*.
        head_lr: Learning rate of the heads; None: *lr*.

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
    heads = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith(HEADS)
    }
    for group in groups:
        params = [p for p in group['params'] if id(p) not in own]
        parts = [(lr * group.get('lr_scale', 1.0), params)]
        if head_lr is not None:
            inside = [p for p in params if id(p) in heads]
            parts = [(parts[0][0], [p for p in params if id(p) not in heads])]
            parts.append((head_lr, inside))
        kept += [
            {'params': chosen, 'lr': rate, 'weight_decay': group['weight_decay']}
            for rate, chosen in parts
            if chosen
        ]
    if gates:
        rate = lr if gate_lr is None else gate_lr
        kept.append({'params': gates, 'lr': rate, 'weight_decay': 0.0})
    return kept


def freeze(model: ClassTokenViT, count: int) -> None:
    """Keep patch embedding, positions and the first blocks as they are.

    Gates of their heads still learn.

    Args:
        model: The network.
        count: Number of blocks; 0: everything learns.

    Raises:
        SettingError: If the network has fewer.
    """
    depth = len(model.blocks)
    if not 0 <= count <= depth:
        raise SettingError(
            f'optimization.freeze_blocks must be 0 to {depth}, the number of blocks, got '
            f'{count}.'
        )
    if not count:
        return
    model.pos_embed.requires_grad_(False)
    for module in (model.patch_embed, *model.blocks[:count]):
        for name, parameter in module.named_parameters():
            if not name.endswith('gate.log_a'):
                parameter.requires_grad_(False)
