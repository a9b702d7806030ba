"""The commands of ``torchgeo-ctm``: one function each.

The signature and docstring of a function are the options and the help of its command.
``**options`` are those of the function that they are passed to. Everything heavy is
imported inside the functions, so that help and errors in options come at once.
"""

from collections.abc import Callable

from .data import describe, stats
from .learning import choose, demo, pseudomasks, train
from .mapping import predict, search
from .masks import areas, change, join, relabel, vectorize
from .models import export, import_checkpoint, publish, weights
from .scores import assess, evaluate, sample

COMMANDS: dict[str, Callable[..., None]] = {
    'demo': demo,
    'train': train,
    'search': search,
    'predict': predict,
    'evaluate': evaluate,
    'sample': sample,
    'assess': assess,
    'areas': areas,
    'change': change,
    'join': join,
    'relabel': relabel,
    'vectorize': vectorize,
    'pseudomasks': pseudomasks,
    'stats': stats,
    'describe': describe,
    'choose': choose,
    'weights': weights,
    'export': export,
    'publish': publish,
    'import-checkpoint': import_checkpoint,
}

__all__ = [
    'COMMANDS',
    'areas',
    'assess',
    'change',
    'choose',
    'demo',
    'describe',
    'evaluate',
    'export',
    'import_checkpoint',
    'join',
    'predict',
    'pseudomasks',
    'publish',
    'relabel',
    'sample',
    'search',
    'stats',
    'train',
    'vectorize',
    'weights',
]
