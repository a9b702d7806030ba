"""Hide messages of Lightning that a user cannot act on."""

import logging
import warnings


def quiet_lightning() -> None:
    """Silence Lightning's advice about loggers and workers."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')


def hide_tips() -> None:
    """Hide Lightning's tips for other products, and what a task does on purpose."""
    logging.getLogger('lightning.pytorch.utilities.rank_zero').addFilter(_no_tip)
    warnings.filterwarnings('ignore', '.*treespec, LeafSpec.*')
    # of blocks that are frozen on purpose
    warnings.filterwarnings('ignore', r'.*module\(s\) in eval mode.*')


def _no_tip(record: logging.LogRecord) -> bool:
    """Return whether a message is none of those tips."""
    return 'Tip: For seamless cloud' not in str(record.msg)
