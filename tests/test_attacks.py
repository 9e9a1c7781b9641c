"""Inputs that somebody made who had not seen the guards: section → name → what goes in and what must come out.

Each is refused in one sentence that holds the words that stand beside it, or read as the value there. `SECURITY.md` counts them."""
import io
import json
import os
import shutil
import socket
import struct
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from behaviour_sim.apps.app_session import AppSession
from behaviour_sim.apps.terminal import _printable
from behaviour_sim.core import BadInput, cache_dir, content_key
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.media import media_table, parse_media
from behaviour_sim.data.tweets import read_tweets, write_tweets
from behaviour_sim.features import embeddings, manifest
from behaviour_sim.features.embeddings import embed
from behaviour_sim.features.manifest import Manifest, _made_once
from behaviour_sim.likes.updates import LikesSimulator
from behaviour_sim.picture_files import open_picture
from test_app import served
from test_cli import told
from test_crash import contents
from test_model_directories import sign


def one_sentence(e, words):
    "Printable, on one line, and about what is wrong."
    said = str(e)
    assert said.isprintable() and len(said) < 600 and words in said, said


# --- Tables ---

HEAD = 'id,date,likes,content,username,media,inferred company'
ROW = dict(id='1', date='2020-05-06 09:00:00', likes='3', content='tea', username='Acme', media='[]', company='acme')


def csv_row(**new):
    "A file of one row, a cell of which is odd."
    quoted = ['"%s"' % v.replace('"', '""') for v in (ROW | new).values()]
    return '.csv', (HEAD + '\n' + ','.join(quoted) + '\n').encode('utf-8', 'surrogatepass')


def frame(**new):
    t = pd.DataFrame({'id': ['1', '2'], 'date': pd.to_datetime(['2020-05-06', '2020-05-07']), 'likes': [3., 4.], 'content': ['a', 'b'], 'username': ['Acme', 'Acme'], 'media': ['[]', '[]'], 'inferred company': ['acme', 'acme']})
    return t.assign(**new)


def parquet(t, **kwargs):
    f = io.BytesIO(); t.to_parquet(f, **kwargs)
    return '.parquet', f.getvalue()


def workbook(edit=lambda sheet, book: None):
    import openpyxl
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(HEAD.split(',')); sheet.append(list(ROW.values()))
    edit(sheet, book)
    f = io.BytesIO(); book.save(f)
    return '.xlsx', f.getvalue()


def set_cell(at, value): return lambda sheet, book: sheet.__setitem__(at, value)

def lists(values):
    import pyarrow as pa, pyarrow.parquet as pq
    f = io.BytesIO(); pq.write_table(pa.Table.from_pandas(frame()).set_column(3, 'content', pa.array(values)), f)
    return '.parquet', f.getvalue()


text = lambda s: ('.csv', s.encode())
of = lambda c: lambda t: t[c].iloc[0]
TABLES = {
    'a date that the month lacks': (csv_row(date='2020-02-30'), "'2020-02-30' is not a date"),
    'month 13': (csv_row(date='2020-13-01'), 'is not a date'),
    'hour 25': (csv_row(date='2020-01-01T25:00'), 'is not a date'),
    'a minute of 99': (csv_row(date='2020-01-01 10:99'), 'is not a date'),
    'a zone of 99 hours': (csv_row(date='2020-01-01T10:00+99:00'), 'is not a date'),
    'the year 0': (csv_row(date='0000-01-01'), 'not in the years'),
    'the year 9999': (csv_row(date='9999-12-31'), 'not in the years'),
    'digits of another script': (csv_row(date='２０２０-01-01'), 'is not a date'),
    'one digit a month': (csv_row(date='2020-1-1'), 'is not a date'),
    'a date without signs': (csv_row(date='20200101'), 'is not a date'),
    'a week': (csv_row(date='2020-W10-1'), 'is not a date'),
    'nanoseconds': (csv_row(date='2020-01-01T00:00:00.123456789'), lambda t: t['date'][0] == pd.Timestamp('2020-01-01 00:00:00.123456')),
    'a zone east of all': (csv_row(date='2020-01-01T00:00:00+14:00'), lambda t: t['date'][0] == pd.Timestamp('2019-12-31 10:00')),
    'a blank that is none around a date': (csv_row(date='\u00a02020-01-01\u00a0'), lambda t: t['date'][0] == pd.Timestamp('2020-01-01')),
    'two dates': (csv_row(date='2020-01-01 2020-01-02'), 'is not a date'),
    'a date with a formula': (csv_row(date='=NOW()'), 'is not a date'),
    'likes with an exponent': (csv_row(likes='1e3'), lambda t: t['likes'][0] == 1000),
    'likes beyond all numbers': (csv_row(likes='1e400'), 'not finite'),
    'hexadecimal likes': (csv_row(likes='0x10'), 'is not a number'),
    'likes with underscores': (csv_row(likes='1_000'), 'is not a number'),
    'true likes': (csv_row(likes='True'), 'is not a number'),
    'likes in a currency': (csv_row(likes='$5'), 'is not a number'),
    'complex likes': (csv_row(likes='1+2j'), 'is not a number'),
    'the sign of infinity': (csv_row(likes='∞'), 'is not a number'),
    'minus infinity': (csv_row(likes='-inf'), 'not finite'),
    'minus nothing': (csv_row(likes='-0'), lambda t: t['likes'][0] == 0),
    'more likes than people': (csv_row(likes='99999999999'), 'more than a post can have'),
    'blanks for an account': (csv_row(username=' \u00a0\u3000'), 'the cell is empty'),
    'a tab for a company': (csv_row(company='\t'), 'the cell is empty'),
    'an account called nan': (csv_row(username='nan'), lambda t: t['username'][0] == 'nan'),
    'a company called NULL': (csv_row(company='NULL'), lambda t: t['inferred company'][0] == 'NULL'),
    'half of a pair of surrogates': (csv_row(content='\ud83d'), 'is not UTF-8'),
    'a character beyond Unicode': (('.csv', csv_row(content='@@')[1].replace(b'@@', b'\xf7\xbf\xbf\xbf')), 'is not UTF-8'),
    'an overlong slash': (('.csv', csv_row(content='@@')[1].replace(b'@@', b'\xc0\xaf')), 'is not UTF-8'),
    'a text of one quotation mark': (csv_row(content='"'), lambda t: t['content'][0] == '"'),
    'a text of CRLF': (csv_row(content='a\r\nb'), lambda t: t['content'][0] == 'a\r\nb'),
    'a separator of lines in a text': (csv_row(content='a\u2028b\x85c\x0bd\x1ce'), lambda t: t['content'][0] == 'a\u2028b\x85c\x0bd\x1ce'),
    'a mark of byte order in a text': (csv_row(content='\ufefftea'), lambda t: t['content'][0] == '\ufefftea'),
    'an id with a zero before it': (csv_row(id='007'), lambda t: t['id'][0] == '007'),
    'an id of forty digits': (csv_row(id='9'*40), lambda t: t['id'][0] == '9'*40),
    'an id with an exponent': (csv_row(id='1e5'), lambda t: t['id'][0] == '1e5'),
    'an id in another script': (csv_row(id='٧'), lambda t: t['id'][0] == '٧'),
    'an id below zero': (csv_row(id='-5'), lambda t: t['id'][0] == -5),
    'an id that is a path': (csv_row(id='../../etc/passwd'), lambda t: t['id'][0] == '../../etc/passwd'),
    'the header twice': (text(HEAD + '\n' + HEAD + '\n'), 'is not a date'),
    'a header alone with blanks': (text(HEAD + '\n \n'), ''),
    'rows of commas': (text(HEAD + '\n' + ','*6 + '\n' + ','*6 + '\n'), 'no tweet'),
    'JSON': (text('[{"id": 1, "date": "2020-01-01"}]'), 'no tweet'),
    'a page': (text('<!DOCTYPE html>\n<html><body>Not found</body></html>\n'), 'missing'),
    'a sheet with a merged cell': (workbook(lambda s, b: s.merge_cells('D2:D3')), lambda t: len(t) == 1),
    'a sheet with an error': (workbook(set_cell('C2', '#DIV/0!')), 'is not a number'),
    'a sheet with a formula': (workbook(set_cell('C2', '=1+1')), lambda t: np.isnan(t['likes'][0])),
    'a sheet with true likes': (workbook(set_cell('C2', True)), 'is not a number'),
    'a cell at the end of the sheet': (workbook(set_cell('XFD1048576', 'x')), lambda t: len(t) == 1),
    'a workbook with an empty first sheet': (workbook(lambda s, b: b.move_sheet(b.create_sheet('first'), -1)), ''),
    'a Parquet file of lists': (lists([['a'], ['b']]), 'cannot be read here'),
    'a Parquet file of bytes': (lists([b'\xff\xfe', b'b']), ''),
    'a Parquet file of tables': (lists([dict(a=1), dict(a=2)]), 'cannot be read here'),
    'Parquet ids beyond 64 bits with a sign': (parquet(frame(id=np.array([2**64 - 1, 5], 'uint64'))), lambda t: str(t['id'][0]) == str(2**64 - 1)),
    'Parquet likes as lengths of time': (parquet(frame(likes=pd.to_timedelta([1, 2], 'D'))), ''),
    'Parquet likes that are true': (parquet(frame(likes=[True, False])), ''),
    'Parquet dates as times of day': (parquet(frame(date=[pd.Timestamp('2020-01-01 10:00').time()]*2)), ''),
    'a categorical account': (parquet(frame(username=pd.Categorical(['Acme', 'Acme']))), lambda t: t['username'][0] == 'Acme'),
    'a Parquet file of no rows': (parquet(frame().head(0)), 'no tweet'),
}


