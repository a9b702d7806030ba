"""The three splits of a data set."""

from typing import Literal, get_args

from .errors import SettingError, did_you_mean

Split = Literal['train', 'val', 'test']
SPLITS: tuple[Split, ...] = get_args(Split)


def check_split(split: str) -> None:
    """Check the name of a split.

    Raises:
        SettingError: If it is not 'train', 'val' or 'test'.
    """
    if split not in SPLITS:
        raise SettingError(
            f'Unknown split {split!r}, expected one of: {", ".join(SPLITS)}.'
            + did_you_mean(str(split), SPLITS)
        )
