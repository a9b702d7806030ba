"""Whether benchmarks/gpu.py leaves figures of every stage behind, and faults as a line."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import GOALS, STAGES, Stage, Worker, goals, run
from benchmarks.gpu_machine import Job

GOLDEN = Path(__file__).parents[3] / 'shared' / 'golden'


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job('cpu', True, tmp_path / 'folder', GOLDEN)


def test_goals_name_figures_of_stages() -> None:
    assert {stage for stage, *_ in GOALS} <= {stage.name for stage in STAGES}
    given = {'step_speed': {'ours_over_plain': 2.5}, 'step_memory': {'error': 'x'}}
    figure = {'figure': 2.5, 'goal': 3.0, 'met': False}
    assert goals(given) == {'step_speed.ours_over_plain': figure}


def test_budget_spent_skips_the_stages_and_says_so(job: Job, tmp_path: Path) -> None:
    report = run(job, 0, tmp_path / 'gpu.json')
    assert json.loads((tmp_path / 'gpu.json').read_text()) == report
    assert {figures['skipped'] for figures in report['stages'].values()} == {
        '0 s of 0 s left'
    }


@pytest.mark.slow
def test_worker_survives_faults(job: Job) -> None:
    worker = Worker()
    try:
        fault = Stage('fault', 'gpu_right.missing', 0, 600)
        assert 'missing' in worker.run(fault, job, {}, 600)['error']
        endless = Stage('endless', 'gpu_right.every_option', 0, 600)
        start = time.perf_counter()
        assert worker.run(endless, job, {}, 0.1) == {'error': 'ended after 0 s'}
        assert time.perf_counter() - start < 60
        machine = Stage('machine', 'gpu.machine', 0, 600)
        assert worker.run(machine, job, {}, 600)['cores'] >= 1
    finally:
        worker.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_every_stage_leaves_figures(job: Job, tmp_path: Path) -> None:
    # compilation needs a C++ compiler, and a minute; memory has a test of its own
    left_out = ('step_compiled', 'step_memory')
    names = [stage.name for stage in STAGES if stage.name not in left_out]
    report = run(job, 1200, tmp_path / 'gpu.json', tuple(names))
    stages = report['stages']
    assert json.loads((tmp_path / 'gpu.json').read_text()) == report
    assert list(stages) == names
    assert not {name for name, figures in stages.items() if 'error' in figures}
    assert stages['every_option']['faults'] == {}
    assert stages['equal_outputs']['tokens_masked'] > 0
    assert report['goals']['equal_outputs.same_masking']['met']
    for name in ('equal_outputs', 'equal_refinement', 'checkpoint_loads'):
        assert stages[name]['within_tolerance'], name
    if GOLDEN.is_dir():
        assert stages['golden_vectors']['within_tolerance']
    assert stages['equal_pixels']['fp32'] == 1
    assert stages['equal_pixels']['weights'] == 'of the real run'
    assert stages['scene_recommended_large']['scene_side'] == 128
    assert 0 < stages['scene_base_large']['pipeline_efficiency'] < 1
    assert stages['loader']['loader_over_step'] > 0
    assert stages['real_run']['images_per_second'] > 0
