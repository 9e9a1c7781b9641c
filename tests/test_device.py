"""Where models run, in which precision, and what is said where a card has no room. The card is simulated: what goes to it is noted, and stays on the processor."""
import inspect
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from behaviour_sim import presets, weights
from behaviour_sim.core import BadInput, _asked_device
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.features import captioning, embeddings
from behaviour_sim.features.captioning import caption, caption_folder
from behaviour_sim.features.embeddings import embed
from behaviour_sim.likes import regressors
from behaviour_sim.likes.regressors import XGBoostModel
from behaviour_sim.text import bloom_lora, generation, language_models
from behaviour_sim.text.bloom_lora import LORA_SETTINGS, finetune
from behaviour_sim.text.generation import report_loop, write_texts
from behaviour_sim.text.language_models import load_language_model

torch = pytest.importorskip('torch')
FULL = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')


@pytest.fixture
def card(monkeypatch, tmp_path):
    "A card that computes in bfloat16. The list of what went where: 'cuda' or 'cpu'."
    went, module_to, tensor_to = [], torch.nn.Module.to, torch.Tensor.to
    def here(x):
        if not isinstance(x, (str, torch.device)): return x
        went.append(torch.device(x).type)
        return 'cpu' if went[-1] == 'cuda' else x
    def moved(to): return lambda self, *a, **k: to(self, *map(here, a), **{n: here(x) for n, x in k.items()})
    monkeypatch.setattr(torch.nn.Module, 'to', moved(module_to))
    monkeypatch.setattr(torch.Tensor, 'to', moved(tensor_to))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *_: True)
    for f in (embeddings._loaded_encoder, captioning._blip2_parts, regressors._xgboost_device): f.cache_clear()
    monkeypatch.delenv('BEHAVIOUR_SIM_DEVICE', raising=False)
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(tmp_path/'cache'))
    yield went
    for f in (embeddings._loaded_encoder, captioning._blip2_parts, regressors._xgboost_device): f.cache_clear()

@pytest.fixture(scope='module')
def tweets(tmp_path_factory):
    t = sample_tweets(60, image_dir=tmp_path_factory.mktemp('pictures')).drop(columns='caption')
    return t[t['image_path'] != ''].head(4).reset_index(drop=True)

@pytest.fixture(scope='module')
def base():
    "A pipeline with random weights."
    pytest.importorskip('diffusers')
    from behaviour_sim.images.models import IMAGE_PRESETS, _bare_pipeline
    pipe = _bare_pipeline(IMAGE_PRESETS['tiny'])
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- Every way in ---

TINY = replace(LORA_SETTINGS['tiny'], max_steps=1, batch=2)
def picture(red=0): return Image.fromarray(np.full((40, 50, 3), red, 'uint8'))

def caption_a_folder(tweets, place, **kw):
    (folder := place/'pictures').mkdir(exist_ok=True)
    n = len(list(folder.iterdir()))
    picture(n).save(folder/f'{n}.png') # a new one each time: vectors are kept
    caption_folder(folder, replace(presets._preset_of('tiny'), captioner='tiny-blip2'), quiet=True, **kw)

def image_model(tweets, place, **kw):
    from behaviour_sim.images.sdxl_lora import IMAGE_SETTINGS, fit_image_lora
    s = replace(IMAGE_SETTINGS['tiny'], max_steps=1, batch=1, evaluate_every=2)
    fit_image_lora(tweets, tweets['image_path'], s, place/'i', quiet=True, **kw)

def pipeline(tweets, place, **kw):
    from behaviour_sim.images.models import load_pipeline
    load_pipeline('tiny', quiet=True, **kw)

def drawing(tweets, place, **kw):
    from behaviour_sim.images.sdxl_lora import imagine
    imagine(tweets.head(1), 'tiny', quiet=True, **kw)

#: Name → a call, with `device` or without.
ENTRIES = {
    'a text': lambda t, place, **kw: embed(['one', 'two three'], 'tiny-distilbert', False, quiet=True, **kw),
    'a picture': lambda t, place, **kw: embed([picture()], 'tiny-clip', False, quiet=True, **kw),
    'a caption': lambda t, place, **kw: caption(t, 'tiny-blip2', cache=False, quiet=True, **kw),
    'a folder of pictures': caption_a_folder,
    'a language model': lambda t, place, **kw: load_language_model('tiny-bloom', **kw),
    'its LoRA': lambda t, place, **kw: finetune(['a', 'b'], ['one', 'two'], place, TINY, quiet=True, **kw),
    'an image model': pipeline, 'a drawing': drawing,
}

