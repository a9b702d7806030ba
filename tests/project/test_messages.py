"""Every message that a user sees in the first ten minutes is reviewed."""

from pathlib import Path

import pytest

from tests.project.messages import MESSAGES, collect, command_names


@pytest.fixture(scope='module')
def messages() -> str:
    return MESSAGES.read_text(encoding='utf-8')


def test_every_command_has_its_help_in_the_file(messages: str) -> None:
    for name in command_names():
        assert f'$ torchgeo-ctm {name} --help\n' in messages


def test_every_mistake_is_one_line_without_words_of_programs(messages: str) -> None:
    for block in messages.split('\n\n'):
        _, *lines = block.splitlines()
        if 'exit status' not in block:
            continue
        own = [line for line in lines[:-1] if 'warning:' not in line]
        assert len(own) == 1, block
        assert own[0].endswith(('.', '?')), block
        for word in ('Traceback', '<class', 'typing.', 'Namespace', '``', 'PosixPath'):
            assert word not in own[0], block


@pytest.mark.slow
def test_messages_are_those_of_the_file(messages: str, tmp_path: Path) -> None:
    """After an intended change: python -m tests.project.messages, and read the diff."""
    said = collect(tmp_path)
    # where a line of help breaks depends on the release of Python
    assert [' '.join(each.split()) for each in said.split('\n\n')] == [
        ' '.join(each.split()) for each in messages.split('\n\n')
    ]
