"""What the models of the paper preset take on a card: `make bench-gpu`, or `python tests/gpu.py full|tiny`.

Weights are random, in the published configurations, in a hub on disk that `hub.py` builds, one repository at a time (15 GB at most). They are loaded, trained and put
to work by the project's own functions. Two tables: seconds and memory at full size, and how far the card's results are from the processor's, at a small size, since a
processor takes hours for the full one. Without a size and without a card nothing is done. `tiny` goes through the same rows with small models on whatever is there, and
keeps nothing; its seconds mean nothing. What has not begun after nine minutes is left out.
"""
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd

import hub

BLOOM, BLIP2, CLIP, MPNET, TURBO, SDXL = 'bigscience/bloom-7b1', 'Salesforce/blip2-opt-2.7b', 'openai/clip-vit-base-patch32', 'sentence-transformers/all-mpnet-base-v2', 'stabilityai/sdxl-turbo', 'stabilityai/stable-diffusion-xl-base-1.0'
SIZES = dict(
    full=SimpleNamespace(models={}, updates=4, lora={}, loop=4, prompts=64, tokens=50, pictures=64, texts=2048, drawn=4, image={}, trees=dict(rows=100_000, columns=400, rounds=200), vectors=100_000, queries=10_000),
    tiny=SimpleNamespace(models=hub.SMALL, updates=2, lora=dict(batch=2, accumulation=1, max_tokens=24), loop=2, prompts=4, tokens=3, pictures=2, texts=6, drawn=1, image=dict(size=64, steps=2),
        trees=dict(rows=200, columns=6, rounds=5), vectors=300, queries=20))
SECONDS = 540


# ---- measuring

def on_card():
    from behaviour_sim.core import pick_device
    return pick_device() == 'cuda'

@contextmanager
def memory():
    "A dict that has the highest number of GB that torch held on the card within the block; NaN on a processor."
    import torch
    held = dict(peak=float('nan'))
    if on_card(): torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    yield held
    if on_card(): held['peak'] = torch.cuda.max_memory_allocated()/1e9

@contextmanager
def timed(module, name):
    "A list of the seconds of each call of a function of a module; what it gives is a number from the card, so it has ended."
    seconds, real = [], getattr(module, name)
    def run(*a, **k):
        begun = time.perf_counter(); out = real(*a, **k)
        seconds.append(time.perf_counter() - begun)
        return out
    with patch.object(module, name, run): yield seconds

def row(unit, at_once, seconds, units=1, peak=float('nan'), note=''):
    "`seconds` for `units`, in passes of `at_once`."
    return {'unit': unit, 'at once': at_once, 'seconds': seconds/units, 'peak, GB': peak, 'note': note}

def quick(unit, at_once, units, work):
    "A row of work that is done twice; the first time warms up."
    with memory() as m:
        work()
        begun = time.perf_counter(); work()
        return row(unit, at_once, time.perf_counter() - begun, units, m['peak'])


# ---- what is put to work

def corpus(folder, n):
    "n synthetic tweets that all have a picture."
    from behaviour_sim.corpus.synthetic import sample_tweets
    t = sample_tweets(3*n, image_dir=folder)
    return t[t['image_path'] != ''].head(n).reset_index(drop=True)

def examples(t):
    "Prompts of the report, no longer than its own tokenizer would make them, and tweets."
    from behaviour_sim.text.prompts import build_prompts
    return [p[-400:] for p in build_prompts(t, 'report')], t['content'].tolist()

def learn_to_write(t, s, size):
    "The losses of the updates, and seconds of each."
    from behaviour_sim.text import bloom_lora
    s = replace(s, max_steps=size.updates, **size.lora)
    with tempfile.TemporaryDirectory() as d, timed(bloom_lora, '_update') as seconds:
        return bloom_lora.finetune(*examples(t), d, s, quiet=True)['train_loss'].to_numpy(), seconds, s

def text_lora(t, size, eight_bit):
    "The report's settings; in half precision they are the card's."
    import importlib.util
    from behaviour_sim.text.bloom_lora import LORA_SETTINGS
    s, note = LORA_SETTINGS['report'], ''
    if not eight_bit: s = replace(s, eight_bit=False, precision='auto')
    elif not importlib.util.find_spec('bitsandbytes'): note = 'bitsandbytes is not installed: in half precision'
    with memory() as m: _, seconds, s = learn_to_write(t, s, size)
    return row(f'update of {s.batch*s.accumulation} tweets', s.batch, float(np.median(seconds[1:])), peak=m['peak'], note=note)

