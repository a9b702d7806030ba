"""Publish a checkpoint: a folder, or a repository of the Hugging Face Hub."""

import json
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch

from .errors import (
    CheckpointError,
    DataError,
    ExportWarning,
    OutputError,
    SettingError,
    similar_file,
)
from .export import export_model
from .files import make_folder, staging_folder, write_text
from .inference.scene_loop import weights_hash
from .trainers import ClassTokenMaskingTask, load_predictor
from .trainers.loading import CHECKPOINT_KEY, SOFT_MASKS_KEY, load_file
from .trainers.published import CONFIG, WEIGHTS, sha256_of
from .trainers.segmentation import FACTS, SegmentationPredictor
from .version import __version__

#: Files of a published model beside weights and configuration.
CARD, ONNX, ITEM = 'README.md', 'model.onnx', 'item.json'
#: Libraries that publishing requires, all in the extra ``hub``.
LIBRARIES: Final = ('huggingface_hub', 'onnx', 'onnxruntime', 'onnxscript', 'pystac')
#: Keys of scores in the files of ``evaluate --json`` and ``assess --json``.
SCORES: Final = {
    'overall_accuracy': 'overall accuracy',
    'pixel_accuracy': 'pixel accuracy',
    'average_accuracy': 'average accuracy',
    'miou': 'mean IoU',
    'macro_f1': 'macro F1',
}

Predictor = ClassTokenMaskingTask | SegmentationPredictor


class Words(NamedTuple):
    """What a model card says that a checkpoint does not know."""

    title: str | None = None
    #: Data that it was trained on.
    data: str | None = None
    #: Identifier of the license, as the Hub spells it.
    license: str | None = None
    #: File of ``evaluate --json`` or ``assess --json``.
    scores: Path | None = None


class Published(NamedTuple):
    """A published model."""

    paths: list[Path]
    sha256: str
    #: Address and commit on the Hub; None: in a folder alone.
    url: str | None = None
    commit: str | None = None


