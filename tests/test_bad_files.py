"""Every way a file of tweets can be wrong gives one sentence; harmless variety is read."""
import csv, io, os, random, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest

from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import TWEET_COLUMNS, _REQUIRED, read_tweets, write_tweets

HEAD = 'id,date,likes,content,username,media,inferred company\n'
GOOD = HEAD + '''1,2020-12-12 09:30:00,12,Warm soup,SoupHouse,,soup house
2,2020-12-13 18:05:10,3400,"Two lines,
one ""tweet"" 🍜",SoupHouse,,soup house
3,2021-01-02 00:00:00,0,Wind at last,KiteClub,,kite club
'''

DATA = data_dir() # before a test changes the folder

@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path)

def rows(**changes):
    "The three tweets as a frame; `changes` are by column."
    t = pd.read_csv(io.StringIO(GOOD), keep_default_na=False, parse_dates=['date'])
    return t.assign(**{k.replace('inferred_', 'inferred '): v for k, v in changes.items()})

def parquet(t):
    f = io.BytesIO(); t.to_parquet(f)
    return f.getvalue()

def xlsx(t):
    f = io.BytesIO(); t.to_excel(f, index=False)
    return f.getvalue()

def book(*lines):
    import openpyxl
    b, f = openpyxl.Workbook(), io.BytesIO()
    for line in lines: b.active.append(line)
    b.save(f)
    return f.getvalue()

def repack(data, change):
    "A workbook with the text of its first sheet changed."
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as new:
        for n in old.namelist():
            body = old.read(n)
            new.writestr(n, change(body) if n == 'xl/worksheets/sheet1.xml' else body)
    return f.getvalue()

def zeros(mb):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('xl/worksheets/sheet1.xml', bytes(mb*1_000_000))
    return f.getvalue()

LAUGHS = (b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a0 "lol">' + b''.join(b'<!ENTITY a%d "%s">' % (i, b'&a%d;' % (i-1)*10) for i in range(1, 12))
          + b']><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row><c t="inlineStr"><is><t>&a11;</t></is></c></row></sheetData></worksheet>')
TWO, THREE = 'tweet 2 (row 3 of the sheet)', 'tweet 3 (row 4 of the sheet)'
r = lambda a, b: lambda: GOOD.replace(a, b)
many = lambda **k: lambda: HEAD + ''.join(f"{i},2020-01-01,{k.get('likes', 1) if i == 2000 else 1},a,b,,c\n" for i in range(1, 2001))