def attack_table(made, tmp_path, ground):
    (path := tmp_path/f't{made[0]}').write_bytes(made[1])
    return read_tweets(path)


# --- Media strings ---

U = 'https://pbs.example.com/media/a.jpg'
kind = lambda s, n=None: lambda r: r['kind'] == s and n in (None, r['count'])
MEDIA = {
    'an expression': ("[__import__('os').system('x')]", 'character'), 'a comprehension': ('[Photo() for _ in range(10**9)]', 'character'), 'an f-string': ("[Photo(previewUrl=f'{x}', fullUrl='%s')]" % U, 'character'),
    'a lambda': ('[lambda: 0]', 'character'), 'a product': ("['x'*10**9]", 'character'), 'a call in an argument': (f"[Photo(previewUrl=open('/etc/passwd').read(), fullUrl='{U}')]", 'character'),
    'an attribute': ('[Photo.__class__]', 'character'), 'a star': ('[*range(9)]', 'character'), 'a walrus': ('[(x := 1)]', 'character'), 'a comment': (f"['{U}'] # x", 'character'), 'a line of shell': ('[`id`]', 'character'),
    'a template': ('[{{7*7}}]', 'character'), 'bytes': (f"[b'{U}']", 'character'), 'a raw string': (r"[r'\x']", 'character'), 'joined strings': (f"['https://' 'x.example']", 'character'), 'an octal number': ('[Video(duration=0o7)]', 'character'),
    'an entity of XML': ('<!ENTITY x "y">', 'character'), 'a list that never ends': ('[' * 5000, 'character'), 'dicts nine deep': ('{"a":' * 9 + '1' + '}' * 9, 'deep'), 'names without end': ('A' * 19_000, ''), 'a string without end': ("['" + 'a' * 19_000, 'character'),
    'commas': ('[,,,]', 'character'), 'a lone backslash': ("['\\']", 'character'), 'two lists': ('[] []', 'character'), 'brackets the wrong way': (']' + '[', 'character'), 'another list inside': (f"[['{U}']]", 'no photo'),
    'a script address': ("[Photo(previewUrl='javascript:alert(1)', fullUrl='javascript:alert(1)')]", 'http'), 'a file address': ("['file:///etc/passwd']", 'http'), 'data in an address': ("['data:image/png;base64,AAAA']", 'http'), 'an address over two lines': ("['https://a.example/\\nHost: b']", 'http'),
    'an address with quotation marks': ('["https://a.example/\\"x"]', 'http'), 'an address of 3,000 characters': (f"['https://a.example/{'a'*3000}']", 'http'), 'an address with a letter of another script': ("['https://ex\u0430mple.com/a.jpg']", 'http'), 'an address with a bidi mark': ("['https://a.example/\u202egpj.exe']", 'http'),
    'a number for an address': (f'[Photo(previewUrl=1, fullUrl=2)]', 'http'), 'an unknown kind': (f"[Hologram(fullUrl='{U}')]", 'no photo'), 'kinds of the interpreter': (f"[object(fullUrl='{U}')]", 'no photo'), 'a key twice': (f"[Photo(previewUrl='{U}', fullUrl='{U}', fullUrl='javascript:x')]", 'http'),
    'an endless duration': ("[Video(thumbnailUrl='%s', variants=[], duration=1e999, views=None)]" % U, 'character'), 'views below zero': ("[Video(thumbnailUrl='%s', variants=[], duration=1, views=-5)]" % U, 'character'), 'views without end': ("[Video(thumbnailUrl='%s', variants=[], duration=1, views=%s)]" % (U, '9'*400), 'character'),
    'a thousand photos': ('[' + ', '.join([f"Photo(previewUrl='{U}', fullUrl='{U}')"]*150) + ']', kind('photo', 150)), 'a NUL': (f"['{U}\0']", 'http'), 'a mark of byte order': (f"\ufeff['{U}']", kind('photo', 1)), 'null in a list': ('[null, null]', kind('none', 0)), 'nothing by name': ('None', kind('none', 0)),
    'not a number': ('[NaN]', 'character'), 'spaces': (' \n\t ', kind('none', 0)), 'an empty string in a list': ("['']", kind('none', 0)), 'half of a pair of surrogates': ("['https://a.example/\ud83d']", 'http'), 'Photo in small letters': (f"[photo(previewUrl='{U}', fullUrl='{U}')]", kind('photo', 1)), 'nothing but a photo': ('photo', kind('photo', 1)),
    'twenty thousand photos by number': ('20000 photos', 'character'), 'an address and a script': (f'{U} javascript:x', 'http'),
}