@pytest.fixture
def no_weights(monkeypatch, base):
    "The image model is the one with random weights."
    from behaviour_sim.images import models
    monkeypatch.setattr(models, '_pipeline', lambda *_: base)
    monkeypatch.setattr(models, '_small_pipeline', lambda *_: None)

@pytest.mark.parametrize('entry', ENTRIES)
def test_a_model_goes_where_it_is_asked_to(entry, card, tweets, tmp_path, no_weights, monkeypatch):
    "By the argument, which wins, or by the environment; without either to the card. Weights that were loaded for one are not taken to the other."
    def where(**kw):
        card.clear()
        ENTRIES[entry](tweets, tmp_path, **kw)
        return set(card) & {'cuda'}
    assert where() == where(device='cuda') == {'cuda'} and where(device='cpu') == set()
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', 'cpu')
    assert where() == set() and where(device='cuda') == {'cuda'} and where() == set()
    assert 'device' in inspect.signature(embed).parameters and _asked_device() == 'cpu'

@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('how', ['argument', 'environment'])
def test_a_wrong_name_is_one_sentence(entry, how, tweets, tmp_path, no_weights, monkeypatch):
    if how == 'environment': monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', 'gpu')
    with pytest.raises(BadInput, match=r"^There is no device 'gpu'; choose one of cuda, mps, cpu$"):
        ENTRIES[entry](tweets, tmp_path, **dict(device='gpu') if how == 'argument' else {})

def test_a_card_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(BadInput, match="^There is no usable device 'cuda'; choose one of .*cpu$"): embed(['a'], 'tiny-distilbert', False, device='cuda')

def test_the_image_lora_is_prepared_for_the_device(card, tweets, tmp_path, no_weights, monkeypatch):
    "accelerate chooses its device itself, but for the processor."
    import accelerate
    asked = []
    class Stop(Exception): pass
    def accelerator(**kw): asked.append((kw['cpu'], kw['mixed_precision'])); raise Stop
    monkeypatch.setattr(accelerate, 'Accelerator', accelerator)
    for device in (None, 'cuda', 'cpu'):
        with pytest.raises(Stop): image_model(tweets, tmp_path, device=device)
    assert asked == [(False, 'no'), (False, 'no'), (True, 'no')]

def test_threads_know_the_device(card, monkeypatch):
    "Those that embed batches side by side on a processor, beside an idle card."
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    embed([str(i) for i in range(40)], 'tiny-distilbert', False, batch_size=4, quiet=True, device='cpu')
    assert 'cuda' not in card

def test_workers_of_ray_are_told_the_device(card, monkeypatch):
    "A process of its own knows neither the argument nor what was set after it began. Ray is simulated here: the worker is made and called in this process."
    import sys
    from types import SimpleNamespace
    from behaviour_sim.scale import ray_data
    class Data:
        def __init__(self, rows): self.rows = rows
        def map(self, f, fn_constructor_args, **_): self.f = f(*fn_constructor_args); return self
        def iter_rows(self): return map(self.f, self.rows)
    ray = SimpleNamespace(data=SimpleNamespace(from_items=lambda rows, **_: Data(rows)), cluster_resources=lambda: {'CPU': 1})
    monkeypatch.setitem(sys.modules, 'ray', ray)
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', '')
    monkeypatch.setattr(embeddings, '_ENGINES', [*embeddings._ENGINES, ray_data._encode_on_ray])
    texts = [str(i) for i in range(20)]
    there = embed(texts, 'tiny-distilbert', False, batch_size=4, quiet=True, device='cpu')
    assert 'cuda' not in card and os.environ['BEHAVIOUR_SIM_DEVICE'] == 'cpu' and np.abs(there).sum(1).all()