def writing(t, size, batched):
    "Tokens are counted as the model gives them."
    from behaviour_sim.text.generation import report_loop, write_texts
    from behaviour_sim.text.language_models import load_language_model
    lm, tok = load_language_model('bloom-7b1', fast=True)
    prompts, written, batch = (examples(t)[0]*size.prompts)[:size.prompts if batched else size.loop], [], min(32, size.prompts)
    def work():
        written.clear()
        if not batched: return report_loop(prompts, lm, tok, size.tokens, quiet=True)
        return write_texts(prompts, lm, tok, size.tokens, batch, repetition_penalty=1, no_repeat=0, quiet=True)
    hook = lm.register_forward_hook(lambda m, args, out: written.append(out.logits.shape[0]))
    try: found = quick('token', batch if batched else 1, 1, work)
    finally: hook.remove()
    return found | {'seconds': found['seconds']/sum(written)}

def image_settings(preset, size): # Those of the preset, of so few updates
    from behaviour_sim.images.sdxl_lora import IMAGE_SETTINGS
    return replace(IMAGE_SETTINGS[preset], max_steps=size.updates)

def learn_to_draw(t, s):
    "The losses of the updates, and seconds of each."
    from behaviour_sim.images import sdxl_lora
    with tempfile.TemporaryDirectory() as d, timed(sdxl_lora, '_update') as seconds:
        return sdxl_lora.fit_image_lora(t, t['image_path'], s, d, quiet=True)['train_loss'].to_numpy(), seconds

def image_lora(t, size, preset):
    s = image_settings(preset, size)
    with memory() as m: _, seconds = learn_to_draw(t, s)
    return row(f'update of {s.batch*s.accumulation} pictures', s.batch, float(np.median(seconds[1:])), peak=m['peak'])

def drawing(t, size, preset):
    from behaviour_sim.images.models import _batch_for, _image_row, load_pipeline
    from behaviour_sim.images.sdxl_lora import imagine
    pipe, n = load_pipeline(preset, quiet=True), min(size.drawn, len(t))
    return quick('picture', min(n, _batch_for(_image_row(preset)['size'])), n, lambda: imagine(t.head(n), preset, pipe=pipe, quiet=True))

def vectors(t, size, model):
    from behaviour_sim.features.embeddings import ENCODERS, embed
    image = ENCODERS[model].kind == 'image'
    items = t['image_path'].head(size.pictures).tolist() if image else [f"{t['content'][i % len(t)]} {i}" for i in range(size.texts)] # no text twice: it would be computed once
    at_once = 4 if model == BLIP2 else 32 if image else 64
    return quick('picture' if image else 'text', at_once, len(items), lambda: embed(items, model, False, quiet=True))

def table(rows, columns, **_):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, columns)).astype('float32')
    return X, X[:, 0] + X[:, 1]*X[:, 2] + rng.normal(size=rows)

def trees(t, size):
    from behaviour_sim.likes.regressors import XGBoostModel, _xgboost_device
    X, y = table(**size.trees)
    rounds, device = size.trees['rounds'], _xgboost_device()
    note = '' if device == 'cuda' or not on_card() else 'this XGBoost is built without CUDA: on the processor'
    return quick(f'{rounds} rounds on {len(X):,} rows', len(X), 1, lambda: XGBoostModel(rounds=rounds).fit(X, y)) | {'peak, GB': float('nan'), 'note': note}

def searched(size):
    "The index, on the card where this FAISS has one; queries; a note."
    import faiss
    from behaviour_sim.likes.neighbours import build_index
    rng = np.random.default_rng(0)
    V = rng.normal(size=(size.vectors + size.queries, 64)).astype('float32')
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    ix, queries = build_index(V[size.queries:], 'flat'), V[:size.queries]
    if not on_card(): return ix, queries, ''
    if not hasattr(faiss, 'StandardGpuResources'): return ix, queries, 'this FAISS is built without CUDA: on the processor'
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, ix), queries, ''

def neighbours(t, size):
    ix, queries, note = searched(size)
    return quick('query', len(queries), len(queries), lambda: ix.search(queries, 15)) | {'peak, GB': float('nan'), 'note': note}

