"""`make bench-gpu` without a GPU: every row of its tables is made with small models on the processor, and what it says and keeps. The figures of a card are not looked at."""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip('diffusers')
import gpu
import hub
from behaviour_sim.bench import full_size
from behaviour_sim.core import BadInput

ROOT = Path(__file__).resolve().parents[1]
NAN = float('nan')

#: In a process of its own: the libraries read HF_HUB_CACHE when they are imported
SCRIPT = '''
import sys; sys.path.insert(0, 'tests')
import gpu
fast, same = gpu.bench('tiny')
fast.reset_index().to_json(sys.argv[1] + '/fast.json', orient='records')
same.reset_index().to_json(sys.argv[1] + '/same.json', orient='records', double_precision=15)
'''


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    "Both tables as the bench makes them here."
    d = tmp_path_factory.mktemp('gpu')
    env = {**os.environ, 'HF_HUB_CACHE': str(d/'hub'), 'HF_HUB_OFFLINE': '1', 'BEHAVIOUR_SIM_CACHE': str(d/'cache'), 'BEHAVIOUR_SIM_DEVICE': 'cpu', 'BEHAVIOUR_SIM_QUIET': '1', 'PYTHONPATH': str(ROOT)}
    p = subprocess.run([sys.executable, '-c', SCRIPT, str(d)], capture_output=True, text=True, env=env, cwd=ROOT, timeout=600)
    assert p.returncode == 0, p.stderr
    fast, same = (pd.DataFrame(json.loads((d/f'{name}.json').read_text())) for name in ('fast', 'same'))
    return fast.set_index(['what', 'model']), same.set_index('what')


# --- The rows ---

def test_every_row_of_speed_is_made(tables):
    fast, _ = tables
    assert list(fast.index) == list(gpu.ROWS) and (fast['seconds'] > 0).all() and (fast['at once'] > 0).all() and (fast['unit'] != '').all()
    assert {m for _, m in fast.index} == {'Bloom-7b1', 'SDXL-Turbo', 'SDXL', 'BLIP-2', 'CLIP', 'MPNet', 'XGBoost', 'FAISS'}
    assert fast.loc[('writing, batches', 'Bloom-7b1'), 'at once'] == 4 and fast.loc[("writing, the report's loop", 'Bloom-7b1'), 'at once'] == 1

def test_on_one_device_nothing_differs(tables):
    _, same = tables
    assert list(same.index) == [*gpu.SAME, 'texts, batches beside the loop: Bloom']
    assert (same['difference'] < 1e-6).all() and (same['tolerated'] > 0).all()

def test_a_row_that_does_not_fit_or_has_no_time_says_so(tmp_path, monkeypatch):
    def full(t, size): raise BadInput('The memory of the GPU is full; lower batch')
    monkeypatch.setattr(gpu, 'ROWS', {('a', 'A'): (None, full), ('b', 'B'): (None, lambda t, size: gpu.row('text', 2, 3., 6))})
    t = gpu.speed(None, tmp_path, None, np.inf)
    assert t.loc[('a', 'A'), 'note'].startswith('The memory') and np.isnan(t.loc[('a', 'A'), 'seconds']) and t.loc[('b', 'B'), 'seconds'] == .5
    assert gpu.speed(None, tmp_path, None, 0)['note'].tolist() == ['left out: no time was left']*2

def test_a_difference_is_seen():
    a = np.arange(1., 5)
    assert gpu.far(a, a) == 0 and .09 < gpu.far(a, 1.1*a) < .11 and gpu.differ(['x', 'y'], ['x', 'z']) == .5

def test_the_devices_are_asked_for_in_turn(monkeypatch):
    "First the processor, then the card; a result of its own is seen, and so is a text that batches change."
    seen = []
    def work(t, z): seen.append(os.environ['BEHAVIOUR_SIM_DEVICE']); return [1., 2. + (seen[-1] == 'cuda')]
    monkeypatch.setattr(gpu, 'SAME', {'x': (work, gpu.far, .01)})
    monkeypatch.setattr(gpu, 'loop_and_batch', lambda t, z: (['a', 'b'], ['a', 'c']))
    t = gpu.compared(None, None, 'cuda')
    assert seen == ['cpu', 'cuda'] and (t['difference'] > t['tolerated']).all() and os.environ.get('BEHAVIOUR_SIM_DEVICE') is None

def test_the_card_is_searched_where_faiss_has_one(monkeypatch):
    "Without its wheel for GPUs the note says so, and the processor searches."
    import faiss
    size, moved = SimpleNamespace(vectors=50, queries=5), []
    monkeypatch.setattr(gpu, 'on_card', lambda: True)
    assert type(gpu.searched(size)[0]) is faiss.IndexFlat and 'without CUDA' in gpu.searched(size)[2]
    monkeypatch.setattr(faiss, 'StandardGpuResources', lambda: 'memory', raising=False)
    monkeypatch.setattr(faiss, 'index_cpu_to_gpu', lambda *a: moved.append(a) or 'on the card', raising=False)
    assert gpu.searched(size)[::2] == ('on the card', '') and moved[0][:2] == ('memory', 0)