@pytest.mark.parametrize('device, wanted', [(None, 'cuda'), ('cuda', 'cuda'), ('cpu', 'cpu'), ('mps', 'cpu')])
def test_trees_grow_where_they_are_asked_to(monkeypatch, device, wanted):
    "A card that XGBoost can use is simulated; its own `device` wins."
    import xgboost
    seen, train = [], xgboost.train
    class Made:
        def save_config(self): return '{"learner": {"generic_param": {"device": "cuda:0"}}}'
    def noted(params, data, *a, **kw):
        if not kw: return Made() # the question whether there is a card
        seen.append(params['device'])
        return train(params | dict(device='cpu'), data, *a, **kw)
    monkeypatch.setattr(xgboost, 'build_info', lambda: dict(USE_CUDA=True))
    monkeypatch.setattr(xgboost, 'train', noted)
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', device or '')
    regressors._xgboost_device.cache_clear()
    X = np.arange(40.).reshape(20, 2)
    try:
        XGBoostModel(rounds=2).fit(X, X[:, 0])
        XGBoostModel(dict(device='cpu'), rounds=2).fit(X, X[:, 0])
    finally: regressors._xgboost_device.cache_clear()
    assert seen == [wanted, 'cpu']


# --- Precision ---

@pytest.mark.parametrize('bf16, half', [(True, torch.bfloat16), (False, torch.float16)])
def test_half_precision_is_what_the_card_can_do(card, bf16, half, monkeypatch):
    "Emulated bfloat16 does not count: torch is asked without it. Gradients are scaled in fp16 only."
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda emulated=True: bf16 or emulated)
    loaded = []
    monkeypatch.setattr(captioning, '_from_hub', lambda name, cls, **kw: loaded.append(kw.get('dtype')))
    monkeypatch.setattr(captioning, '_by_processor', lambda p: p)
    captioning._blip2_parts('Salesforce/blip2-opt-2.7b')
    assert loaded[0] is half and language_models._dtype_for(torch.nn.Linear(2, 2), True) is half
    assert [bloom_lora._autocast_dtype(p) for p in ('auto', 'bf16', 'fp16', 'fp32')] == [half, half, torch.float16, None]
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda enabled: enabled)
    assert [bloom_lora._grad_scaler(replace(TINY, precision=p)) for p in ('auto', 'fp16', 'fp32')] == [not bf16, True, False]
    assert [weights._mixed_precision(p) for p in ('auto', 'no')] == ['bf16' if bf16 else 'fp16', 'no']

def test_a_pipeline_is_loaded_in_the_precision_of_the_card(card, monkeypatch):
    diffusers = pytest.importorskip('diffusers')
    from behaviour_sim.images import models
    asked = []
    monkeypatch.setattr(diffusers.StableDiffusionXLPipeline, 'from_pretrained', lambda place, dtype, **kw: asked.append(dtype))
    for precision in (None, 'auto', 'fp16', 'no'): models._pipeline({}, 'nowhere', precision)
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', 'cpu')
    models._pipeline({}, 'nowhere', None)
    assert asked == [torch.bfloat16, torch.bfloat16, torch.float16, torch.float32, torch.float32]

def test_on_the_processor_precision_is_as_before(monkeypatch):
    "float32, or bfloat16 where it is multiplied in hardware and half precision was asked for."
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', 'cpu')
    for fast in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(bloom_lora, '_fast_dtype', lambda: fast)
        auto = None if fast == torch.float32 else fast
        assert [bloom_lora._autocast_dtype(p) for p in ('auto', 'bf16', 'fp16', 'fp32')] == [auto, torch.bfloat16, torch.bfloat16, None]
    assert [weights._mixed_precision(p) for p in ('auto', 'fp16', 'bf16', 'no')] == ['no', 'no', 'bf16', 'no']

def test_eight_bits_stay_off_a_card_that_is_not_wanted(card, monkeypatch):
    import transformers
    monkeypatch.setattr(language_models.importlib.util, 'find_spec', lambda name: True)
    monkeypatch.setattr(transformers, 'BitsAndBytesConfig', lambda **kw: kw)
    assert language_models._eight_bits()['device_map'] == 'auto'
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', 'cpu')
    assert language_models._eight_bits()['device_map'] == {'': 'cpu'}


# --- No room ---

def full(*_, **__): raise FULL

class _Big(torch.nn.Linear):
    def to(self, *_): raise FULL

class _Encoder:
    kind, name, version, dim = 'text', 'big', '1', 3
    def encode(self, texts): raise FULL

