"""What the page on folders of images says, done as it says."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from tests.commands import Run, TorchGeoMain
from tests.fakes.image_folders import blocks, paint, save
from torchgeo_ctm.datasets import ImageFolder
from torchgeo_ctm.errors import LabelWarning

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'how-to' / 'own-images.md'
HEADING = '## With masks'
#: How many images a reader has in each folder.
IMAGES = 5


class Section(NamedTuple):
    """The parts of a section that a reader types."""

    text: str
    #: Content of each fenced block, by its language.
    blocks: dict[str, str]


def read_section() -> Section:
    """Read the section from its heading to the next of the same level."""
    content = PAGE.read_text(encoding='utf-8')
    assert HEADING in content
    text = content.split(f'{HEADING}\n')[1].split('\n## ')[0]
    fenced = re.findall(r'^```(\w+)\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert len(fenced) == len(dict(fenced))
    return Section(text, dict(fenced))


def write_images(layout: str, folder: Path, classes: int) -> None:
    """Write images where the layout says ``…/images/NAME.x  …/masks/NAME.y``."""
    for row, line in enumerate(layout.splitlines()):
        image, mask = line.split()
        for number in range(IMAGES):
            labels = blocks(10 * row + number, classes, 64, 80)
            name = f'field_{number}'
            save(folder / image.replace('NAME', name), paint(labels))
            save(folder / mask.replace('NAME', name), labels)


@pytest.mark.slow
def test_add_your_own_data_set(
    tmp_path: Path,
    run: Run,
    torchgeo_main: TorchGeoMain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    section = read_section()
    config = yaml.safe_load(section.blocks['yaml'])
    classes = config['data']['dict_kwargs']['classes']
    assert config['model']['init_args']['num_classes'] == len(classes)
    write_images(section.blocks['text'], tmp_path, len(classes))
    (tmp_path / 'my_data.yaml').write_text(section.blocks['yaml'])
    for line in section.blocks['console'].splitlines():
        command, *arguments = shlex.split(line.removeprefix('$ '))
        if command == 'torchgeo':
            torchgeo_main(*arguments)
        else:
            assert command == 'torchgeo-ctm'
            status, _, err = run(*arguments)
            assert status == 0, err
    masks = np.load(tmp_path / 'masks' / 'pms_imagefolder.npy')
    assert masks.shape == (IMAGES, 64, 64)
    assert set(np.unique(masks)) <= set(range(len(classes)))


def test_the_other_words(tmp_path: Path) -> None:
    """What the sections below it offer, on files as they describe them."""
    page = PAGE.read_text(encoding='utf-8')
    [table] = re.findall(r'`([\w;]+,[\w;]+)`', page.replace('`image,classes`', ''))
    table = ['image,classes', table]
    paragraph = page.split('## In another layout')[1] + '`labels: labels.csv`'
    offered: dict[str, Any] = {}
    for words in re.findall(r'`(\w+: [^`]+)`', paragraph):
        [(key, value)] = yaml.safe_load(words).items()
        offered.setdefault(key, value)
    list_file, shares, table_file = map(offered.pop, ('list_file', 'shares', 'labels'))
    for number in range(IMAGES):
        labels = blocks(number, 2, 20, 20)
        save(tmp_path / f'pictures/a{number}.png', paint(labels))
        save(tmp_path / f'truth/a{number}_label.png', labels * np.uint8(255))
    (tmp_path / 'train.txt').write_text('a3\na1\n')
    (tmp_path / table_file).write_text('\n'.join(table).replace('NAME', 'a3'))
    shared: dict[str, Any] = {'root': tmp_path, 'classes': ['land', 'water']}
    for options, names in (
        ({'list_file': list_file}, ['a3', 'a1']),
        ({'shares': [1, 0, 0]}, [f'a{number}' for number in range(IMAGES)]),
    ):
        images = ImageFolder(**(shared | offered | options))
        assert images.names == names
        assert set(images[0]['mask'].flatten().tolist()) == {0, 1}
    assert sum(shares) == pytest.approx(1)
    labelled = {'masks': None, 'mask_values': None, 'labels': table_file}
    with pytest.warns(LabelWarning, match='4 of 5 images'):
        images = ImageFolder(**(shared | offered | labelled | {'shares': [1, 0, 0]}))
    assert images[0]['label'].tolist() == [1, 1]


def test_it_is_short_and_uses_every_kind_of_block() -> None:
    section = read_section()
    assert sorted(section.blocks) == ['console', 'text', 'yaml']
    for block in section.blocks.values():
        assert len(block.splitlines()) <= 30


def test_no_page_has_a_placeholder() -> None:
    pages = [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')]
    pages += (ROOT / 'benchmarks').glob('*.md')
    for page in pages:
        assert not re.search(r'@[A-Z]+@', page.read_text(encoding='utf-8')), page
