"""Commands for checkpoints and weights."""

from pathlib import Path
from typing import Literal

from .inputs import check_inputs, check_output_file
from .output import print_line, print_loading


def weights(*, markdown: bool = False) -> None:
    """List the weights of TorchGeo that training can start from.

    Each is a value of the key weights in a configuration. Weights for 'any' bands start
    with every list of bands whose wavelengths are known.

    Args:
        markdown: Print a table in Markdown.
    """
    print_loading()
    from ..reports import weights as listed

    for line in listed.markdown() if markdown else listed.report():
        print_line(line)


def export(
    checkpoint: str,
    /,
    *,
    output: str,
    img_size: int | None = None,
    opset: int = 18,
    rule: Literal['argmax'] | None = None,
    offset: float | None = None,
    resolution: float | None = None,
    torch_export: bool = False,
    overwrite: bool = False,
) -> None:
    """Export a checkpoint to ONNX, with the metadata that QGIS's Deepness plugin reads.

    Args:
        checkpoint: Checkpoint of ClassTokenMaskingTask (.ckpt).
        output: File to write (.onnx).
        img_size: Side of a window in pixels; by default that of training.
        opset: Version of ONNX's operators, 18 to 23; 18 suits the oldest programs.
        rule: Use argmax for a checkpoint whose rule is paint, which cannot be exported.
        offset: Added to the input's numbers to make them reflectance x 10,000, as
            -1000 for Sentinel-2 processing baseline 04.00 and later; as in the
            training data if not given.
        resolution: Meters per pixel that Deepness resamples a layer to; 10 for
            Sentinel-2's bands if not given.
        torch_export: Also write the file's name with .pt2, for torch.export.load.
        overwrite: Replace existing files.
    """
    check_output_file(Path(output), overwrite, '.onnx')
    if torch_export:
        check_output_file(Path(output).with_suffix('.pt2'), overwrite, '.pt2')
    check_inputs(checkpoint=checkpoint)
    print_loading()
    from ..export import export_model

    exported = export_model(
        checkpoint,
        output,
        img_size=img_size,
        opset=opset,
        rule=rule,
        offset=offset,
        resolution=resolution,
        torch_export=torch_export,
        overwrite=overwrite,
    )
    for path in exported.paths:
        print_line(str(path))
    print_line(
        f'{"largest difference":<20}  {exported.difference:.1e} from PyTorch, in '
        f'{exported.windows} random windows, {exported.several} with several classes'
    )


def publish(
    checkpoint: str,
    /,
    *,
    folder: str | None = None,
    repo: str | None = None,
    title: str | None = None,
    data: str | None = None,
    license: str | None = None,
    scores: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> None:
    """Publish a checkpoint with a model card, as a folder or on the Hugging Face Hub.

    Args:
        checkpoint: Checkpoint (.ckpt), as for predict.
        folder: Folder to write.
        repo: Repository to upload to, as hf:USER/NAME. It is created if it is missing.
        title: Title of the model card.
        data: Sentence about the training data.
        license: License, as the Hub spells it, for example cc-by-4.0.
        scores: File of evaluate --json or assess --json, for the model card.
        private: Create a private repository.
        overwrite: Replace the files of an earlier model.
    """
    check_inputs(checkpoint=checkpoint)
    print_loading()
    from ..publish import Words, publish

    words = Words(title, data, license, None if scores is None else Path(scores))
    published = publish(
        checkpoint,
        folder=folder,
        repo=repo,
        words=words,
        private=private,
        overwrite=overwrite,
    )
    for path in published.paths:
        print_line(str(path))
    if published.url is not None:
        print_line(published.url)
        print_line(f'{"commit":<20}  {published.commit}')
    print_line(f'{"sha256":<20}  {published.sha256}')


def import_checkpoint(
    reference: str,
    output: str,
    /,
    *,
    bands: list[str],
    classes: list[str],
    num_heads: int = 16,
    overwrite: bool = False,
) -> None:
    """Convert a checkpoint of the paper's released code to one of this package.

    Args:
        reference: The released code's checkpoint.
        output: Checkpoint to write (.ckpt).
        bands: Names of the bands it was trained with, in order, as B02,B03,B04.
        classes: Names of its classes, in order, as Forest,Water.
        num_heads: Heads of a block.
        overwrite: Replace an existing file.
    """
    check_output_file(Path(output), overwrite, '.ckpt')
    print_loading()
    from ..trainers import import_reference, save_task

    save_task(import_reference(reference, bands, classes, num_heads), output)
    print_line(output)