def attack_media(made, tmp_path, ground):
    r = parse_media(made)
    row = media_table(pd.Series([made], dtype=object)).iloc[0]
    assert (row['kind'], row['count'], row['error']) == (r['kind'], r['count'], r['error'])
    if r['kind'] == 'error': raise BadInput(r['error'])
    return r


# --- Pictures ---

def saved(format='PNG', size=(40, 30), mode='RGB', colour=None, **kwargs):
    f = io.BytesIO()
    Image.new(mode, size, colour or 0).save(f, format, **kwargs)
    return f.getvalue()


def png(width=4, height=4, depth=8, colour=2, data=None, more=b'', first=b''):
    "A PNG whose header says what it is told to."
    chunk = lambda name, body: struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    raw = zlib.compress(b''.join(b'\0' + b'\xff'*(3*4) for _ in range(4))) if data is None else data
    return b'\x89PNG\r\n\x1a\n' + first + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)) + more + chunk(b'IDAT', raw) + chunk(b'IEND', b'')


def chunk(name, body): return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))

def gif(width, height): return b'GIF89a' + struct.pack('<HH', width, height) + b'\x80\0\0\0\0\0\xff\xff\xff,' + b'\0'*4 + struct.pack('<HH', 1, 1) + b'\0\x02\x02D\x01\0;'

def exif(tag, value):
    e = Image.Exif(); e[tag] = value
    return saved('JPEG', exif=e)

def of_size(*size): return lambda im: im.size == size and im.mode == 'RGB'

