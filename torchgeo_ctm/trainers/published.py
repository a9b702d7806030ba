"""Read a published model: a folder or a repository of the Hugging Face Hub.

Weights are safetensors and options JSON, so that no code can be in them.
"""

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import CheckpointError, SettingError
from ..files import expanded

#: Files of a published model that predictions depend on.
WEIGHTS: Final = 'model.safetensors'
CONFIG: Final = 'config.json'
#: ``hf://user/name@revision#sha256=…``
HUB: Final = re.compile(
    r'hf:(?://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^#@]+))?'
    r'(?:#sha256=(?P<sha256>[0-9a-f]{64}))?'
)


class Located(NamedTuple):
    """A checkpoint on this machine."""

    path: Path
    #: Commit of the repository that it was downloaded from; None: from this machine.
    commit: str | None = None


def is_remote(checkpoint: str | Path) -> bool:
    """Return whether a checkpoint is named by a repository of the Hub."""
    return str(checkpoint).startswith('hf:')


def is_published(path: Path) -> bool:
    """Return whether a folder holds a published model."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def locate(checkpoint: str | Path) -> Located:
    """Return where a checkpoint is on this machine, downloaded if it is on the Hub.

    Args:
        checkpoint: A file, a folder, or ``hf://user/name``, with ``@revision`` (a
            branch, tag or commit) and ``#sha256=…`` of the weights if it must be one.

    Raises:
        CheckpointError: If it cannot be downloaded, or the weights are other ones.
        SettingError: If the name is not understood, or huggingface_hub is missing.
    """
    if not is_remote(checkpoint):
        return Located(expanded(checkpoint))
    match = HUB.fullmatch(str(checkpoint))
    if match is None:
        raise SettingError(
            f'Invalid checkpoint {str(checkpoint)!r}, expected '
            'hf://USER/NAME@REVISION, and #sha256= with 64 digits if wanted.'
        )
    folder = _downloaded(match['repo'], match['revision'])
    found = sha256_of(folder / WEIGHTS)
    if match['sha256'] not in (None, found):
        raise CheckpointError(
            f'{WEIGHTS} of hf://{match["repo"]} has sha256={found}, expected '
            f'{match["sha256"]}. The model has changed: name the commit after @, or '
            'check the model and pass the new sha256.'
        )
    return Located(folder, folder.name)


def _downloaded(repo: str, revision: str | None) -> Path:
    """Return the folder of a model in the cache of huggingface_hub.

    Raises:
        CheckpointError: If there is no such model, or it cannot be downloaded.
        SettingError: If huggingface_hub is missing.
    """
    name = f'hf://{repo}' + ('' if revision is None else f'@{revision}')
    if find_spec('huggingface_hub') is None:
        raise SettingError(
            f'{name} requires huggingface_hub. Install it with pip install '
            '"torchgeo-ctm[hub]".'
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(hf_hub_download(repo, CONFIG, revision=revision)).parent
        # of the same commit, whatever the branch is by now
        hf_hub_download(repo, WEIGHTS, revision=folder.name)
    except GatedRepoError as error:
        raise CheckpointError(
            f'{name} is only for users who were granted access. Ask for it at '
            f'huggingface.co/{repo}, and run hf auth login.'
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f'{name} does not exist, or is private. Check the name, or run hf auth '
            'login.'
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f'hf://{repo} has no revision {revision!r}, expected a branch, tag or commit.'
        ) from error
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise _failed(name, error) from error
        raise CheckpointError(
            f'{name} has no {WEIGHTS} and {CONFIG} of torchgeo-ctm publish.'
        ) from error
    # the network can fail in many ways, and so can its library
    except Exception as error:
        raise _failed(name, error) from error
    return folder


def _failed(name: str, error: Exception) -> CheckpointError:
    """Return the error of a download that failed."""
    reason = (' '.join(str(error).split()) or type(error).__name__)[:200]
    return CheckpointError(f'{name} cannot be downloaded: {reason}')


def read_published(folder: Path) -> dict[str, Any]:
    """Return the content of a published model as that of its checkpoint.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    if not is_published(folder):
        inside = sorted(folder.glob('*.ckpt'))
        hint = f' Did you mean {str(inside[0])!r}?' if inside else ''
        raise CheckpointError(
            f'{folder} is a folder without {WEIGHTS} and {CONFIG}, expected a '
            f'checkpoint (.ckpt) or a published model.{hint}'
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = json.loads((folder / CONFIG).read_text('utf-8'))
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f'{folder} is damaged: {error}') from error
    kept = content.get('checkpoint') if isinstance(content, dict) else None
    if not isinstance(kept, dict):
        raise CheckpointError(
            f'{folder / CONFIG} has no key checkpoint. It is of another program.'
        )
    return kept | {'state_dict': state}


def files_of(path: Path) -> list[Path]:
    """Return the files of a checkpoint that predictions depend on."""
    return [path / WEIGHTS, path / CONFIG] if path.is_dir() else [path]


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