def small_lm(): return load_language_model('tiny-bloom')

def no_room(kind, tweets, place, monkeypatch):
    "A call that fills the card."
    if kind == 'embed': embed(['a'], _Encoder(), False, quiet=True)
    elif kind == 'caption':
        monkeypatch.setattr(captioning, '_blip2_parts', full)
        caption(tweets, 'tiny-blip2', cache=False, quiet=True)
    elif kind == 'load_language_model':
        monkeypatch.setattr(language_models, '_base_language_model', lambda *_: (_Big(2, 2), None))
        load_language_model('bloom-7b1')
    elif kind == 'finetune':
        monkeypatch.setattr(bloom_lora, '_losses', full)
        finetune(['a'], ['b'], place, TINY, quiet=True)
    elif kind == 'write_texts':
        lm = small_lm()
        monkeypatch.setattr(generation, '_grow', full)
        write_texts(['a'], *lm, quiet=True)
    elif kind == 'report_loop':
        lm, tok = small_lm()
        monkeypatch.setattr(type(lm), 'generate', full)
        report_loop(['a'], lm, tok, quiet=True)
    elif kind == 'load_pipeline':
        from behaviour_sim.images import models
        monkeypatch.setattr(models, '_pipeline', full)
        pipeline(tweets, place)
    elif kind in ('fit_image_lora', 'imagine'):
        from behaviour_sim.images import sdxl_lora
        monkeypatch.setattr(sdxl_lora, '_denoising_errors' if kind == 'fit_image_lora' else '_draw', full)
        (image_model if kind == 'fit_image_lora' else drawing)(tweets, place)
    else:
        import xgboost
        def train(*_, **__): raise xgboost.core.XGBoostError('std::bad_alloc: cudaErrorMemoryAllocation: out of memory')
        monkeypatch.setattr(xgboost, 'train', train)
        XGBoostModel(rounds=2).fit(np.eye(4), np.arange(4.))

SETTINGS = {'embed': 'smaller model or preset', 'caption': 'smaller model or preset', 'load_language_model': 'eight_bit', 'finetune': 'lower batch or max_tokens', 'write_texts': 'lower batch or max_new_tokens',
    'report_loop': 'lower max_new_tokens', 'load_pipeline': 'smaller preset', 'fit_image_lora': 'lower batch .* smaller pictures', 'imagine': 'lower batch, .* smaller pictures', 'XGBoost': 'max_depth or max_bin'}

@pytest.mark.parametrize('kind', SETTINGS)
def test_a_full_card_is_one_sentence_that_names_what_to_lower(kind, tweets, tmp_path, no_weights, monkeypatch):
    with pytest.raises(BadInput, match=f'^The memory of the GPU is full; .*{SETTINGS[kind]}.*, or set BEHAVIOUR_SIM_DEVICE=cpu$') as e: no_room(kind, tweets, tmp_path, monkeypatch)
    assert '\n' not in str(e.value) and e.value.__cause__ is not None

def test_another_error_stays_what_it_is(monkeypatch):
    monkeypatch.setattr(bloom_lora, '_losses', lambda *_: 1/0)
    with pytest.raises(ZeroDivisionError): finetune(['a'], ['b'], 'nowhere', TINY, quiet=True)

@pytest.mark.parametrize('env, said', [('', 'behaviour-sim: The memory of the GPU is full; lower batch or max_tokens'), ('tpu', "behaviour-sim: There is no device 'tpu'; choose one of cuda, mps, cpu")])
def test_the_command_line_says_it_and_exits_with_2(env, said, tmp_path, monkeypatch, capsys):
    from behaviour_sim.apps.cli import main
    from behaviour_sim.data.tweets import write_tweets
    write_tweets(sample_tweets(40), tmp_path/'t.csv')
    monkeypatch.setenv('BEHAVIOUR_SIM_DEVICE', env)
    monkeypatch.setattr(bloom_lora, '_losses', full)
    with pytest.raises(SystemExit) as e: main(['fit-content', str(tmp_path/'t.csv'), '--model', str(tmp_path/'w'), '--preset', 'tiny'])
    err = capsys.readouterr().err.strip()
    assert e.value.code == 2 and err.splitlines()[-1].startswith(said) and 'Traceback' not in err and not (tmp_path/'w').exists()
