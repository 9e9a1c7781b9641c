"""Mutated pictures, tables, cards and requests: `make fuzz`, or `python tests/fuzz.py SECONDS [SEED]`.

Each input is made of a whole one by a random generator with a number of its own, so a finding is repeated by its kind and number:
`python tests/fuzz.py picture 123`. What is held: the input is read, or refused with `BadInput` in one sentence; nothing else is raised."""
import io
import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from behaviour_sim.apps.app import _read_form
from behaviour_sim.apps.app_session import _checked_draft
from behaviour_sim.core import BadInput
from behaviour_sim.data.tweets import read_tweets
from behaviour_sim.model_directories import _read_parts, _write_parts
from behaviour_sim.picture_files import open_picture

BYTES = [0, 1, 127, 128, 255]
WORDS = [b'', b'\0', b'\xff\xd8\xff', b'NaN', b'1e999', b'-1', b'[' * 5000, b'{"a":' * 2000, b'"', b'\r\n', b',' * 300, b'\xed\xa0\x80', '\u202e'.encode(), b'9' * 400, b'PK\x03\x04', b'\x1b[31m']


def pictures():
    "Whole pictures in the formats and modes that are read."
    a = np.random.default_rng(0).integers(0, 255, (24, 31, 3), dtype='uint8')
    im = Image.fromarray(a)
    for mode, format, more in [('RGB', 'JPEG', {}), ('RGB', 'JPEG', dict(progressive=True)), ('CMYK', 'JPEG', {}), ('L', 'JPEG', {}), ('RGB', 'PNG', {}), ('RGBA', 'PNG', {}), ('P', 'PNG', dict(transparency=0)), ('1', 'PNG', {}), ('I;16', 'PNG', {}),
                               ('P', 'GIF', dict(save_all=True, append_images=[im.convert('P')] * 2)), ('RGB', 'WEBP', {}), ('RGBA', 'WEBP', dict(lossless=True)), ('RGB', 'BMP', {}), ('RGB', 'TIFF', {}), ('F', 'TIFF', {}), ('RGB', 'TIFF', dict(compression='tiff_lzw'))]:
        f = io.BytesIO()
        (Image.fromarray(a[..., 0].astype('uint16') * 257) if mode == 'I;16' else im.convert(mode)).save(f, format, **more)
        yield f.getvalue()


def tables():
    "Whole tables: (suffix, bytes)."
    t = pd.DataFrame({'id': ['1', '2', '3'], 'date': ['2020-05-06 09:00:00', '2020-05-07', '2021-01-01T00:00:00Z'], 'likes': [1, 20, 300], 'content': ['a "quoted" text, with a comma', 'two\nlines', 'caf\u00e9 \U0001f375'],
                      'username': ['a', 'b', 'c'], 'media': ['[]', "[Photo(previewUrl='https://e.example/a', fullUrl='https://e.example/b')]", ''], 'inferred company': ['x', 'x', 'y'], 'upload_lag': ['1', 'x', '']})
    yield '.csv', t.to_csv(index=False).encode()
    for suffix, write in (('.xlsx', lambda f: t.to_excel(f, index=False)), ('.parquet', lambda f: t.to_parquet(f))):
        f = io.BytesIO(); write(f)
        yield suffix, f.getvalue()


def cards():
    "The card of a small model."
    with tempfile.TemporaryDirectory() as d:
        _write_parts(d, 'Note', dict(rounds=3, gain=.1, names=['a', 'b']), {'note.txt': b'x'})
        yield Path(d, 'model.json').read_bytes()


def requests():
    draft = dict(company='brackenlow', username='Brackenlow', content='Win two tickets', date='2020-05-06T09:00', media='photo', caption='', picture='0'*32 + '.jpg')
    yield json.dumps(draft).encode()
    yield json.dumps(draft | dict(picture='')).encode()


def mutated(data, rng):
    "One to eight changes: bytes, pieces left out, doubled or put elsewhere, and what parsers dislike."
    data = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        n = len(data) or 1
        at, size = rng.randrange(n), rng.choice([1, 1, 2, 4, 16, n//4])
        match rng.randrange(6):
            case 0 | 1: data[at:at + 1] = bytes([rng.choice(BYTES) if rng.random() < .5 else rng.randrange(256)])
            case 2: del data[at:at + size]
            case 3: data[at:at] = data[at:at + size]
            case 4: data[at:at] = rng.choice(WORDS)
            case 5: data = data[:at + 1] if rng.random() < .3 else data
    return bytes(data)


def read_picture(data): open_picture(data)

def read_table(pair):
    with tempfile.TemporaryDirectory() as d:
        (p := Path(d, 't' + pair[0])).write_bytes(pair[1])
        read_tweets(p)

def read_card(data):
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'model.json').write_bytes(data); Path(d, 'note.txt').write_bytes(b'x')
        _read_parts(d)

def read_request(data): _checked_draft(_read_form(data), Path('.'))


KINDS = dict(picture=(pictures, read_picture), table=(tables, read_table), card=(cards, read_card), request=(requests, read_request))
SEEDS = {kind: list(make()) for kind, (make, _) in KINDS.items()}


def attempt(kind, number):
    "'read' or 'refused'; whatever else happens is raised."
    rng = random.Random(f'{kind} {number}')
    whole = rng.choice(SEEDS[kind])
    data = (whole[0], mutated(whole[1], rng)) if kind == 'table' else mutated(whole, rng)
    try: KINDS[kind][1](data)
    except BadInput as e:
        assert '\n' not in str(e) and str(e).isprintable(), f'not one printable sentence: {str(e)[:200]!r}'
        return 'refused'
    return 'read'


def fuzz(seconds, seed=0):
    "Kind → counts; findings are printed as they come."
    counts, end, number = {k: dict(read=0, refused=0, found=0, slow=0.) for k in KINDS}, time.monotonic() + seconds, seed * 10**9
    while time.monotonic() < end:
        number += 1
        for kind, c in counts.items():
            start = time.monotonic()
            try: c[attempt(kind, number)] += 1
            except Exception as e:
                c['found'] += 1
                print(f'{kind} {number}: {type(e).__name__}: {str(e)[:200]!a}', flush=True)
            c['slow'] = max(c['slow'], time.monotonic() - start)
    return counts


def main(first='7200', second=0):
    warnings.simplefilter('ignore')
    if first in KINDS: return print(attempt(first, int(second)))
    counts = fuzz(float(first), int(second))
    print('| | tried | read | refused | found | longest, s |\n|---|---|---|---|---|---|')
    for kind, c in counts.items():
        print(f"| {kind}s | {c['read'] + c['refused'] + c['found']:,} | {c['read']:,} | {c['refused']:,} | {c['found']:,} | {c['slow']:.2f} |")
    sys.exit(any(c['found'] for c in counts.values()))


if __name__ == '__main__':
    main(*sys.argv[1:])