jpeg, whole = saved('JPEG'), saved()
PICTURES = {
    'a PNG of no width': (png(width=0), 'no size'), 'a PNG of no height': (png(height=0), 'no size'), 'a PNG of 2**31 pixels a side': (png(2**31 - 1, 2**31 - 1), 'pixels'), 'a PNG of 2**32 - 1': (png(2**32 - 1, 1), 'pixels'), 'a PNG of depth 7': (png(depth=7), 'none'),
    'a PNG of colour 5': (png(colour=5), 'none'), 'a PNG without data': (png(data=b''), 'does not decode'), 'a PNG of other data': (png(data=b'x'*50), 'does not decode'), 'a PNG of too little data': (png(data=zlib.compress(b'\0')), 'does not decode'), 'a bomb of text': (png(more=chunk(b'zTXt', b'a\0\0' + zlib.compress(b'a'*100_000_000))), ''),
    'a bomb of a colour profile': (png(more=chunk(b'iCCP', b'a\0\0' + zlib.compress(b'a'*100_000_000))), ''), 'a bomb of pixels': (png(data=zlib.compress(b'\0'*200_000_000)), of_size(4, 4)), 'a PNG whose header comes second': (png(first=chunk(b'tEXt', b'a\0b')), 'no size'), 'a PNG cut in two': (whole[:len(whole)//2], ''), 'the signature alone': (whole[:8], 'no size'),
    'a palette that is missing': (png(colour=3, data=zlib.compress(b'\0\1\2\3\4'*4)), of_size(4, 4)), 'frames that are none': (png(more=chunk(b'acTL', struct.pack('>II', 2**31 - 1, 0))), of_size(4, 4)), 'a chunk of 4 GB': (whole[:33] + struct.pack('>I', 2**32 - 1) + b'IDAT' + whole[41:], of_size(40, 30)), 'a wrong sum': (whole[:-20] + b'\0\0\0\0' + whole[-16:], 'does not decode'), 'a page after a picture': (whole + b'<script>alert(1)</script>'*99, of_size(40, 30)),
    'a GIF of 65,535 a side': (gif(65535, 65535), 'pixels'), 'a GIF without pixels': (gif(0, 0), 'no size'), 'a long GIF': (gif(20000, 1), 'times'), 'a GIF of one frame outside': (gif(10, 10)[:-16] + b'\xff'*16, ''), 'a JPEG without data': (jpeg[:20], 'no size'), 'a JPEG cut in two': (jpeg[:len(jpeg)//2], 'does not decode'),
    'a JPEG of markers': (b'\xff\xd8' + b'\xff'*100_000, 'no size'), 'a JPEG whose segment is too long': (b'\xff\xd8\xff\xe0\xff\xff' + b'a'*100, 'no size'), 'a JPEG whose segment has no length': (b'\xff\xd8\xff\xe0\0\0' + b'a'*100, 'no size'), 'a JPEG that says 60,000': (jpeg.replace(struct.pack('>HH', 30, 40), struct.pack('>HH', 60000, 60000), 1), 'pixels'), 'a JPEG of many scans': (jpeg + b'\xff\xda'*200, 'scans'),
    'a turn of 9': (exif(0x112, 9), of_size(40, 30)), 'a turn of 6': (exif(0x112, 6), of_size(30, 40)), 'a turn of 65,535': (exif(0x112, 65535), of_size(40, 30)), 'EXIF of noise': (saved('JPEG', exif=b'Exif\0\0' + b'\xff'*200), of_size(40, 30)), 'a comment of 60 KB': (saved('JPEG', comment=b'<script>'*7000), of_size(40, 30)),
    'a WebP of no pixels': (b'RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0' + b'\xff'*6 + b'\0'*10, ''), 'a WebP cut short': (saved('WEBP')[:30], ''), 'a WebP that says RIFF twice': (b'RIFF'*8 + b'WEBP', 'none'), 'a vector picture': (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 'none'), 'PostScript': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n', 'none'),
    'a PDF': (b'%PDF-1.7\n1 0 obj\n', 'none'), 'an icon': (saved('ICO', size=(16, 16)), 'none'), 'a PPM of a bomb': (b'P6 99999 99999 255\n', 'none'), 'a zip archive': (b'PK\x03\x04' + b'\0'*60, 'none'), 'a program': (b'\x7fELF' + b'\0'*60, 'none'), 'a DDS': (b'DDS ' + b'\0'*124, 'none'),
    'a film': (b'\0\0\0\x20ftypmp42' + b'\0'*40, 'none'), 'a BMP below zero': (saved('BMP')[:18] + struct.pack('<ii', -5, -5) + saved('BMP')[26:], ''), 'a BMP of 2**31': (saved('BMP')[:18] + struct.pack('<ii', 2**31 - 1, 2**31 - 1) + saved('BMP')[26:], ''), 'a TIFF that points at itself': (b'II*\0\x08\0\0\0\x01\0\0\x01\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0', 'none'), 'a TIFF of thin strips': (saved('TIFF', size=(5000, 20)), 'times'),
    'one pixel': (saved(size=(1, 1)), of_size(1, 1)), 'a white ground': (saved(mode='RGBA', colour=(0, 0, 0, 0)), lambda im: im.getpixel((0, 0)) == (255, 255, 255)), 'nothing': (b'', 'none'), 'a text': ('not a picture'.encode(), 'none'), 'a number': (7, 'no such file'), 'a list': ([1, 2], 'no such file'), 'a path with NUL': ('a\0b', 'no such file'), 'a device': ('/dev/zero', 'no regular file'), 'a folder': ('/', 'no regular file'), 'a path of 9,000 characters': ('a'*9000, 'no such file'),
}


def attack_picture(made, tmp_path, ground): return open_picture(made)


# --- Model directories ---

def card(edit):
    "A card with the right key whose content is another."
    def go(folder):
        c = json.loads((folder/'model.json').read_text())
        c = edit(c) or c
        if isinstance(c, dict): c['key'] = content_key(*(c.get(k) for k in ('kind', 'format', 'version', 'facts', 'files')))
        (folder/'model.json').write_text(json.dumps(c))
    return go

def holds(data): return lambda folder: (folder/'model.json').write_bytes(data if isinstance(data, bytes) else data.encode())
def fact(**new): return card(lambda c: c['facts'].update(new))
def without(name): return card(lambda c: c['facts'].pop(name) and None)

def replaced(name, make):
    "Something else in the place of a file."
    def go(folder):
        (folder/name).unlink()
        make(folder/name)
    return go

def signed(name, data):
    def go(folder):
        (folder/name).write_bytes(data)
        sign(folder)
    return go

def pipe(p): os.mkfifo(p)
def to(place): return lambda p: p.symlink_to(place)
def damaged(name, cut): return lambda folder: (folder/name).write_bytes(cut((folder/name).read_bytes()))

MODELS = {
    'an empty card': (holds(''), 'cannot be read'), 'null': (holds('null'), 'incomplete'), 'a number': (holds('7'), 'incomplete'), 'a text': (holds('"x"'), 'incomplete'), 'a list': (holds('[]'), 'incomplete'), 'nothing in it': (holds('{}'), 'format None'), 'UTF-16': (holds('{}'.encode('utf-16')), 'cannot be read'),
    'a mark of byte order': (holds(b'\xef\xbb\xbf{}'), 'cannot be read'), 'NUL': (holds(b'\0'*100), 'cannot be read'), 'a number that is none': (holds('{"facts": NaN}'), 'cannot be read'), 'an infinite number': (holds('{"facts": -Infinity}'), 'cannot be read'), 'dicts without end': (holds('{"a":'*100_000), 'cannot be read'), 'a number of 10,000 digits': (holds('{"format": ' + '9'*10_000 + '}'), 'cannot be read'),
    'two cards': (holds('{}{}'), 'cannot be read'), 'a pickle': (holds(b'\x80\x04\x95'), 'cannot be read'), 'a card that is a pipe': (replaced('model.json', pipe), 'cannot be read'), 'a card without end': (replaced('model.json', to('/dev/zero')), 'cannot be read'), 'a card that is a folder': (replaced('model.json', Path.mkdir), 'cannot be read'), 'a card that points at itself': (replaced('model.json', lambda p: p.symlink_to(p)), 'cannot be read'), 'a card that points nowhere': (replaced('model.json', to('nowhere')), 'no saved model'),
    'a card of 200 MB': (lambda f: os.truncate(f/'model.json', 200_000_000), 'cannot be read'), 'no kind': (card(lambda c: c.pop('kind') and None), 'cannot be loaded'), 'a kind that is a number': (card(lambda c: c.update(kind=7)), ''), 'a kind that is a list': (card(lambda c: c.update(kind=['a'])), ''), 'a kind of the system': (card(lambda c: c.update(kind='os.system')), ''), 'a kind that is a path': (card(lambda c: c.update(kind='../../x')), ''), 'a kind with blanks': (card(lambda c: c.update(kind='a b')), ''),
    'a kind that is an error': (card(lambda c: c.update(kind='behaviour_sim.core.BadInput')), 'no model'), 'a kind that is a function': (card(lambda c: c.update(kind='behaviour_sim.core.write_json')), 'no model'), 'a kind of another part': (card(lambda c: c.update(kind='behaviour_sim.likes.evaluation.Baselines')), 'Baselines'), 'a kind with ESC': (card(lambda c: c.update(kind='\x1b[31m')), ''),
    'a format of text': (card(lambda c: c.update(format='5')), 'format'), 'a format that is true': (card(lambda c: c.update(format=True)), 'format'), 'a later format': (card(lambda c: c.update(format=99)), 'format 99'), 'a format in a list': (card(lambda c: c.update(format=[5])), 'format'), 'a version with ESC': (card(lambda c: c.update(format=1, version='\x1b]0;x\x07')), 'format 1'),
    'files in a list': (card(lambda c: c.update(files=[*c['files']])), ''), 'no files': (card(lambda c: c.update(files={})), ''), 'files that are null': (card(lambda c: c.update(files=None)), ''), 'a file above': (card(lambda c: c['files'].update({'../x': 'a'})), 'missing or was changed'), 'a file of the system': (card(lambda c: c['files'].update({'/etc/passwd': 'a'})), 'missing or was changed'), 'a file without a name': (card(lambda c: c['files'].update({'': 'a'})), 'missing or was changed'), 'a sum that is null': (card(lambda c: c['files'].update({'MODEL_CARD.md': None})), 'missing or was changed'), 'the key of another card': (lambda f: (f/'model.json').write_text((f/'model.json').read_text().replace('"seed": 42', '"seed": 43')), 'was changed'),
    'facts that are null': (card(lambda c: c.update(facts=None)), ''), 'facts in a list': (card(lambda c: c.update(facts=[])), ''), 'no parts': (fact(parts=[]), ''), 'parts above': (fact(parts=['../x']), ''), 'a part twice': (card(lambda c: c['facts'].update(parts=c['facts']['parts']*2)), lambda sim: sim.names), 'parts that are a text': (fact(parts='abc'), ''), 'a part of numbers': (fact(parts=[1, 2]), ''), 'no sums of parts': (fact(inner=None), ''), 'no table': (without('table'), ''), 'no names': (without('names'), ''), 'no accounts': (without('known'), ''), 'a last day that is none': (fact(last='soon'), ''), 'an unknown preset': (fact(table=dict(preset='nobody')), ''), 'accounts in a list': (fact(known=['a']), ''),
    'a part that is gone': (lambda f: shutil.rmtree(f/'intervals'), 'missing or was changed'), 'a part that points elsewhere': (lambda f: (shutil.rmtree(f/'intervals'), (f/'intervals').symlink_to('/etc')), 'missing or was changed'), 'an array cut short': (damaged('compression.safetensors', lambda b: b[:-1]), 'changed'), 'an array with more': (damaged('compression.safetensors', lambda b: b + b'0'), 'changed'), 'an array that is a pipe': (replaced('compression.safetensors', pipe), 'changed'), 'an array without end': (replaced('compression.safetensors', to('/dev/zero')), 'changed'),
    'signed arrays of noise': (signed('compression.safetensors', b'\xff'*99), ''), 'signed arrays of nothing': (signed('compression.safetensors', b''), ''), 'a signed header of 2**60': (signed('compression.safetensors', struct.pack('<Q', 2**60) + b'{}'), ''), 'a signed history of noise': (signed('known_account/history.parquet', b'PAR1' + b'\0'*50 + b'PAR1'), ''), 'a signed context of text': (signed('new_company/context.parquet', b'id\n1\n'), ''),
}


def attack_model(made, tmp_path, ground):
    made(shutil.copytree(ground.model, tmp_path/'m'))
    try: return LikesSimulator.load(tmp_path/'m')
    except BadInput as e: raise BadInput(_printable(str(e))) from None # as the command line says it


# --- Requests to the app ---

DRAFT = dict(company='Acme', username='Acme', content='tea', date='2020-05-06T09:00', media='photo')

def post(body=None, at='/predict', head='', kind='application/json', host='127.0.0.1', length=None, **new):
    data = body if isinstance(body, bytes) else (json.dumps(DRAFT | new) if body is None else body).encode('utf-8', 'surrogatepass')
    return f'POST {at} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n{head}Connection: close\r\nContent-Length: {len(data) if length is None else length}\r\n\r\n'.encode('latin-1') + data

def raw(line, head='Host: 127.0.0.1\r\n'): return f'{line}\r\n{head}Connection: close\r\n\r\n'.encode('latin-1')

REQUESTS = {
    'a whole draft': (post(), 200), 'nothing': (post(''), 400), 'blanks': (post(' \n'), 400), 'two drafts': (post('{}{}'), 400), 'a draft in a list': (post(json.dumps([DRAFT])), 400), 'a draft in a text': (post(json.dumps(json.dumps(DRAFT))), 400), 'a key twice, the last one bad': (post('{"company": "a", "company": 5}'), 400), 'keys of the interpreter': (post(__class__='x'), 400), 'a key with NUL': (post(**{'company\0': 'x'}), 400), 'ten thousand keys': (post(**{f'k{i}': '' for i in range(3000)}), 400),
    'a company that is null': (post(company=None), 400), 'a company that is a list': (post(company=['Acme']), 400), 'a company of NUL': (post(company='\0'), 400), 'a company of 100 characters': (post(company='x'*100), 200), 'a company of 101': (post(company='x'*101), 400), 'a company of half a surrogate': (post(body=json.dumps(DRAFT | dict(company='\ud83d'))), 200), 'an account that is a path': (post(username='../../etc'), 200), 'an account that is a formula': (post(username='=cmd|x'), 200), 'an account of bidi marks': (post(username='\u202e'*9), 400),
    'a date of a list': (post(date=[2020]), 400), 'a date of now': (post(date='now'), 400), 'today': (post(date='today'), 400), 'a date of NaT': (post(date='NaT'), 400), 'seconds since 1970': (post(date='1588755600'), 400), 'a quarter': (post(date='2020Q1'), 400), 'a date in words': (post(date='May 6 2020'), 400), 'a date with a zone': (post(date='2020-05-06T09:00+02:00'), 400), 'the year 2101': (post(date='2101-01-01T00:00'), 400), 'the day 31 of April': (post(date='2020-04-31T09:00'), 400), 'digits of another script': (post(date='２０２０-05-06T09:00'), 400),
    'media in capitals': (post(media='PHOTO'), 400), 'media that are a string of the data': (post(media="[Photo(previewUrl='x')]"), 400), 'a picture that is a device': (post(picture='/dev/zero'), 400), 'a picture above': (post(picture='../' + '0'*32 + '.jpg'), 400), 'a picture with a line end': (post(picture='0'*32 + '.jpg\n'), 400), 'a picture of NUL': (post(picture='0'*32 + '.jpg\0'), 400), 'likes that are wanted': (post(likes='5'), 400), 'a text of 2,001': (post(content='x'*2001), 400), 'a text of special tokens': (post(content='<|endoftext|></s>[INST]'), 200), 'entities of entities': (post(content='&amp;'*300), 200), 'combining marks': (post(content='e' + '\u0301'*1900), 200), 'a text of addresses': (post(content='https://a.example/x '*99), 200), 'a text of handles': (post(content='@a'*900), 200),
    'UTF-16': (post(json.dumps(DRAFT).encode('utf-16')), (200, 400)), 'bytes that are no text': (post(b'\xff\xfe\0'), 400), 'NaN for a text': (post('{"company": NaN}'), 400), 'a number of 5,000 digits': (post('{"company": ' + '9'*5000 + '}'), 400), 'dicts without end': (post('{"a":'*15_000), 400), 'a form': (post('company=a', kind='application/x-www-form-urlencoded'), 403), 'JSON with a name': (post(kind='application/json; charset=utf-7'), 200), 'no kind of content': (post(kind=''), 403), 'kinds in a list': (post(kind='application/json, text/plain'), 403),
    'a foreign host': (post(host='evil.example'), 400), 'a host with a name and @': (post(host='127.0.0.1@evil.example'), 400), 'a numeric host': (post(host='2130706433'), 400), 'a host with a dot at the end': (post(host='localhost.'), 400), 'no host': (raw('GET / HTTP/1.1', ''), 400), 'two hosts': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\nHost: evil.example\r\n'), 400), 'a foreign origin': (post(head='Origin: https://evil.example\r\n'), 403), 'an origin of no port': (post(head='Origin: http://127.0.0.1:1\r\n'), 403), 'a site of another': (post(head='Sec-Fetch-Site: cross-site\r\n'), 403),
    'two lengths': (post(head='Content-Length: 3\r\n'), 400), 'a length below zero': (post(length='-5'), 400), 'a length of a text': (post(length='abc'), 400), 'a length and pieces': (raw('POST /predict HTTP/1.1', 'Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 400\r\nTransfer-Encoding: chunked\r\n') + b'0\r\n\r\n', 400), 'pieces that are none': (raw('POST /predict HTTP/1.1', 'Host: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n') + b'zz\r\n', 400), 'a coding that is unknown': (raw('POST /predict HTTP/1.1', 'Host: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip\r\n'), (400, 501)), 'a head of 100 KB': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\nX: ' + 'a'*100_000 + '\r\n'), (200, 400, 431)), 'ten thousand heads': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\n' + 'X: a\r\n'*10_000), (200, 400, 431)), 'a head over two lines': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\nX: a\r\n b: c\r\n'), (200, 400)), 'a head with NUL': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\nX: \0\r\n'), 400),
    'a path above': (raw('GET /../../etc/passwd HTTP/1.1'), 404), 'an escaped path above': (raw('GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1'), 404), 'a path with NUL': (raw('GET /%00 HTTP/1.1'), 404), 'a path of bytes': (raw('GET /%ff%fe HTTP/1.1'), 404), 'two slashes': (raw('GET //evil.example/ HTTP/1.1'), 404), 'a whole address': (raw('GET http://evil.example/ HTTP/1.1'), 404), 'HTTP 0.9': (b'GET /\r\n\r\n', 400), 'HTTP 9': (raw('GET / HTTP/9.9'), (200, 400, 505)), 'TLS': (b'\x16\x03\x01\0\xf4\x01\0\0\xf0\x03\x03' + b'a'*99 + b'\r\n\r\n', 400), 'a tunnel': (raw('CONNECT evil.example:443 HTTP/1.1'), (400, 403, 404, 405)), 'a trace': (raw('TRACE / HTTP/1.1'), (403, 405)), 'a word for a method': (raw('PLEASE / HTTP/1.1'), (403, 405)), 'a web socket': (raw('GET / HTTP/1.1', 'Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n'), (200, 400)), 'a question by GET': (raw('GET /predict HTTP/1.1'), 405),
    'a picture of nothing': (post(b'', '/picture', kind='application/octet-stream'), 400), 'a vector picture': (post(b'<svg/>', '/picture', kind='application/octet-stream'), 400), 'a long picture': (post(saved(size=(5000, 10)), '/picture', kind='application/octet-stream'), 400), 'a picture in JSON': (post('{}', '/picture'), 400), 'a draft for the hours that is none': (post('7', '/hours'), 400), 'a draft to rewrite that is none': (post('[]', '/rewrite'), 400),
}