#: (What, model) → the repository that it takes, and a function of tweets and size that gives a row
ROWS = {
    ('LoRA, 8 bits', 'Bloom-7b1'): (BLOOM, lambda t, z: text_lora(t, z, True)),
    ('LoRA, half precision', 'Bloom-7b1'): (BLOOM, lambda t, z: text_lora(t, z, False)),
    ("writing, the report's loop", 'Bloom-7b1'): (BLOOM, lambda t, z: writing(t, z, False)),
    ('writing, batches', 'Bloom-7b1'): (BLOOM, lambda t, z: writing(t, z, True)),
    ('LoRA, 512 pixels', 'SDXL-Turbo'): (TURBO, lambda t, z: image_lora(t, z, 'report')),
    ('drawing, 512 pixels', 'SDXL-Turbo'): (TURBO, lambda t, z: drawing(t, z, 'report')),
    ('LoRA, 1024 pixels', 'SDXL'): (SDXL, lambda t, z: image_lora(t, z, 'sdxl')),
    ('captions', 'BLIP-2'): (BLIP2, lambda t, z: vectors(t, z, BLIP2)),
    ('vectors of pictures', 'CLIP'): (CLIP, lambda t, z: vectors(t, z, CLIP)),
    ('vectors of texts', 'MPNet'): (MPNET, lambda t, z: vectors(t, z, MPNET)),
    ('trees', 'XGBoost'): (None, trees), ('nearest neighbours', 'FAISS'): (None, neighbours)}

def forget():
    "What the package keeps loaded."
    import gc
    from behaviour_sim.features import captioning, embeddings
    for f in (embeddings._loaded_encoder, captioning._blip2_parts): f.cache_clear()
    gc.collect()

def speed(size, cache, t, end):
    "A row for each of `ROWS`; one that does not fit, or has no time left, has a note instead of figures."
    from behaviour_sim.core import BadInput, pick_device
    found, built = {}, None
    for key, (repository, work) in ROWS.items():
        print(f'{key[0]}: {key[1]} …', file=sys.stderr, flush=True)
        if time.monotonic() > end: found[key] = row('', float('nan'), float('nan'), note='left out: no time was left'); continue
        if repository not in (None, built):
            forget(); shutil.rmtree(cache, ignore_errors=True)
            hub.build(cache, [built := repository], size.models, pick_device())
        forget()
        try: found[key] = work(t, size)
        except BadInput as e: found[key] = row('', float('nan'), float('nan'), note=str(e))
    return pd.DataFrame.from_dict(found, orient='index').rename_axis(['what', 'model'])


# ---- the same results as on the processor

def far(a, b): # Relative to the processor's, which come first
    a, b = (np.asarray(x, float).ravel() for x in (a, b))
    return float(np.linalg.norm(a - b)/np.linalg.norm(a))

def differ(a, b): return float(np.mean(np.asarray(a) != np.asarray(b)))

def same_vectors(model, column, n):
    def work(t, z):
        from behaviour_sim.features.embeddings import embed
        return embed(t[column].head(n).tolist(), model, False, quiet=True)
    return work

def caption_scores(t, z):
    "Of the first word, by every picture."
    import torch
    from behaviour_sim.core import pick_device
    from behaviour_sim.features.captioning import _blip2_parts
    from behaviour_sim.features.embeddings import _picture
    m, tok, prepare = _blip2_parts(BLIP2)
    m.eval().to(pick_device())
    ids = torch.tensor([[m.config.image_token_id]*m.config.num_query_tokens + list(tok('a photo of').input_ids)]*4).to(m.device)
    x = prepare([_picture(p) for p in t['image_path'][:4]]).to(m.device, m.dtype)
    with torch.inference_mode(): return m(pixel_values=x, input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1].float().cpu().numpy()

def likelihoods(t, z):
    from behaviour_sim.text.bloom_lora import _log_likelihood
    from behaviour_sim.text.language_models import load_language_model
    return _log_likelihood(*(x[:8] for x in examples(t)), *load_language_model('bloom-7b1'), batch=4)

def text_losses(t, z):
    from behaviour_sim.text.bloom_lora import LORA_SETTINGS
    return learn_to_write(t, replace(LORA_SETTINGS['report'], eight_bit=False, precision='fp32', dropout=0.), z)[0]

def image_losses(t, z): return learn_to_draw(t, replace(image_settings('report', z), precision='no'))[0]

def pictures(t, z):
    from behaviour_sim.images.models import load_pipeline
    from behaviour_sim.images.sdxl_lora import imagine
    return np.array([np.asarray(p, float) for p in imagine(t.head(2), 'report', pipe=load_pipeline('report', precision='no', quiet=True), quiet=True)])/255

def predictions(t, z):
    "Without random rows and columns: each device draws its own."
    from behaviour_sim.likes.regressors import XGBoostModel
    X, y = table(2000, 10)
    return XGBoostModel(dict(max_depth=6, learning_rate=.1), rounds=30).fit(X, y).predict(X)

