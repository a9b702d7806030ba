"""Lightning's trainer, whose errors and exits are ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import DataError, SettingError, did_you_mean, one_line
from ..lightning_messages import quiet_lightning

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


ACCELERATORS = ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu')
PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


def build_trainer(
    accelerator: str, precision: str = '32-true', **options: Any
) -> 'Trainer':
    """Return a Trainer on one device that writes no logs and no checkpoints.

    Args:
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        precision: Precision of the model, as Lightning names it.
        **options: Of Lightning's ``Trainer``.

    Raises:
        SettingError: If the device or the precision is unknown, or not available.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    check_choices(accelerator, precision)
    quiet_lightning()
    try:
        return Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            logger=False,
            enable_model_summary=False,
            **({'enable_checkpointing': False} | options),
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise SettingError(
            f"accelerator={accelerator!r} is not available here. Did you mean 'auto'?"
        ) from error


@contextmanager
def running(trainer: 'Trainer') -> Iterator[None]:
    """Re-raise Lightning's errors and exits in the block as ours."""
    from torchgeo.datasets import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        raise DataError(one_line(error)) from error
    except SystemExit:
        # Lightning turns Ctrl-C into SystemExit
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def check_choices(accelerator: str, precision: str = '32-true') -> None:
    """Check the names of accelerator and precision.

    Raises:
        SettingError: If one is unknown.
    """
    for name, value, known in (
        ('accelerator', accelerator, ACCELERATORS),
        ('precision', precision, PRECISIONS),
    ):
        if value not in known:
            raise SettingError(
                f'Unknown {name} {value!r}, expected one of: {", ".join(known)}.'
                + did_you_mean(value, known)
            )