def attack_request(made, tmp_path, ground):
    "The status, 0 where the server closes the connection; whatever is refused says why in a line."
    with socket.create_connection(('127.0.0.1', ground.port), 30) as s:
        try:
            s.sendall(made)
            got = b''.join(iter(lambda: s.recv(65536), b''))
        except ConnectionError: return 0
    if not got: return 0
    status, body = int(got.split(b' ', 2)[1]), got.partition(b'\r\n\r\n')[2]
    assert b'Traceback' not in body and status != 500, got
    if status == 200 and made.startswith(b'POST'):
        p = json.loads(body)
        assert 0 <= p['lower'] <= p['likes'] <= p['upper'] < float('inf')
    return status


# --- Arguments ---

P = ('predict', 'new.csv', '--model', 'm', '--out')
W = ('what-if', 'new.csv', '--model', 'm', '--id', '7')
done = lambda words='': lambda r: r[0] == 0 and words in r[1]
ARGUMENTS = {
    'no such command': (['prodict'], 'prodict'), 'an unknown option': ([*P, 'p.csv', '--fast'], '--fast'), 'no data': (['predict'], 'data'), 'data of no name': (['predict', '', '--model', 'm', '--out', 'p.csv'], ''), 'data that are a folder': (['predict', 'm', '--model', 'm', '--out', 'p.csv'], ''), 'data that are a device': (['predict', '/dev/zero', '--model', 'm', '--out', 'p.csv'], ''), 'data with a line end': (['predict', 'a\nb.csv', '--model', 'm', '--out', 'p.csv'], 'b.csv'), 'data with ESC': (['predict', '\x1b[31m.csv', '--model', 'm', '--out', 'p.csv'], '\\x1b'), 'data that are no UTF-8': (['predict', '\udcff.csv', '--model', 'm', '--out', 'p.csv'], '.csv'), 'data with NUL': (['predict', 'a\0.csv', '--model', 'm', '--out', 'p.csv'], ''), 'data of 5,000 characters': (['predict', 'a'*5000 + '.csv', '--model', 'm', '--out', 'p.csv'], ''),
    'a model that is a file': (['predict', 'new.csv', '--model', 'new.csv', '--out', 'p.csv'], 'no such model'), 'a model of no name': (['predict', 'new.csv', '--model', '', '--out', 'p.csv'], ''), 'a model that is the root': (['predict', 'new.csv', '--model', '/', '--out', 'p.csv'], 'model directory'), 'a model that is no UTF-8': (['predict', 'new.csv', '--model', '\udcff', '--out', 'p.csv'], 'no such model'), 'a model with NUL': (['predict', 'new.csv', '--model', 'a\0', '--out', 'p.csv'], ''),
    'an output of no name': ([*P, ''], ''), 'an output without an ending': ([*P, 'p'], ''), 'an output of another kind': ([*P, 'p.json'], ''), 'an output that is a folder': ([*P, 'm'], ''), 'an output in the model': ([*P, 'm/p.csv'], 'model directory'), 'an output that is the input': ([*P, './new.csv'], 'input'), 'an output that is the input by a link': ([*P, 'link.csv'], 'input'), 'an output below a file': ([*P, 'new.csv/p.csv'], ''), 'an output of 5,000 characters': ([*P, 'a'*5000 + '.csv'], ''), 'an output with NUL': ([*P, 'a\0.csv'], ''), 'an output in capitals': ([*P, 'P.CSV'], done()), 'an output with blanks and bidi marks': ([*P, 'a \u202e b.csv'], done('\\u202e')), 'an output that begins with a dash': ([*P, './-p.csv'], done()),
    'no sign': ([*W, '--set', 'hour'], 'name=value'), 'no name': ([*W, '--set', '=9'], 'Cannot set'), 'an hour of a half': ([*W, '--set', 'hour=9.5'], 'whole number'), 'hour 24': ([*W, '--set', 'hour=24'], 'between 0 and 23'), 'an hour below zero': ([*W, '--set', 'hour=-1'], 'between 0 and 23'), 'an hour of a thousand digits': ([*W, '--set', 'hour=' + '9'*5000], 'hour'), 'day 7 of the week': ([*W, '--set', 'weekday=7'], 'between 0 and 6'), 'a weekday by name': ([*W, '--set', 'weekday=Monday'], 'whole number'), 'another id': ([*W, '--set', 'id=7'], 'id'), 'likes': ([*W, '--set', 'likes=9'], 'Cannot set'), 'a feature': ([*W, '--set', 'time.hour=9'], 'Cannot set'), 'an inner column': ([*W, '--set', 'upload_lag=9'], 'Cannot set'), 'a name of the interpreter': ([*W, '--set', '__class__=9'], 'Cannot set'), 'the simulator': ([*W, '--set', 'self=9'], 'Cannot set'), 'the tweets': ([*W, '--set', 'tweets=9'], 'Cannot set'), 'the context': ([*W, '--set', 'context=9'], 'Cannot set'), 'a text that is no UTF-8': ([*W, '--set', 'content=\udcff'], 'UTF-8'), 'a name that is no UTF-8': ([*W, '--set', '\udcff=x'], ''), 'a text with NUL': ([*W, '--set', 'content=a\0b'], 'NUL'), 'an account of nothing': ([*W, '--set', 'username='], 'empty'), 'a company of an @': ([*W, '--set', 'inferred company=@'], 'empty'),
    'a date with Z': ([*W, '--set', 'date=2020-05-06T03:00:00Z'], done('edited')), 'a date with a zone': ([*W, '--set', 'date=2020-05-06T03:00:00+05:30'], done('edited')), 'a date that is none': ([*W, '--set', 'date=soon'], 'is no date'), 'a date in two readings': ([*W, '--set', 'date=04/03/2021'], 'is no date'), 'the year 1': ([*W, '--set', 'date=0001-01-01'], 'is no date'), 'a weekday before all time': ([*W, '--set', 'date=1900-01-01', '--set', 'weekday=0'], done('edited')), 'a medium that is none': ([*W, '--set', 'media=[eval(1)]'], (0, 2)), 'twice the same': ([*W, '--set', 'hour=9', '--set', 'hour=10'], done('edited')),
    'an id that is not there': (['explain', 'new.csv', '--model', 'm', '--id', '999'], '999'), 'an id of nothing': (['explain', 'new.csv', '--model', 'm', '--id', ''], 'no tweet'), 'an id with ESC': (['explain', 'new.csv', '--model', 'm', '--id', '\x1b[2J'], '\\x1b'), 'an id as a float': (['explain', 'new.csv', '--model', 'm', '--id', '7.0'], done()), 'a port of 70,000': (['app', '--model', 'm', '--port', '70000'], '--port'), 'a port of a text': (['app', '--model', 'm', '--port', 'x'], '--port'), 'a preset that is none': (['fit', 'new.csv', '--model', 'q', '--preset', '../x'], 'preset'), 'a seed of a text': (['fit', 'new.csv', '--model', 'q', '--seed', '1e3'], '--seed'), 'a seed beyond all': (['fit', 'new.csv', '--model', 'q', '--seed', '9'*30, '--preset', 'light'], '--seed'), 'a seed below zero': (['fit', 'new.csv', '--model', 'q', '--seed', '-1', '--preset', 'light'], '--seed'), 'columns of no sign': (['convert', 'new.csv', '--out', 'c.csv', '--columns', 'date'], '--columns'), 'columns that are not there': (['convert', 'new.csv', '--out', 'c.csv', '--columns', 'date=nowhere'], 'nowhere'), 'a zone that is none': (['convert', 'new.csv', '--out', 'c.csv', '--tz', 'Mars/Base'], 'Mars'), 'a zone that is a path': (['convert', 'new.csv', '--out', 'c.csv', '--tz', '../../../etc/passwd'], ''), 'a delay of a text': (['backtest', 'new.csv', '--model', 'm', '--out', 'b.csv', '--delay-hours', 'two'], '--delay-hours'), 'a delay that is no number': (['backtest', 'new.csv', '--model', 'm', '--out', 'b.csv', '--delay-hours', 'nan'], ''), 'a delay without end': (['backtest', 'new.csv', '--model', 'm', '--out', 'b.csv', '--delay-hours', 'inf'], ''), 'a delay of a million years': (['backtest', 'new.csv', '--model', 'm', '--out', 'b.csv', '--delay-hours', '1e12'], ''), 'a plug-in that is none': (['--plugin', 'no.such.module', 'explain', 'new.csv', '--model', 'm', '--id', '7'], 'no.such'), 'a plug-in that is a path': (['--plugin', '../x.py', 'explain', 'new.csv', '--model', 'm', '--id', '7'], ''), 'an engine that is none': ([*P, 'p.csv', '--engine', 'cloud'], 'cloud'),
}