def publish(
    checkpoint: str | Path,
    *,
    folder: str | Path | None = None,
    repo: str | None = None,
    words: Words | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> Published:
    """Write the model card, weights, options, ONNX and STAC item of a checkpoint.

    ``predict --checkpoint`` takes the folder, or ``hf://user/name``, and maps as with
    the checkpoint.

    Args:
        checkpoint: What :func:`~torchgeo_ctm.trainers.load_predictor` loads.
        folder: Folder to write.
        repo: Repository of the Hub to upload to, ``hf:user/name``. It is created if it
            is missing.
        words: What the card says beside the facts of the checkpoint; None: nothing.
        private: Create a private repository.
        overwrite: Replace the files of an earlier model in *folder*.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        DataError: If the scores cannot be read.
        OutputError: If the files cannot be written or uploaded.
        SettingError: If neither *folder* nor *repo* is given, or a library is missing.
    """
    name = _repository(repo)
    words = words or Words()
    _check_license(words.license)
    if folder is None and name is None:
        raise SettingError('Expected --folder DIR or --repo hf:USER/NAME, got neither.')
    missing = [library for library in LIBRARIES if find_spec(library) is None]
    if missing:
        raise SettingError(
            f'publish requires {", ".join(missing)}. Install them with pip install '
            '"torchgeo-ctm[hub]".'
        )
    scores = _scores(words.scores)
    with TemporaryDirectory() as temporary:
        path = Path(temporary, 'model') if folder is None else Path(folder)
        _check_folder(path, overwrite)
        with staging_folder(path) as staged:
            _write(Path(checkpoint), staged, name or path.name, words, scores)
            make_folder(path)
            files = sorted(staged.iterdir())
            for file in files:
                file.replace(path / file.name)
        published = Published(
            [path / file.name for file in files], sha256_of(path / WEIGHTS)
        )
        if name is None:
            return published
        url, commit = _upload(path, name, private)
        kept = [] if folder is None else published.paths
        return Published(kept, published.sha256, url, commit)


def _repository(repo: str | None) -> str | None:
    """Return USER/NAME of a repository.

    Raises:
        SettingError: If it is not one.
    """
    if repo is None:
        return None
    match = re.fullmatch(r'(?:hf:(?://)?)?([\w.-]+/[\w.-]+)', repo)
    if match is None:
        raise SettingError(f'Invalid --repo {repo!r}, expected hf:USER/NAME.')
    return match[1]


def _check_license(name: str | None) -> None:
    """Check that a license is an identifier, as the Hub wants it.

    Raises:
        SettingError: If it is not one.
    """
    if name is None or re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', name):
        return
    near = re.sub(r'[^a-z0-9.+]+', '-', name.lower()).strip('-')
    hint = f' Did you mean {near!r}?' if near else ''
    raise SettingError(
        f'license={name!r} is not the identifier of a license, expected one such as '
        f'cc-by-4.0, mit or other.{hint}'
    )


def _check_folder(path: Path, overwrite: bool) -> None:
    """Check that a folder is empty, or may be written to.

    Raises:
        OutputError: If it is not.
    """
    if path.is_file():
        raise OutputError(f'{path} is a file, expected a folder.')
    if not path.parent.is_dir():
        raise OutputError(f'Folder {path.parent} does not exist. Create it first.')
    names = {CARD, ONNX, ITEM, WEIGHTS, CONFIG}
    found = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if found - names - {'.gitattributes', '.git'}:
        raise OutputError(
            f'{path} holds other files, such as {min(found - names)}. Choose '
            'another folder.'
        )
    if found & names and not overwrite:
        raise OutputError(f'{path} already exists. Pass --overwrite to replace it.')


def _scores(path: Path | None) -> dict[str, str]:
    """Return the scores of a file by their name, as text.

    Raises:
        DataError: If it holds none.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise DataError(
            f'{path} does not exist, expected scores of evaluate --json or assess '
            f'--json.{similar_file(path, (".json",))}'
        )
    try:
        content = json.loads(path.read_text('utf-8'))
        found = {
            words: f'{value["value"]:.3f} ± {value["ci95"]:.3f} (95 %)'
            if isinstance(value, dict)
            else f'{value:.3f}'
            for key, words in SCORES.items()
            if (value := content.get(key)) is not None
        }
        by_class = content.get('iou') or {}
        found |= {f'IoU, {k}': f'{v:.3f}' for k, v in by_class.items() if v is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f'{path} cannot be read as scores: {error}.') from error
    if not found:
        raise DataError(
            f'{path} holds no scores, expected a file of evaluate --json or assess '
            '--json.'
        )
    return found


def _check_measured(path: Path | None, weights: str, checkpoint: Path) -> None:
    """Warn if scores were measured on a map of other weights."""
    if path is None:
        return
    measured = json.loads(path.read_text('utf-8')).get('weights_sha256')
    if measured not in (None, weights):
        warnings.warn(
            f'{path} was measured on a map of another checkpoint than {checkpoint}.',
            ExportWarning,
            stacklevel=2,
        )


def _write(
    checkpoint: Path, folder: Path, name: str, words: Words, scores: Mapping[str, str]
) -> None:
    """Write all files of a model into a folder."""
    from safetensors.torch import save

    content = load_file(checkpoint)
    predictor = load_predictor(checkpoint)
    _check_measured(words.scores, weights_hash(predictor), checkpoint)
    config = _plain(_kept(content), f'{checkpoint}: ')
    # tensors that share memory, or are views, are stored on their own
    state = {
        key: value.detach().clone().contiguous()
        for key, value in content['state_dict'].items()
    }
    (folder / WEIGHTS).write_bytes(save(state, metadata={'format': 'pt'}))
    facts = {
        'torchgeo_ctm_version': __version__,
        'class_names': list(predictor.class_names),
        'class_colors': list(predictor.class_colors),
        'bands': list(predictor.bands),
        'sha256': sha256_of(folder / WEIGHTS),
    }
    text = json.dumps(facts | {'checkpoint': config}, indent=2, ensure_ascii=False)
    write_text(folder / CONFIG, text + '\n')
    if isinstance(predictor, ClassTokenMaskingTask):
        _export(checkpoint, folder / ONNX)
    total = sum(value.numel() for value in state.values())
    modified = datetime.fromtimestamp(checkpoint.stat().st_mtime, UTC)
    item = _item(predictor, name, total, modified, folder, words)
    write_text(folder / ITEM, json.dumps(item, indent=2, ensure_ascii=False) + '\n')
    write_text(folder / CARD, _card(predictor, name, total, folder, words, scores))


def _kept(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predictions depend on: not the state of training, not the weights."""
    kept = {}
    for key, value in content.items():
        if key == CHECKPOINT_KEY:
            kept[key] = {'version': value['version']}
        elif key in ('hyper_parameters', SOFT_MASKS_KEY) or (
            isinstance(value, Mapping) and value.keys() >= FACTS
        ):
            kept[key] = value
    return kept


def _plain(value: Any, where: str) -> Any:
    """Return options as JSON holds them.

    Raises:
        CheckpointError: If one is a tensor, or a number that is not finite.
    """
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise CheckpointError(f'{where}keys {list(value)} are no text.')
        return {k: _plain(v, f'{where}{k} ') for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise CheckpointError(
        f'{where}is a {type(value).__name__}, which JSON cannot hold. Train without it.'
    )


def _export(checkpoint: Path, path: Path) -> None:
    """Write the ONNX, if the rule of the map can be exported."""
    try:
        export_model(checkpoint, path)
    except SettingError as error:
        warnings.warn(f'{path.name} is left out: {error}', ExportWarning, stacklevel=4)


def _item(
    predictor: Predictor,
    name: str,
    total: int,
    modified: datetime,
    folder: Path,
    words: Words,
) -> dict[str, Any]:
    """Return a STAC item with the Machine Learning Model extension."""
    import pystac
    from pystac.extensions.classification import Classification
    from pystac.extensions.mlm import (
        InputStructure,
        MLMExtension,
        ModelInput,
        ModelOutput,
        ResultStructure,
        TaskType,
    )
    from pystac.extensions.raster import DataType

    side = _side(predictor)
    item = pystac.Item(
        id=name.replace('/', '-'),
        # where it may be used is not known
        geometry=None,
        bbox=None,
        datetime=modified,
        properties={'description': words.data} if words.data else {},
    )
    if words.license:
        item.properties['license'] = words.license
    item.properties['bands'] = [{'name': band} for band in predictor.bands]
    mlm = MLMExtension.ext(item, add_if_missing=True)
    mlm.apply(
        name=re.sub(r'[^\w.-]+', '-', name.rpartition('/')[2]),
        architecture=_architecture(predictor),
        framework='PyTorch',
        framework_version=torch.__version__.split('+')[0],
        total_parameters=total,
        tasks=[TaskType.SEMANTIC_SEGMENTATION],
        input=[
            ModelInput.create(
                name='image',
                bands=list(predictor.bands),
                input=InputStructure.create(
                    shape=[-1, len(predictor.bands), side, side],
                    dim_order=['batch', 'bands', 'height', 'width'],
                    data_type=DataType.FLOAT32,
                ),
                description='Values of the scene. The model scales them.',
            )
        ],
        output=[
            ModelOutput.create(
                name='scores',
                tasks=[TaskType.SEMANTIC_SEGMENTATION],
                result=ResultStructure.create(
                    shape=[-1, len(predictor.class_names), side, side],
                    dim_order=['batch', 'class', 'height', 'width'],
                    data_type=DataType.FLOAT32,
                ),
                classes=[
                    Classification.create(
                        value=value, name=label, color_hint=color.lstrip('#').upper()
                    )
                    for value, (label, color) in enumerate(
                        zip(predictor.class_names, predictor.class_colors, strict=True)
                    )
                ],
            )
        ],
    )
    for key, file, kind in (
        ('weights', WEIGHTS, 'application/octet-stream; framework=safetensors'),
        ('onnx', ONNX, 'application/octet-stream; framework=onnx'),
        ('configuration', CONFIG, 'application/json'),
    ):
        if (folder / file).exists():
            roles = ['mlm:model'] if key != 'configuration' else ['metadata']
            asset = pystac.Asset(f'./{file}', title=file, media_type=kind, roles=roles)
            if key != 'configuration':
                asset.extra_fields['mlm:artifact_type'] = (
                    'safetensors.torch.save_file'
                    if key == 'weights'
                    else 'torch.onnx.export'
                )
            item.add_asset(key, asset)
    found: dict[str, Any] = item.to_dict(include_self_link=False)
    for each in (*found['properties']['mlm:input'], *found['properties']['mlm:output']):
        for key in [key for key, value in each.items() if value is None]:
            del each[key]
    return found


def _side(predictor: Predictor) -> int:
    """Return the side of a training chip in pixels."""
    size = predictor.hparams.get('img_size', 256)
    return int(size if isinstance(size, int) else max(size))


def _architecture(predictor: Predictor) -> str:
    """Return the name of the network."""
    return str(predictor.hparams.get('model', type(predictor).__name__))


def _card(
    predictor: Predictor,
    name: str,
    total: int,
    folder: Path,
    words: Words,
    scores: Mapping[str, str],
) -> str:
    """Return the model card: metadata of the Hub, then Markdown."""
    digest = sha256_of(folder / WEIGHTS)
    at = f'hf://{name}' if '/' in name else name
    head = ['---', *([f'license: {words.license}'] if words.license else [])]
    head += ['library_name: torchgeo-ctm', 'pipeline_tag: image-segmentation']
    head += ['tags:', '- remote-sensing', '- land-cover', '- weakly-supervised', '---']
    classes = zip(predictor.class_names, predictor.class_colors, strict=True)
    about = (
        f'Land cover of whole scenes, learned from image-level labels: {total:,} weights '
        f'of `{_architecture(predictor)}`, chips of {_side(predictor)} px. Written by '
        f'torchgeo-ctm {__version__}.'
    )
    pin = f'sha256 of `{WEIGHTS}`: `{digest}`.'
    if '/' in name:
        pin += f' Pin it with `--checkpoint {at}@COMMIT#sha256={digest}`.'
    lines = [
        *head,
        '',
        f'# {words.title or name}',
        '',
        about,
        '',
        '```console',
        '$ pip install "torchgeo-ctm[hub]"',
        f'$ torchgeo-ctm predict SCENE --checkpoint {at} --output map.tif',
        '```',
        '',
        pin,
        '',
        '## Classes',
        '',
        '| value | class | color |',
        '|---|---|---|',
        *(f'| {value} | {label} | `{c}` |' for value, (label, c) in enumerate(classes)),
        '',
        '## Bands and scaling',
        '',
        *_bands(predictor),
        '',
        '## Accuracy',
        '',
        *([] if not scores else ['| score | value |', '|---|---|']),
        *(f'| {key} | {value} |' for key, value in scores.items()),
        *([] if scores else ['Not measured by the publisher.']),
        '',
        '## Training data',
        '',
        words.data or 'Not described by the publisher.',
        '',
    ]
    return '\n'.join(lines)


def _bands(predictor: Predictor) -> list[str]:
    """Return a table of bands with mean and deviation, if the model knows them."""
    scaling = predictor.scaling
    mean, std = (getattr(scaling, key, None) for key in ('mean', 'std'))
    method = getattr(scaling, 'method', type(scaling).__name__)
    lines = ['| band | mean | std |', '|---|---|---|']
    for index, band in enumerate(predictor.bands):
        cells = [
            '' if each is None else f'{each.flatten()[index]:g}' for each in (mean, std)
        ]
        lines.append(f'| {band} | {cells[0]} | {cells[1]} |')
    offset = getattr(scaling, 'offset', 0.0)
    return [
        f'Method `{method}`, offset {offset:g}. The model scales by itself.',
        '',
        *lines,
    ]


def _upload(folder: Path, name: str, private: bool) -> tuple[str, str]:
    """Upload a folder to the Hub, and return address and commit.

    Raises:
        OutputError: If the Hub refuses it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        found = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[CARD, ONNX, ITEM, WEIGHTS, CONFIG],
            commit_message=f'torchgeo-ctm {__version__}',
        )
    # the network can fail in many ways, and so can its library
    except Exception as error:
        reason = (' '.join(str(error).split()) or type(error).__name__)[:200]
        raise OutputError(
            f'Cannot upload to {name}: {reason} Log in with hf auth login.'
        ) from error
    return str(found.repo_url), str(found.oid)