def test_memory_is_what_torch_held_at_most(monkeypatch):
    import torch
    for name in ('empty_cache', 'reset_peak_memory_stats'): monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: 7e9)
    for card, peak in ((True, 7.), (False, NAN)):
        monkeypatch.setattr(gpu, 'on_card', lambda: card)
        with gpu.memory() as m: pass
        np.testing.assert_equal(m['peak'], peak)


# --- Full size ---

@pytest.mark.parametrize('name, part', [(name, part) for name in (*hub.MODELS, *hub.PIPELINES) for part in full_size._CONFIGS[name]])
def test_at_full_size_the_models_are_the_published_ones(name, part, tmp_path):
    "As many parameters, whatever the tokenizer that is written beside them; made without weights."
    import torch
    tokens = hub.MODELS[name][0](tmp_path) if name in hub.MODELS else dict(vocab_size=900) if part.startswith('text') else {}
    made = hub.random_model(hub.configured(name, part, {}, tokens), 'meta', True)
    with torch.device('meta'): published = full_size._model_of(full_size._CONFIGS[name][part])
    assert full_size._weights(made) == full_size._weights(published) and {p.dtype for p in made.parameters()} == {torch.float16}
    assert torch.get_default_dtype() == torch.float32

def test_full_size_asks_for_no_smaller_model():
    full = gpu.SIZES['full']
    assert full.models == full.lora == full.image == {} and set(vars(full)) == set(vars(gpu.SIZES['tiny'])) and gpu.SECONDS < 600


# --- What is said and kept ---

def tiny_tables():
    fast = pd.DataFrame.from_dict({('captions', 'BLIP-2'): gpu.row('picture', 4, .5, 10, 7.25), ('LoRA, 1024 pixels', 'SDXL'): gpu.row('', NAN, NAN, note='The memory of the GPU is full')}, orient='index')
    return fast.rename_axis(['what', 'model']), pd.DataFrame(dict(difference=[.001], tolerated=[.01]), ['vectors']).rename_axis('what')

@pytest.fixture
def kept(monkeypatch, tmp_path):
    "A repository with no results, and a card; what main sets in the environment is put back."
    import torch
    (tmp_path/'settings.ini').touch(); (tmp_path/'nbs').mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ('HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'BEHAVIOUR_SIM_CACHE', 'BEHAVIOUR_SIM_QUIET'): monkeypatch.setenv(name, os.environ.get(name, ''))
    monkeypatch.setattr(gpu, 'on_card', lambda: True)
    monkeypatch.setattr(gpu, 'bench', lambda name: tiny_tables())
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Card 9000')
    return tmp_path/'nbs'/'results'/'gpu.json'

def test_the_tables_of_a_card_are_kept_and_shown_with_its_name(kept):
    assert 'has not been run' in full_size._gpu_markdown() and not kept.exists()
    gpu.main()
    text = full_size._gpu_markdown()
    assert text.startswith('On one Card 9000:\n\n') and '| captions | BLIP-2 | picture | 4 | 0.05 | 20 | 7.2 |  |' in text and '| vectors | 0.001 | 0.01 |' in text
    assert '| LoRA, 1024 pixels | SDXL |  | – | – | – | – | The memory of the GPU is full |' in text and '`make bench-gpu`' in text

def test_small_models_are_not_kept(kept, monkeypatch, capsys):
    gpu.main('tiny')
    monkeypatch.setattr(gpu, 'on_card', lambda: False)
    gpu.main('full')
    assert not kept.exists() and 'captions' in capsys.readouterr().out

def test_other_results_than_the_processors_fail(kept, monkeypatch):
    fast, same = tiny_tables()
    for wrong in (.02, NAN):
        monkeypatch.setattr(gpu, 'bench', lambda name: (fast, same.assign(difference=wrong)))
        with pytest.raises(SystemExit, match='Not the results of the processor: vectors'): gpu.main('tiny')

def test_without_a_card_it_says_one_sentence(kept, monkeypatch, capsys):
    monkeypatch.setattr(gpu, 'on_card', lambda: False)
    monkeypatch.setattr(gpu, 'bench', lambda name: 1/0)
    gpu.main()
    said = capsys.readouterr().out
    assert said.startswith('There is no GPU') and said.count('\n') == 1 and not kept.exists()
    with pytest.raises(SystemExit, match='choose one of full, tiny'): gpu.main('huge')

def test_the_make_target_runs_it():
    assert 'bench-gpu: setup\n\t$(BIN)/python tests/gpu.py\n' in (ROOT/'Makefile').read_text(encoding='utf-8')