def attack_arguments(made, tmp_path, ground):
    before = contents(ground.home)
    code, out, err = told(*made, cwd=ground.home)
    if code == 2:
        assert err.startswith('behaviour-sim: ') and err.count('\n') == 1, err
        assert contents(ground.home) == before
        raise BadInput(err[15:-1])
    assert code == 0 and 'Traceback' not in err, (code, err)
    return code, out, err


# --- Caches ---

TEXTS = ['tea', 'coffee', 'milk']

def kept(edit):
    "The file of vectors is damaged; the vectors are what they were."
    def go(place, monkeypatch):
        monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(place))
        embeddings._vector_file.cache_clear()
        first = embed(TEXTS, 'hashed-words' if 'hashed-words' in embeddings.ENCODERS else 'tiny-distilbert', quiet=True)
        file = next(place.rglob('*.vectors'))
        edit(file)
        embeddings._vector_file.cache_clear()
        for _ in range(2): np.testing.assert_array_equal(embed(TEXTS, 'hashed-words' if 'hashed-words' in embeddings.ENCODERS else 'tiny-distilbert', quiet=True), first)
    return go

def bytes_of(change): return lambda p: p.write_bytes(change(p.read_bytes()))

def gone(p): p.unlink()

def instead(make):
    def go(p):
        shutil.rmtree(p) if p.is_dir() else p.unlink()
        make(p)
    return go