def nearest(t, z):
    ix, queries, _ = searched(SimpleNamespace(vectors=2000, queries=100))
    return ix.search(queries, 15)[1]

def loop_and_batch(t, z):
    "The same texts from the loop and from batches, in 32 bits."
    from behaviour_sim.text.generation import report_loop, write_texts
    from behaviour_sim.text.language_models import load_language_model
    lm, tok = load_language_model('bloom-7b1')
    lm.float()
    prompts = examples(t)[0][:8]
    return report_loop(prompts, lm, tok, 12, quiet=True), write_texts(prompts, lm, tok, 12, 4, repetition_penalty=1, no_repeat=0, quiet=True)

#: What → the result on the device that is asked for, the difference of two results, and the largest that is tolerated
SAME = {
    'vectors of texts: MPNet': (same_vectors(MPNET, 'content', 20), far, .03), 'vectors of pictures: CLIP': (same_vectors(CLIP, 'image_path', 6), far, .03), 'scores of captions: BLIP-2': (caption_scores, far, .05),
    'log-likelihood of tweets: Bloom': (likelihoods, far, .01), 'losses of the LoRA: Bloom': (text_losses, far, .01), 'losses of the LoRA: SDXL-Turbo': (image_losses, far, .02),
    'pictures: SDXL-Turbo': (pictures, far, .05), 'predictions of trees: XGBoost': (predictions, far, .02), 'nearest neighbours: FAISS': (nearest, differ, .01)}

def compared(size, t, device):
    "A row for each of `SAME`, and one for the loop beside batches on the device: the difference, and what is tolerated."
    rows = {}
    def on(device, work):
        forget()
        with patch.dict(os.environ, BEHAVIOUR_SIM_DEVICE=device): return work(t, size)
    for what, (work, difference, most) in SAME.items():
        print(f'{what} …', file=sys.stderr, flush=True)
        rows[what] = (difference(on('cpu', work), on(device, work)), most)
    rows['texts, batches beside the loop: Bloom'] = (differ(*on(device, loop_and_batch)), .1)
    return pd.DataFrame.from_dict(rows, orient='index', columns=['difference', 'tolerated']).rename_axis('what')


def bench(name):
    "Both tables: speed and memory of a size, and the differences at the small one."
    from behaviour_sim.core import pick_device
    from behaviour_sim.images.models import IMAGE_PRESETS
    from behaviour_sim.text.language_models import _quiet_libraries
    begun, size, tiny = time.monotonic(), SIZES[name], SIZES['tiny']
    small = {k: IMAGE_PRESETS[k] | tiny.image for k in ('report', 'sdxl')}
    cache = Path(os.environ['HF_HUB_CACHE'])
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings(), _quiet_libraries('diffusers'):
        warnings.simplefilter('ignore')
        t = corpus(Path(d)/'pictures', max(40, size.pictures))
        hub.build(cache, [BLOOM, BLIP2, CLIP, MPNET, TURBO])
        with patch.dict(IMAGE_PRESETS, small): same = compared(tiny, t, pick_device())
        with patch.dict(IMAGE_PRESETS, {k: IMAGE_PRESETS[k] | size.image for k in small}): return speed(size, cache, t, begun + SECONDS), same

def main(name=None):
    if name not in (None, *SIZES): sys.exit(f'{name}: choose one of {", ".join(SIZES)}')
    with tempfile.TemporaryDirectory() as d:
        os.environ.update(HF_HUB_CACHE=str(Path(d)/'hub'), HF_HUB_OFFLINE='1', BEHAVIOUR_SIM_CACHE=str(Path(d)/'cache'), BEHAVIOUR_SIM_QUIET='1') # before the libraries read them
        if name is None and not on_card():
            print('There is no GPU that torch can use here, so nothing is measured; `python tests/gpu.py tiny` does the same with small models on the processor.')
            return
        name = name or 'full'
        import torch
        from behaviour_sim.bench.likes_quality import _keep, _show
        fast, same = bench(name)
        card = torch.cuda.get_device_name() if on_card() else 'the processor'
        for title, t in (('On a card', fast.assign(card=card)), ('Beside the processor', same)):
            if name == 'full' and on_card(): _keep('gpu', title, t, 'make bench-gpu')
            else: _show(title, t)
        wrong = same.index[~(same['difference'] <= same['tolerated'])]
        if len(wrong): sys.exit(f'Not the results of the processor: {", ".join(wrong)}')


if __name__ == '__main__':
    main(*sys.argv[1:])