# name of the case, file name, content, what the sentence has to hold
BAD = [
    ('empty', 'a.csv', lambda: '', ['empty']),
    ('only blanks', 'a.csv', lambda: '\n \r\n\n', ['empty']),
    ('only a mark', 'a.csv', lambda: b'\xef\xbb\xbf', ['empty']),
    ('empty xlsx', 'a.xlsx', lambda: '', ['empty']),
    ('empty parquet', 'a.parquet', lambda: '', ['empty']),
    ('header only', 'a.csv', lambda: HEAD, ['no tweet']),
    ('header only, no line end', 'a.csv', lambda: HEAD.strip(), ['no tweet']),
    ('header and blank rows', 'a.csv', lambda: HEAD + '\n,,,,,,\n\n', ['no tweet']),
    ('header only xlsx', 'a.xlsx', lambda: book(HEAD.strip().split(',')), ['no tweet']),
    ('header only parquet', 'a.parquet', lambda: parquet(rows()[:0]), ['no tweet']),
    ('no header', 'a.csv', lambda: GOOD[len(HEAD):], ["columns 'id', 'date', 'likes', 'username', 'inferred company' missing", 'found']),
    ('blank first row', 'a.csv', lambda: '\n' + GOOD, ['row 1 of the sheet', 'column names']),
    ('blank first row xlsx', 'a.xlsx', lambda: book([], HEAD.strip().split(',')), ['row 1 of the sheet', 'column names']),
    ('blank xlsx', 'a.xlsx', lambda: book(), ['row 1 of the sheet']),
    ('unknown suffix', 'a.json', lambda: GOOD, ['.csv, .xlsx or .parquet']),
    ('no suffix', 'tweets', lambda: GOOD, ['.csv, .xlsx or .parquet']),
    ('old suffix', 'a.xls', lambda: b'\xd0\xcf\x11\xe0', ['.csv, .xlsx or .parquet']),
    ('missing column', 'a.csv', r('username', 'account'), ["column 'username' missing", "'account'"]),
    ('company is not inferred company', 'a.csv', r('inferred company', 'company'), ["column 'inferred company' missing", "'company'"]),
    ('capitals', 'a.csv', r('id,date', 'ID,Date'), ["columns 'id', 'date' missing", "'ID', 'Date'"]),
    ('missing column xlsx', 'a.xlsx', lambda: xlsx(rows().drop(columns='date')), ["column 'date' missing"]),
    ('missing column parquet', 'a.parquet', lambda: parquet(rows().drop(columns='id')), ["column 'id' missing"]),
    ('no likes', 'a.csv', r(',likes,', ',hearts,'), ["column 'likes' missing"]),
    ('column twice', 'a.csv', r('content', 'likes'), ['row 1 of the sheet', "column 'likes'", 'two columns']),
    ('column twice xlsx', 'a.xlsx', lambda: book(['id', 'id', 'date', 'username', 'inferred company'], [1, 1, '2020-01-01', 'a', 'b']), ["column 'id'", 'two columns']),
    ('semicolons', 'a.csv', r(',', ';'), ['semicolons']),
    ('tabs', 'a.csv', r(',', '\t'), ['tabs']),
    ('bars', 'a.csv', r(',', '|'), ['bars']),
    ('id twice', 'a.csv', r('\n3,', '\n1,'), [THREE, "column 'id'", "'1'", 'tweet 1 (row 2 of the sheet)']),
    ('id twice as a float', 'a.xlsx', lambda: xlsx(rows(id=[1.0, 2.0, 1.0])), [THREE, "column 'id'"]),
    ('id twice parquet', 'a.parquet', lambda: parquet(rows(id=['x', 'y', 'y'])), [THREE, "column 'id'", 'tweet 2 (row 3 of the sheet)']),
    ('no id', 'a.csv', r('\n3,', '\n,'), [THREE, "column 'id'", 'empty']),
    ('no id xlsx', 'a.xlsx', lambda: xlsx(rows(id=[1, None, 3])), [TWO, "column 'id'", 'empty']),
    ('no id parquet', 'a.parquet', lambda: parquet(rows(id=[1, None, 3])), [TWO, "column 'id'", 'empty']),
    ('day first', 'a.csv', r('2021-01-02 00', '02/01/2021 00'), [THREE, "column 'date'", "'02/01/2021 00:00:00'", '2020-12-31']),
    ('no such day', 'a.csv', r('2021-01-02', '2021-02-30'), [THREE, "column 'date'"]),
    ('no such hour', 'a.csv', r('18:05:10', '25:05:10'), [TWO, "column 'date'"]),
    ('a word for a date', 'a.csv', r('2021-01-02 00:00:00', 'now'), [THREE, "column 'date'", "'now'"]),
    ('only a year', 'a.csv', r('2021-01-02 00:00:00', '2021'), [THREE, "column 'date'"]),
    ('far year', 'a.csv', r('2021-01-02', '3021-01-02'), [THREE, "column 'date'", 'years']),
    ('no date', 'a.csv', r('2021-01-02 00:00:00', ''), [THREE, "column 'date'", 'empty']),
    ('date as a number xlsx', 'a.xlsx', lambda: xlsx(rows(date=[44177.5, 44178, 44179])), ['tweet 1 (row 2 of the sheet)', "column 'date'", "'44177.5'"]),
    ('date as a number parquet', 'a.parquet', lambda: parquet(rows(date=[1, 2, 3])), ['tweet 1 (row 2 of the sheet)', "column 'date'", "'1'"]),
    ('no date parquet', 'a.parquet', lambda: parquet(rows(date=pd.to_datetime(['2020-01-01', None, '2020-01-01']))), [TWO, "column 'date'", 'empty']),
    ('negative', 'a.csv', r('3400', '-1'), [TWO, "column 'likes'", "'-1'", 'negative']),
    ('negative xlsx', 'a.xlsx', lambda: xlsx(rows(likes=[1, 2, -3])), [THREE, "column 'likes'", 'negative']),
    ('negative parquet', 'a.parquet', lambda: parquet(rows(likes=[1, -2, 3])), [TWO, "column 'likes'", 'negative']),
    ('negative far down', 'a.csv', many(likes=-5), ['tweet 2000 (row 2001 of the sheet)', "column 'likes'", "'-5'"]),
    ('thousands', 'a.csv', r('3400', '"3,400"'), [TWO, "column 'likes'", "'3,400'", 'not a number']),
    ('a word for likes', 'a.csv', r('3400', 'many'), [TWO, "column 'likes'", 'not a number']),
    ('None for likes', 'a.csv', r('3400', 'None'), [TWO, "column 'likes'", 'not a number']),
    ('infinite', 'a.csv', r('3400', 'inf'), [TWO, "column 'likes'", 'not finite']),
    ('too large', 'a.csv', r('3400', '1e999'), [TWO, "column 'likes'", 'not finite']),
    ('infinite parquet', 'a.parquet', lambda: parquet(rows(likes=[1, np.inf, 3])), [TWO, "column 'likes'", 'not finite']),
    ('true or false for likes', 'a.parquet', lambda: parquet(rows(likes=[True, False, True])), ["column 'likes'", 'not a number']),
    ('gap in likes', 'a.csv', r('3400', ''), [TWO, "column 'likes'", 'needed']),
    ('gap in likes parquet', 'a.parquet', lambda: parquet(rows(likes=[1, None, 3])), [TWO, "column 'likes'", 'needed']),
    ('no username', 'a.csv', r('KiteClub', ''), [THREE, "column 'username'", 'empty']),
    ('no username parquet', 'a.parquet', lambda: parquet(rows(username=['a', None, 'b'])), [TWO, "column 'username'", 'empty']),
    ('no company', 'a.csv', r('kite club', '  '), [THREE, "column 'inferred company'", 'empty']),
    ('no company xlsx', 'a.xlsx', lambda: xlsx(rows(inferred_company=['a', None, 'b'])), [TWO, "column 'inferred company'", 'empty']),
    ('a row counts although it is blank', 'a.csv', r('3,2021', '\n,,,,,,\n3,x2021'), ['tweet 3 (row 6 of the sheet)', "column 'date'"]),
    ('NUL', 'a.csv', r('Wind', 'Wi\0nd'), [THREE, "column 'content'", 'NUL']),
    ('NUL in an extra column', 'a.csv', lambda: 'note,' + GOOD.replace('\n1,', '\nx,1,').replace('\n2,', '\nx,2,').replace('\n3,', '\n\0,3,'), [THREE, "column 'note'", 'NUL']),
    ('NUL parquet', 'a.parquet', lambda: parquet(rows(media=['', '\0', ''])), [TWO, "column 'media'", 'NUL']),
    ('UTF-16', 'a.csv', lambda: GOOD.encode('utf-16'), ['UTF-16', 'UTF-8']),
    ('UTF-16 without mark', 'a.csv', lambda: GOOD.encode('utf-16-le'), ['row 1 of the sheet', 'NUL', 'UTF-16']),
    ('latin-1', 'a.csv', lambda: GOOD.replace('🍜', '').replace('Wind', 'Föhn').encode('latin-1'), [THREE, "column 'content'", '0xf6', 'UTF-8']),
    ('latin-1 in the header', 'a.csv', lambda: GOOD.replace('🍜', '').replace('content', 'contént').encode('latin-1'), ['row 1 of the sheet', '0xe9']),
    ('cut inside a character', 'a.csv', lambda: GOOD.encode().replace('🍜'.encode(), '🍜'.encode()[:2]), [TWO, "column 'content'", 'UTF-8']),
    ('wrong byte in a 10 MB cell', 'a.csv', lambda: GOOD.encode().replace(b'Wind', b'W'*5_000_000 + b'\xff' + b'W'*5_000_000), [THREE, "column 'content'", '0xff']),
    ('10 MB cell', 'a.csv', r('Wind', 'W'*10_000_000), [THREE, "column 'content'", '1,000,000']),
    ('10 MB quoted cell', 'a.csv', r('Wind at last', '"' + 'W,\n'*4_000_000 + '"'), [THREE, "column 'content'", '1,000,000']),
    ('10 MB header', 'a.csv', r('content', 'c'*10_000_000), ['row 1 of the sheet', '1,000,000']),
    ('10 MB cell xlsx', 'a.xlsx', lambda: repack(xlsx(rows()), lambda b: b.replace(b'Wind at last', random.Random(0).randbytes(1_500_000).hex().encode())), [THREE, "column 'content'", '1,000,000']),
    ('10 MB cell parquet', 'a.parquet', lambda: parquet(rows(content=['', 'W'*10_000_000, ''])), [TWO, "column 'content'", '1,000,000']),
    ('long row', 'a.csv', r('Wind', 'Wind, wind'), [THREE, '8 cells where the header has 7']),
    ('short row', 'a.csv', r(',kite club', ''), [THREE, '6 cells where the header has 7']),
    ('one cell', 'a.csv', lambda: GOOD + 'the end\n', ['tweet 4 (row 5 of the sheet)', '1 cell where']),
    ('quote never closed', 'a.csv', r('Wind', '"Wind'), [THREE, 'never closed']),
    ('quote swallows rows', 'a.csv', r('Warm soup', '"Warm soup'), ['tweet 1 (row 2 of the sheet)', 'quotation mark']),
    ('text after a quote', 'a.csv', r('Wind at last', '"Wind "at" last"'), [THREE, 'written twice']),
    ('text as xlsx', 'a.xlsx', lambda: GOOD, ['not a .xlsx file']),
    ('text as parquet', 'a.parquet', lambda: GOOD, ['not a .parquet file']),
    ('xlsx as csv', 'a.csv', lambda: xlsx(rows()), ['not a .csv file', 'workbook']),
    ('parquet as csv', 'a.csv', lambda: parquet(rows()), ['not a .csv file', 'parquet']),
    ('parquet as xlsx', 'a.xlsx', lambda: parquet(rows()), ['not a .xlsx file', 'parquet']),
    ('gzip as csv', 'a.csv', lambda: b'\x1f\x8b' + bytes(20), ['gzip']),
    ('locked or old workbook', 'a.xlsx', lambda: b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(600), ['password']),
    ('cut xlsx', 'a.xlsx', lambda: xlsx(rows())[:-700], ['damaged']),
    ('zip, but no workbook', 'a.xlsx', lambda: zeros(1), ['damaged']),
    ('broken sheet', 'a.xlsx', lambda: repack(xlsx(rows()), lambda b: b[:len(b)//2]), ['damaged']),
    ('entities in a sheet', 'a.xlsx', lambda: repack(xlsx(rows()), lambda b: LAUGHS), ['damaged']),
    ('zip bomb', 'a.xlsx', lambda: zeros(80), ['unpack to 80 MB', 'not opened']),
    ('cut parquet', 'a.parquet', lambda: parquet(rows())[:-300], ['damaged']),
    ('parquet, first bytes only', 'a.parquet', lambda: b'PAR1', ['damaged']),
    ('lists for media', 'a.parquet', lambda: parquet(rows(media=[['a'], [], ['b']])), ["column 'media'", 'list']),
    ('bytes for text', 'a.parquet', lambda: parquet(rows(content=[b'\xff', b'a', b'b'])), ["column 'content'"]),
]

def sentence(name, need_likes=True):
    with pytest.raises(BadInput) as e: read_tweets(name, need_likes=need_likes)
    return str(e.value)

def is_sentence(s, name):
    assert s.startswith(name) and s.endswith('.') and s.isprintable() and len(s) < 400, s

@pytest.mark.parametrize('name,make,parts', [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_bad_file(name, make, parts):
    data = make()
    Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    limit, before = csv.field_size_limit(), set(os.listdir())
    s = sentence(name)
    is_sentence(s, name)
    for p in parts: assert p in s, s
    assert csv.field_size_limit() == limit and set(os.listdir()) == before

def test_there_are_many(): assert len(BAD) >= 40

def test_places():
    is_sentence(sentence('missing.csv'), 'missing.csv')
    Path('folder.csv').mkdir()
    assert 'folder' in sentence('folder.csv')
    Path('loop.csv').symlink_to('loop.csv')
    is_sentence(sentence('loop.csv'), 'loop.csv')
    is_sentence(sentence('x'*300 + '.csv'), 'x'*300)
    is_sentence(sentence('nul\0.csv'), r'nul\x00.csv')
    is_sentence(sentence(''), '')
    if hasattr(os, 'mkfifo'):
        os.mkfifo('pipe.csv')
        assert 'not a regular file' in sentence('pipe.csv')

def test_name_is_the_callers():
    Path('a b').mkdir()
    for name in ('./a b/ü.csv', 'a b/../a b/ü.csv', Path('a b/ü.csv')):
        Path(name).write_text('')
        assert sentence(name).startswith(str(name) + ':')

def test_hostile_file_name():
    Path('a\nb\x1b[31m.csv').write_text('')
    assert sentence('a\nb\x1b[31m.csv') == r'a\nb\x1b[31m.csv: the file is empty.'

@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='root reads everything')
def test_no_permission():
    Path('a.csv').write_text(GOOD); Path('a.csv').chmod(0)
    is_sentence(sentence('a.csv'), 'a.csv')

@pytest.mark.parametrize('wanted', [lambda c: 'x\ny\x1b[2J', lambda c: 'z'*500_000, lambda c: '‮evil', lambda c: '{} {0} %s'], ids=['lines', 'long', 'bidi', 'braces'])
@pytest.mark.parametrize('column', ['date', 'likes'])
def test_hostile_cell(wanted, column):
    t = rows().astype({'date': str, 'likes': str})
    t.loc[1, column] = wanted(column)
    t.to_csv('a.csv', index=False)
    s = sentence('a.csv')
    is_sentence(s, 'a.csv')
    assert TWO in s and f"column '{column}'" in s

def test_hostile_column_names():
    t = pd.concat([rows().rename(columns={'id': 'i\nd'}), pd.DataFrame(1, range(3), [f'c{i}\x1b' for i in range(500)])], axis=1)
    t.to_csv('a.csv', index=False)
    assert "'i\\nd'" in sentence('a.csv')
    assert len(sentence('a.csv')) < 400

# ---- what is read ----

def expected(): return rows().astype({'likes': float}).assign(date=lambda t: t.date.astype('datetime64[us]'))

@pytest.mark.parametrize('name,make', [
    ('a.csv', lambda: GOOD), ('A.CSV', lambda: GOOD), ('a.csv', lambda: b'\xef\xbb\xbf' + GOOD.encode()),
    ('a.csv', lambda: GOOD.strip()), ('a.csv', lambda: GOOD + '\n\r\n  \n'), ('a.csv', lambda: GOOD.replace('1,2020', '\n1,2020', 1)),
    ('a.csv', lambda: rows().to_csv(index=True)), ('a.csv', lambda: rows().to_csv(index=True, index_label='Unnamed: 0')),
    ('a.csv', lambda: rows().iloc[:, ::-1].to_csv(index=False)), ('a.csv', lambda: rows().to_csv(index=False, quoting=csv.QUOTE_ALL)),
    ('a.csv', lambda: rows().astype({'id': float, 'likes': float}).to_csv(index=False)), ('a.csv', lambda: GOOD.replace('likes,content', ' likes , content')),
    ('a.csv', lambda: GOOD.replace('2020-12-12 09:30:00', '2020-12-12T15:00:00+05:30')), ('a.csv', lambda: GOOD.replace('2020-12-12 09:30:00', '2020-12-12T09:30Z')),
    ('a.csv', lambda: GOOD.replace('2021-01-02 00:00:00', '2021-01-02')), ('a.csv', lambda: GOOD.replace('SoupHouse', ' SoupHouse ')),
    ('a.xlsx', lambda: xlsx(rows())), ('a.XLSX', lambda: xlsx(rows().astype({'id': float, 'likes': float}))), ('a.xlsx', lambda: xlsx(rows().astype(str))),
    ('a.xlsx', lambda: repack(xlsx(rows()), lambda b: b.replace(b'<dimension ref="A1:G4"', b'<dimension ref="A1:XFD1048576"').replace(b'<dimension ref="A1:G4"', b''))),
    ('a.parquet', lambda: parquet(rows())), ('a.Parquet', lambda: parquet(rows().astype({'id': float, 'likes': float}))),
    ('a.parquet', lambda: parquet(rows().set_index('id'))), ('a.parquet', lambda: parquet(rows().iloc[::-1].iloc[::-1].set_axis([5, 1, 9]))),
    ('a.parquet', lambda: parquet(rows().astype({'username': 'category'}))), ('a.parquet', lambda: parquet(rows(media=[None]*3))),
    ('a.parquet', lambda: parquet(rows(date=rows().date.dt.tz_localize('UTC').dt.tz_convert('Asia/Kolkata')))), ('a.parquet', lambda: parquet(rows().astype(str))),
    ('a.parquet', lambda: parquet(rows(date=rows().date.astype('datetime64[ns]')))),
])
def test_good_variety(name, make):
    data = make()
    Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    pd.testing.assert_frame_equal(read_tweets(name, need_likes=True), expected())

def test_old_mac_line_ends():
    Path('a.csv').write_bytes(GOOD.replace('\n', '\r').encode())
    assert read_tweets('a.csv').content[1] == 'Two lines,\rone "tweet" 🍜'

def test_words_for_nothing_stay_words():
    words = ['NA', 'null', 'None', 'nan', 'N/A', '#N/A', '', 'TRUE', '007', '1e5', ' spaced ', '=1+1', '-', "'", '"', '\t', ',']
    t = pd.DataFrame({'id': range(len(words)), 'date': '2020-01-01', 'username': 'nan', 'inferred company': 'null', 'content': words, 'media': words, 'caption': words})
    for suffix in ('.csv', '.xlsx', '.parquet'):
        back = read_tweets(write_tweets(t, 'a' + suffix))
        assert [*back.content] == [*back.media] == [*back.caption] == words, suffix
        assert set(back.username) == {'nan'} and set(back['inferred company']) == {'null'}

def test_without_likes_content_media():
    rows().drop(columns=['likes', 'content', 'media']).to_csv('a.csv', index=False)
    t = read_tweets('a.csv')
    assert [*t] == ['id', 'date', 'content', 'username', 'media', 'inferred company'] and (t.content == '').all() and (t.media == '').all()
    assert "column 'likes' missing" in sentence('a.csv')

def test_likes_with_gaps_where_nobody_needs_them():
    for suffix in ('.csv', '.xlsx', '.parquet'):
        back = read_tweets(write_tweets(rows(likes=[1, None, 3.5]), 'a' + suffix))
        np.testing.assert_array_equal(back.likes, [1, np.nan, 3.5])

def test_long_ids_are_exact():
    ids = [1337000000000000001, 1337000000000000002, 2**63-1]
    for suffix in ('.csv', '.parquet'): assert [*read_tweets(write_tweets(rows(id=ids), 'a' + suffix))['id']] == ids
    write_tweets(rows(id=[str(i) for i in ids]), 'a.xlsx')
    assert [int(i) for i in read_tweets('a.xlsx')['id']] == ids
    big = ['1', '2', '9'*30]
    assert [*read_tweets(write_tweets(rows(id=big), 'a.csv'))['id']] == big

def test_extra_columns_are_kept():
    write_tweets(rows(followers=[1, 2.5, None], note=['a', '', '3'], image_path=['a.png', '', None]), 'a.csv')
    t = read_tweets('a.csv')
    assert [*t] == [*TWEET_COLUMNS, 'followers', 'note', 'image_path']
    np.testing.assert_array_equal(t.followers, [1, 2.5, np.nan])
    assert [*t.note] == ['a', '', '3'] and [*t.image_path] == ['a.png', '', '']

def test_lone_carriage_return_survives():
    t = rows(content=['a\rb', '\r\n', 'x\r'])
    for suffix in ('.csv', '.parquet'): assert [*read_tweets(write_tweets(t, 'a' + suffix)).content] == [*t.content]

def test_write_refuses_and_leaves_nothing():
    Path('a.csv').mkdir(); Path('f').write_text('')
    for name in ('a.csv', 'f/b.csv', 'a.txt', 'a'):
        with pytest.raises(BadInput) as e: write_tweets(rows(), name)
        is_sentence(str(e.value), name)
    write_tweets(rows(), 'old.xlsx'); old = Path('old.xlsx').read_bytes()
    for cell in ('x'*40_000, 'bell\x07'):
        with pytest.raises(BadInput) as e: write_tweets(rows(content=['a', cell, 'b']), 'old.xlsx')
        assert TWO in str(e.value) and "column 'content'" in str(e.value)
    assert Path('old.xlsx').read_bytes() == old and sorted(os.listdir()) == ['a.csv', 'f', 'old.xlsx']

def test_write_leaves_its_argument_alone():
    t = rows(date=rows().date.dt.tz_localize('UTC')); before = t.copy()
    for suffix in ('.csv', '.xlsx', '.parquet'):
        assert read_tweets(write_tweets(t, 'a' + suffix)).date.equals(expected().date)
        pd.testing.assert_frame_equal(t, before)

@pytest.mark.parametrize('suffix', ['.csv', '.xlsx', '.parquet'])
def test_damage_anywhere(suffix):
    "A file cut or changed at random is read or refused with a sentence; nothing else happens."
    write_tweets(pd.concat([rows(id=[i, i+1, i+2]) for i in range(0, 60, 3)]), 'a' + suffix)
    good, rng = Path('a' + suffix).read_bytes(), random.Random(0)
    for k in range(150):
        data = bytearray(good)
        if k % 3 == 0: del data[rng.randrange(len(data)):]
        else:
            for _ in range(1 + k % 4): data[rng.randrange(len(data))] = rng.randrange(256)
        Path('b' + suffix).write_bytes(data)
        try: t = read_tweets('b' + suffix)
        except BadInput as e: is_sentence(str(e), 'b' + suffix)
        else: assert len(t) and {*_REQUIRED} <= {*t} and t['id'].is_unique

def test_real_rows():
    folder = DATA
    if folder is None: pytest.skip('no real rows: BEHAVIOUR_SIM_DATA is not set and there is no ../shared/data')
    read = 0
    for path in sorted(folder.glob('*.csv')):
        header = pd.read_csv(path, nrows=0).columns
        if not {*_REQUIRED} <= {*header}:
            assert 'missing; found' in sentence(path)
            continue
        t = read_tweets(path, need_likes='likes' in header)
        plain = pd.read_csv(path, keep_default_na=False, dtype=str)
        assert len(t) == len(plain) and t['id'].is_unique and t.date.notna().all()
        for c in {'content', 'media', 'caption'} & {*header}: assert [*t[c]] == [*plain[c]], (path.name, c)
        for c in ('username', 'inferred company'): assert [*t[c]] == [*plain[c].str.strip()], (path.name, c)
        if 'likes' in header: assert (t.likes >= 0).all()
        read += 1
    assert read


# ---- small files that hold much

def parquet_of(tmp_path, content, n):
    "A parquet file of one tweet n times, with this column of texts."
    import pyarrow as pa, pyarrow.parquet as pq
    one = sample_tweets(1).iloc[0]
    same = {c: pa.array([one[c]]*n) for c in ('date', 'username', 'inferred company', 'likes', 'media')}
    pq.write_table(pa.table({**same, 'id': pa.array(range(n)), 'content': content}), tmp_path/'t.parquet')
    return tmp_path/'t.parquet'

def test_a_dictionary_counts_with_what_it_stands_for(tmp_path):
    "76 KB that would take 4.5 GB as text are refused before they are spelled out."
    import pyarrow as pa
    path = parquet_of(tmp_path, pa.DictionaryArray.from_arrays(pa.array([0]*5000, pa.int32()), pa.array(['x'*900_000])), 5000)
    assert path.stat().st_size < 100_000
    with pytest.raises(BadInput, match='larger than 2 GB'): read_tweets(path)
    few = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(['one', 'two']))
    assert list(read_tweets(parquet_of(tmp_path, few, 3))['content']) == ['one', 'two', 'one']

def test_text_of_a_parquet_file_is_utf8(tmp_path):
    import pyarrow as pa
    torn = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b'\0\0\0\0\2\0\0\0'), pa.py_buffer(b'\xff\xfe')])
    with pytest.raises(BadInput, match='damaged'): read_tweets(parquet_of(tmp_path, torn, 1))

def test_no_post_has_more_likes_than_there_are_people(tmp_path):
    t = sample_tweets(3).astype({'likes': float})
    t.loc[1, 'likes'] = 1e308
    t.to_csv(tmp_path/'t.csv', index=False)
    with pytest.raises(BadInput, match=r"row 3 of the sheet.*'likes'.*more than a post can have"): read_tweets(tmp_path/'t.csv')

def test_a_table_of_very_many_columns_is_refused_at_once(tmp_path):
    (tmp_path/'t.csv').write_text(','.join(f'c{i}' for i in range(20_000)) + '\n')
    with pytest.raises(BadInput, match='20,000 columns'): read_tweets(tmp_path/'t.csv')