def folder_of(edit):
    "A folder that is made once is damaged, or what stands beside it; it is made again, and right."
    def go(place, monkeypatch):
        monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(place))
        make = lambda new: [(new/'a').write_text('1 2 3'), (new/'b').mkdir(), (new/'b'/'c').write_text('4')]
        out = _made_once(cache_dir('made')/'x', make)
        edit(out)
        for _ in range(2):
            got = _made_once(cache_dir('made')/'x', make)
            assert {p.relative_to(got).as_posix(): p.read_bytes() for p in got.rglob('*') if p.is_file()} == {'a': b'1 2 3', 'b/c': b'4'}
    return go

GOOD = manifest._row('https://a.example/1', 'http_4xx', '404', 1)

def journal(data, there=1):
    "A line of a download's rows is odd; the good row beside it is kept."
    def go(place, monkeypatch):
        line = data if isinstance(data, bytes) else json.dumps(data).encode()
        for name in ('downloads.jsonl', 'downloads.journal'):
            (place/name).write_bytes(json.dumps(GOOD).encode() + b'\n' + line + b'\n')
        with Manifest(place) as m: assert len(m.rows) == there and m.has(GOOD['url'])
    return go

beside = lambda change: lambda out: change(out.with_name('x.json'))
CACHED = {f'vectors, {k}': kept(v) for k, v in {'cut in the middle': bytes_of(lambda b: b[:len(b)//2]), 'one byte short': bytes_of(lambda b: b[:-1]), 'one byte more': bytes_of(lambda b: b + b'x'), 'emptied': bytes_of(lambda b: b''), 'zeros': bytes_of(lambda b: bytes(len(b))), 'ones': bytes_of(lambda b: b'\xff'*len(b)), 'a bit of a key': bytes_of(lambda b: bytes([b[0] ^ 1]) + b[1:]), 'a bit of a vector': bytes_of(lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]), 'a bit of a sum': bytes_of(lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    'twice': bytes_of(lambda b: b + b), 'backwards': bytes_of(lambda b: b[::-1]), 'shifted by a byte': bytes_of(lambda b: b'x' + b), 'a page': bytes_of(lambda b: b'<html>'*500), 'gone': gone, 'a folder': instead(Path.mkdir), 'a link to nowhere': instead(lambda p: p.symlink_to(p.parent/'no'/'where')), 'a link to itself': instead(lambda p: p.symlink_to(p))}.items()}
CACHED |= {f'a folder, {k}': folder_of(v) for k, v in {'a bit of a file': lambda o: bytes_of(lambda b: b'9' + b[1:])(o/'a'), 'a file cut short': lambda o: (o/'a').write_text('1'), 'a file gone': lambda o: (o/'a').unlink(), 'a file more': lambda o: (o/'z').touch(), 'a hidden file more': lambda o: (o/'.z').write_text('x'), 'a file moved': lambda o: (o/'a').rename(o/'b'/'a'), 'a file that is a folder': lambda o: ((o/'a').unlink(), (o/'a').mkdir()), 'a file that is a link': lambda o: ((o/'a').unlink(), (o/'a').symlink_to('/etc/hostname')), 'a file that is a pipe': lambda o: ((o/'a').unlink(), os.mkfifo(o/'a')), 'the folder gone': shutil.rmtree, 'the folder a file': instead(Path.touch), 'the folder a link to nowhere': instead(lambda p: p.symlink_to('nowhere')),
    'the sums gone': beside(gone), 'the sums emptied': beside(lambda p: p.write_text('')), 'the sums null': beside(lambda p: p.write_text('null')), 'the sums in a list': beside(lambda p: p.write_text('[]')), 'the sums without end': beside(lambda p: p.write_text('['*100_000)), 'the sums no text': beside(lambda p: p.write_bytes(b'\xff\xfe')), 'the sums of one file': beside(lambda p: p.write_text('{"a": "x"}')), 'the sums a folder': beside(lambda p: (p.unlink(), p.mkdir())), 'the sums a pipe': beside(lambda p: (p.unlink(), os.mkfifo(p)))}.items()}
CACHED |= {f'rows, {k}': journal(v) for k, v in {'torn': b'{"url": "https://b.exam', 'no UTF-8': b'\xff\xfe\0', 'without end': b'['*100_000, 'a list': [], 'a number': 7, 'null': None, 'a column more': GOOD | dict(url='https://b.example', x=1), 'a column less': {k: v for k, v in GOOD.items() if k != 'path'}, 'an unknown status': GOOD | dict(url='https://b.example', status='fine'), 'a status in a list': GOOD | dict(url='https://b.example', status=['ok']), 'an address that is a number': GOOD | dict(url=7), 'an address that is a list': GOOD | dict(url=['x']), 'a path above': GOOD | dict(url='https://b.example', status='ok', path='../../x.jpg'), 'a path of the system': GOOD | dict(url='https://b.example', status='ok', path='/etc/passwd'), 'a path of another address': GOOD | dict(url='https://b.example', status='ok', path=manifest._picture_path('https://c.example', 'jpg')), 'a path that is null': GOOD | dict(url='https://b.example', status='ok', path=None), 'NUL': b'\0'*1000}.items()}
CACHES = {k: (v, lambda got: got is None) for k, v in CACHED.items()}


def attack_cache(made, tmp_path, ground):
    with pytest.MonkeyPatch.context() as m: return made(tmp_path, m)


SECTIONS = {'tables': (TABLES, attack_table), 'media strings': (MEDIA, attack_media), 'pictures': (PICTURES, attack_picture), 'model directories': (MODELS, attack_model), 'requests to the app': (REQUESTS, attack_request), 'arguments': (ARGUMENTS, attack_arguments), 'caches': (CACHES, attack_cache)}
CASES = [(s, name) for s, (cases, _) in SECTIONS.items() for name in cases]


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
    "A folder with new.csv and the model m, and a port with the page."
    home, t = tmp_path_factory.mktemp('ground'), sample_tweets(60)
    sim = LikesSimulator('light').fit(t, quiet=True)
    write_tweets(t.head(9), home/'new.csv'); (home/'link.csv').symlink_to('new.csv')
    desk = AppSession(LikesSimulator.load(sim.save(home/'m')))
    desk.free = threading.Event()
    with served(desk) as port: yield SimpleNamespace(home=home, model=home/'m', port=port)


@pytest.mark.parametrize('section, name', CASES, ids=lambda x: x)
def test_an_attack_is_refused_or_read(section, name, tmp_path, ground):
    cases, attack = SECTIONS[section]
    made, want = cases[name]
    try: got = attack(made, tmp_path, ground)
    except BadInput as e:
        assert isinstance(want, str) or want == (0, 2), f'refused: {e}'
        return one_sentence(e, want if isinstance(want, str) else '')
    if not callable(want): assert got in (want if isinstance(want, tuple) else (want,)) or want == (0, 2), f'read: {got!r:.300}'
    else: assert want(got), f'read: {got!r:.300}'


#: How many of each section did not hold when they were first tried; all hold now
FOUND = {'media strings': 1, 'model directories': 5, 'requests to the app': 5, 'arguments': 8, 'caches': 4}


def counted():
    "The table of SECURITY.md."
    rows = [f'| {s} | {len(cases)} | {len(cases) - FOUND.get(s, 0)} | {len(cases)} |' for s, (cases, _) in SECTIONS.items()]
    return '\n'.join(['| section | tried | held at first | hold now |', '|---|---|---|---|', *rows])


def test_security_counts_the_attacks():
    assert all(len(cases) >= 40 for cases, _ in SECTIONS.values())
    assert counted() in (Path(__file__).parents[1]/'SECURITY.md').read_text(encoding='utf-8'), counted()
