"""Posts of any export: every shape is read back as it was written, near misses are read or refused, and hostile files end in one sentence."""
import datetime
import gzip
import io
import json
import os
import random
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from commands import told

from behaviour_sim.apps.exports import _EXPORTS, write_export
from behaviour_sim.apps.terminal import _plan_pieces
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data import post_files
from behaviour_sim.data.media import parse_media
from behaviour_sim.data.posts import read_posts
from behaviour_sim.data.tweets import read_tweets, write_tweets

# What a shape does not hold, or holds in part
MINUTES = {'twitter_analytics', 'meta', 'sprout'}
NO_COMPANY = {k for k in _EXPORTS if not k.startswith('challenge')} - {'hugging_face'}
FULL_MEDIA = {'x_archive', 'snscrape', 'snscrape_csv', 'twscrape', 'tweepy', 'apify', 'twarc', 'challenge', 'challenge_variant', 'challenge_json'}
KIND_ONLY = {'meta', 'hootsuite', 'sprout', 'buffer', 'twint', 'threads', 'web_exporter', 'hugging_face'}
GIF_AS = dict(threads='photo', twint='video') # They know of no gifs
NO_IDS, NO_LIKES, ONE_ACCOUNT = {'threads'}, {'threads'}, {'x_archive', 'threads'}
SOURCES = dict(x_content='X content CSV', twitter_analytics='Twitter analytics CSV', meta='Meta export', hootsuite='Hootsuite export', sprout='Sprout Social export',
    buffer='Buffer export', tiktok='TikTok export', twint='twint CSV', twarc='twarc CSV', social_feed_manager='Social Feed Manager export',
    tweet_harvest='tweet-harvest CSV', snscrape_csv='snscrape file', challenge='challenge file', challenge_variant='challenge file', kaggle='table', x_archive='X archive',
    snscrape='snscrape file', twscrape='twscrape file', apify='Apify data set', web_exporter='twitter-web-exporter file', challenge_json='challenge file',
    tweepy='X API v2 file', threads='Threads export', hugging_face='challenge file', workbook='table')
EPOCH = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=1288834974657)
# Rows through each reader; `make test-long` sends ten thousand
ROWS, EXAMPLES = int(os.environ.get('BEHAVIOUR_SIM_FUZZ_ROWS', 400)), 4


def read(kind, data, folder, **kwargs):
    path = Path(folder)/f'{kind}.any'
    path.write_bytes(data)
    return read_posts(path, replies=True, **kwargs)


# --- There and back ---

TEXTS = st.lists(st.text(st.characters(exclude_categories=['Cs', 'Cc']) | st.sampled_from('\n\t"\',;|\\=@#&<>{}[]'), max_size=40)
    .filter(lambda s: not re.match(r'RT @\w{1,20}:', s)), min_size=4, max_size=12)


def picture(rng): return f'https://pbs.example.com/media/{rng.getrandbits(48):x}?format=jpg&name=large'


def medium(rng):
    "A media string in the challenge's notation."
    kind = rng.choice(['', '', 'photo', 'photo', 'video', 'gif'])
    film = lambda w, b: f"VideoVariant(contentType='video/mp4', url='https://video.example.com/vid/{w}x360/{rng.getrandbits(40):x}.mp4?tag=12', bitrate={b})"
    if kind == 'photo': return '[' + ', '.join(f"Photo(previewUrl='{u}', fullUrl='{u}')" for u in (picture(rng) for _ in range(rng.randint(1, 4)))) + ']'
    if kind == 'gif': return f"[Gif(thumbnailUrl='{picture(rng)}', variants=[{film(480, 0)}])]"
    if kind == 'video': return f"[Video(thumbnailUrl='{picture(rng)}', variants=[{film(640, 832000)}, {film(1280, 2176000)}], duration={rng.randint(1, 600_000)/1000}, views={rng.randint(0, 10**7)})]"
    return ''


def table(texts, seed, n):
    "Posts with texts made of `texts`: ids of X that hold their times, or small ones."
    rng = random.Random(seed)
    names = [''.join(rng.choice('abcXYZ019_') for _ in range(rng.randint(2, 15))) for _ in range(4)]
    dates = [datetime.datetime(2011, 1, 1) + datetime.timedelta(seconds=rng.randrange(0, 18*365*86_400)) for _ in range(n)]
    if rng.random() < .3: dates = [d.replace(hour=0, minute=0, second=0) for d in dates]
    ids = [((d - EPOCH)//datetime.timedelta(milliseconds=1) << 22) + k for k, d in enumerate(dates)] if rng.random() < .6 else rng.sample(range(1, 10*n), n)
    likes = [float('nan') if rng.random() < .1 else float(int(rng.expovariate(1e-4))) for _ in range(n)]
    users = [rng.choice(names) for _ in range(n)]
    return pd.DataFrame({'id': ids, 'date': pd.to_datetime(pd.Series(dates)).astype('datetime64[us]'), 'likes': likes,
        'content': [rng.choice(texts) + rng.choice(['', ' ', rng.choice(texts)]) for _ in range(n)], 'username': users, 'media': [medium(rng) for _ in range(n)],
        'inferred company': [rng.choice(['acme foods', 'Café Ünïque', '株式会社']) for _ in range(n)]})


def the_same(kind, back, t):
    "Whatever the shape holds has come back with its value."
    assert back.attrs['report'].startswith(SOURCES[kind]), back.attrs['report']
    assert len(back) == len(t)
    if kind == 'x_content': assert back['id'].is_unique
    elif kind not in NO_IDS: assert [str(i) for i in back['id']] == [str(i) for i in t['id']]
    assert (back['date'] == (t['date'].dt.floor('min') if kind in MINUTES else t['date'])).all()
    if kind not in NO_LIKES: np.testing.assert_array_equal(back['likes'], t['likes'])
    assert back['content'].tolist() == t['content'].tolist()
    assert back['username'].tolist() == t['username'].tolist()
    assert back['inferred company'].tolist() == (t['username'].str.lower() if kind in NO_COMPANY else t['inferred company']).tolist()
    seen, wanted = ([parse_media(m) for m in x['media']] for x in (back, t))
    keys = ('kind', 'count', 'urls', 'duration', 'width', 'bitrate', 'n_variants') if kind in FULL_MEDIA else ('kind',) if kind in KIND_ONLY else ()
    for k in keys: assert str([m[k] for m in seen]) == str([GIF_AS.get(kind, 'gif') if m[k] == 'gif' else m[k] for m in wanted]), k


@pytest.mark.parametrize('kind', _EXPORTS)
def test_there_and_back(kind, tmp_path):
    "Rows through each reader lose nothing and change no value."
    rows = ROWS//EXAMPLES

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
    @given(texts=TEXTS, seed=st.integers(0, 2**32))
    def there_and_back(texts, seed):
        t = table(texts, seed, rows)
        if kind in ONE_ACCOUNT: t['username'] = t['username'].iloc[0]
        if kind == 'x_archive': t = t[~t['content'].str.match(r'RT @\w{1,20}:')].reset_index(drop=True)
        if kind == 'workbook': t['content'] = t['content'].str.replace(r'[\ufffe\uffff]|_x[0-9A-Fa-f]{4}_', '', regex=True)
        more = dict(account=t['username'][0]) if kind == 'threads' else dict(day_first=True) if kind == 'challenge_variant' else {}
        the_same(kind, read(kind, write_export(t, kind), tmp_path, **more), t)
    there_and_back()


def test_every_source_of_the_list_is_written():
    assert set(SOURCES) == set(_EXPORTS)
    with pytest.raises(BadInput, match='no kind of export'): write_export(sample_tweets(2), 'myspace')


def test_other_counts_come_back(tmp_path):
    t = sample_tweets(30).drop(columns='caption').assign(reposts=np.arange(30.), replies=1., quotes=2., bookmarks=3., impressions=1e5, views=7.)
    counts = dict(x_content='reposts replies bookmarks impressions', snscrape='reposts replies quotes', apify='reposts views bookmarks', meta='replies views', tweepy='reposts replies')
    for kind, names in counts.items():
        back = read(kind, write_export(t, kind), tmp_path)
        for c in names.split(): assert back[c].tolist() == t[c].tolist(), (kind, c)


def test_the_result_fits_a_file_of_ours(tmp_path):
    "What was read can be written and read strictly, with 19-digit ids in every format."
    t = read('x_content', write_export(sample_tweets(20), 'x_content'), tmp_path)
    assert (t['id'] > 10**17).all()
    for suffix in ('.csv', '.parquet'):
        back = read_tweets(write_tweets(t, tmp_path/f'a{suffix}'))
        assert back['id'].tolist() == t['id'].tolist() and back['date'].equals(t['date'])


# --- The challenge's own file ---

def test_the_challenge_s_file_is_read_as_ever(tmp_path):
    t = sample_tweets(40).assign(note='x', followers=3.5)
    for suffix in ('.csv', '.xlsx', '.parquet'):
        path = write_tweets(t, tmp_path/f'a{suffix}')
        pd.testing.assert_frame_equal(read_posts(path, need_likes=True), read_tweets(path, need_likes=True))


@pytest.mark.parametrize('change, why', [(dict(likes=-1), 'negative'), (dict(date='soon'), 'not a date'), (dict(id=1), 'already the id'), (dict(likes=''), 'likes are needed'), (dict(username=''), 'account')])
def test_a_fault_of_the_challenge_s_file_is_refused(change, why, tmp_path):
    sample_tweets(3).assign(**change).to_csv(tmp_path/'a.csv', index=False)
    with pytest.raises(BadInput, match=why) as e: read_posts(tmp_path/'a.csv', need_likes=True)
    assert '\n' not in str(e.value) and 'a.csv' in str(e.value)


# --- Values as people have them ---

HEAD = 'id,date,likes,content,username,media,inferred company\n'
ROW = dict(id='1', date='2021-03-04 10:00:00', likes='5', content='hello', username='Acme', media='', company='acme')
CLEAN = [1, pd.Timestamp('2021-03-04 10:00'), 5.0, 'hello', 'Acme', '', 'acme']


def cells(**change):
    "One row of the challenge's columns, quoted."
    return HEAD + ','.join('"' + v.replace('"', '""') + '"' for v in (ROW | change).values()) + '\n'


SAME = {name: (lambda v=v: v) for name, v in {
    'bom': '\ufeff' + cells(), 'semicolons': cells().replace(',', ';'), 'tabs': cells().replace(',', '\t'),
    'sep line': 'sep=,\n' + cells(), 'title row': 'My posts\n\n' + cells(), 'CR only': cells().replace('\n', '\r'), 'CRLF': cells().replace('\n', '\r\n'),
    'capitals': cells().replace('id,date,likes', 'Id,Date,LIKES'), 'underscore': cells().replace('inferred company', 'inferred_company'),
    'other names': cells().replace('likes,content', 'Favorite Count,Full_Text'), 'blank names': cells().replace('content,', 'content\u00a0 ,'),
    'guarded id': cells(id='="1"'), 'guarded likes': cells(likes="'5"), 'arabic digits': cells(likes='٥'), 'a float': cells(likes='5.0'),
    'twitter date': cells(date='Thu Mar 04 10:00:00 +0000 2021'), 'RFC 2822': cells(date='Thu, 04 Mar 2021 10:00:00 +0000'), 'zone': cells(date='2021-03-04 15:30:00+05:30'),
    'EST': cells(date='2021-03-04 05:00:00 EST'), 'epoch': cells(date='1614852000'), 'epoch ms': cells(date='1614852000000'), 'serial': cells(date='44259.416666666664'),
    'slashes': cells(date='2021/03/04 10:00:00'), 'AM': cells(date='2021-03-04 10:00 AM'), 'no-break blank': cells(date='2021-03-04\u00a010:00'), 'one digit': cells(date='2021-3-4 10:00'),
    'spelled': cells(date='March 4, 2021 10:00'), 'millisecond comma': cells(date='2021-03-04 10:00:00,000')}.items()}


@pytest.mark.parametrize('name', SAME)
def test_a_near_miss_is_read_as_its_clean_form(name, tmp_path):
    (tmp_path/'a.txt').write_text(SAME[name](), newline='', encoding='utf-8')
    t = read_posts(tmp_path/'a.txt')
    assert t.iloc[0].tolist() == CLEAN and len(t) == 1


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be', 'cp1252', 'utf-8-sig'])
def test_encodings(encoding, tmp_path):
    (tmp_path/'a.csv').write_bytes(cells(content='café “x”').encode(encoding))
    assert read_posts(tmp_path/'a.csv')['content'][0] == 'café “x”'


def test_compressed_and_from_standard_input(tmp_path, monkeypatch):
    data = cells().encode()
    (tmp_path/'a.csv.gz').write_bytes(gzip.compress(data))
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z: z.writestr('tweets.csv', data)
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(data)))
    for path in (tmp_path/'a.csv.gz', tmp_path/'a.zip', '-'): assert read_posts(path).iloc[0].tolist() == CLEAN


@pytest.mark.parametrize('text, likes', [('1,200', 1200), ('1 200', 1200), ('1\u202f200', 1200), ('1.2K', 1200), ('3M', 3e6), ('2.3k', 2300), ('1.2E+04', 12000), ('', None), ('N/A', None), ('-', None)])
def test_counts(text, likes, tmp_path):
    (tmp_path/'a.csv').write_text(cells(likes=text), encoding='utf-8')
    seen = read_posts(tmp_path/'a.csv')['likes'][0]
    assert seen == likes or likes is None and seen != seen


@pytest.mark.parametrize('change, why', [(dict(likes='1.200'), '1200 or 1.200'), (dict(likes='12.5'), 'whole'), (dict(likes='True'), 'number'), (dict(likes='0x1F'), 'number'), (dict(likes='1,2'), 'number'),
    (dict(likes='-3'), 'negative'), (dict(date='04/03/2021 10:00'), 'day or with the month'), (dict(date='2021-02-29'), 'calendar'), (dict(date='2021-03-04 10:00 IST'), 'several meanings'),
    (dict(date='2021'), 'not a date'), (dict(date=''), 'empty'), (dict(date='99999'), 'not a date')])
def test_what_has_two_meanings_or_none_is_refused(change, why, tmp_path):
    (tmp_path/'a.csv').write_text(cells(**change), encoding='utf-8')
    with pytest.raises(BadInput, match=why) as e: read_posts(tmp_path/'a.csv')
    assert 'a.csv' in str(e.value) and next(iter(change)) in str(e.value) and '\n' not in str(e.value)


def test_day_first_is_proved_or_told(tmp_path):
    days = lambda *dates: (tmp_path/'a.csv').write_text(HEAD + ''.join(f'{i},{d},1,x,a,,b\n' for i, d in enumerate(dates)))
    month = lambda **kw: read_posts(tmp_path/'a.csv', **kw)['date'].dt.month.tolist()
    days('04/03/2021 10:00', '25/03/2021 10:00'); assert month() == [3, 3]
    days('04/03/2021 10:00', '04/25/2021 10:00'); assert month() == [4, 4]
    days('04/03/2021 10:00'); assert month(day_first=True) == [3] and month(day_first=False) == [4]
    days('12-12-2020 00:47'); assert month() == [12]
    days('25/03/2021 10:00', '04/25/2021 10:00')
    with pytest.raises(BadInput, match='in others the month'): month()
    id = (datetime.datetime(2021, 3, 4, 10) - EPOCH)//datetime.timedelta(milliseconds=1) << 22
    (tmp_path/'a.csv').write_text(HEAD + f'{id},04/03/2021 10:00,1,x,a,,b\n'); assert month() == [3]


def test_a_zone_that_is_told(tmp_path):
    (tmp_path/'a.csv').write_text(cells(date='2021-07-01 12:00') + '2,2021-07-01T12:00:00Z,1,x,a,,b\n')
    t = read_posts(tmp_path/'a.csv', tz='America/New_York')
    assert t['date'].dt.hour.tolist() == [16, 12]
    with pytest.raises(BadInput, match='time zone'): read_posts(tmp_path/'a.csv', tz='Mars')


def test_days_only(tmp_path):
    "The hour comes from the id, else it is said to be unknown."
    t = sample_tweets(30)
    back = read('x_content', write_export(t, 'x_content'), tmp_path)
    assert back['date'].equals(t['date'].astype('datetime64[us]')) and 'the hours come from the ids' in back.attrs['report'] and back.attrs['hour_known']
    (tmp_path/'a.csv').write_text('Post id,Date,Post text,Post Link,Likes\n7,"Tue, Jul 14, 2026",hi,https://x.com/acme/status/7,3\n')
    back = read_posts(tmp_path/'a.csv')
    assert 'hours are unknown' in back.attrs['report'] and not back.attrs['hour_known'] and str(back['date'][0]) == '2026-07-14 00:00:00'


# --- Ids ---

@pytest.mark.parametrize('ids', [['1.23E+18', '1.23E+18'], ['1.23E+18', '1.24E+18'], ['1294030472427830000', '1294030472427840000']])
def test_ids_that_excel_has_rounded(ids, tmp_path):
    "Said, and replaced; the posts keep their places."
    (tmp_path/'a.csv').write_text(HEAD + ''.join(f'{i},2021-03-04 10:0{n}:00,{n},x,a,,b\n' for n, i in enumerate(ids)))
    t = read_posts(tmp_path/'a.csv')
    assert t['id'].is_unique and t['likes'].tolist() == [0, 1] and 'rounded to 15 digits' in t.attrs['report']
    assert not set(map(str, t['id'])) & set(ids)


def test_ids_that_are_numbers_in_a_workbook(tmp_path):
    book = openpyxl.Workbook(); sheet = book.active
    sheet.append(HEAD.strip().split(','))
    for id in (1294030472427835393, 1294030472427835394, 12): sheet.append([id, '2021-03-04 10:00:00', 1, 'x', 'a', '', 'b'])
    book.save(tmp_path/'a.xlsx')
    t = read_posts(tmp_path/'a.xlsx')
    assert t['id'].tolist() == ['new-2', 'new-3', '12'] and '2 ids rounded' in t.attrs['report']


# --- What is left out ---

def test_what_is_left_out_is_said(tmp_path):
    rows = [('1', 'hi', '3'), ('2', '@bob yes', '1'), ('3', 'RT @bob: no', '0'), ('4', 'later', ''), ('5', 'same', '2'), ('5', 'same', '2')]
    (tmp_path/'a.csv').write_text('Post id,Date,Post text,Post Link,Likes\n' + ''.join(f'{i},"Tue, Jul 14, 2026",{t},https://x.com/acme/status/{i},{l}\n' for i, t, l in rows) + 'Total,,,,8\n')
    t = read_posts(tmp_path/'a.csv', need_likes=True)
    assert t['content'].tolist() == ['hi', 'same']
    assert 'left out: 1 total row, 1 repost, 1 reply, 1 post without likes, 1 repeated post' in t.attrs['report']
    assert len(read_posts(tmp_path/'a.csv')) == 3 and len(read_posts(tmp_path/'a.csv', replies=True)) == 4


def test_a_thread_stays(tmp_path):
    tweet = lambda id, text, **more: {'tweet': dict(id_str=id, full_text=text, created_at='Wed Oct 10 20:19:24 +0000 2018', favorite_count='1', **more)}
    tweets = [tweet('1', 'one'), tweet('2', 'two', in_reply_to_screen_name='Acme', in_reply_to_status_id_str='1'), tweet('3', 'yes', in_reply_to_screen_name='bob')]
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
        z.writestr('x/data/tweets.js', 'window.YTD.tweets.part0 = ' + json.dumps(tweets)); z.writestr('x/data/account.js', 'window.YTD.account.part0 = [{"account": {"username": "acme"}}]')
        z.writestr('x/data/tweets_media/1-abc.jpg', b'\xff\xd8picture'); z.writestr('x/data/tweets_media/3-../../../evil.jpg', b'')
    t = read_posts(tmp_path/'a.zip')
    assert t['content'].tolist() == ['one', 'two'] and t['username'].unique().tolist() == ['acme']
    assert Path(t['image_path'][0]).read_bytes() == b'\xff\xd8picture' and t['image_path'][1] == ''
    with zipfile.ZipFile(tmp_path/'a.zip') as z: z.extractall(tmp_path/'folder')
    assert read_posts(tmp_path/'folder')['content'].tolist() == ['one', 'two']


def test_one_account_of_several(tmp_path):
    t = read('snscrape', write_export(sample_tweets(40), 'snscrape'), tmp_path)
    name = t['username'].value_counts().index[0]
    one = read_posts(tmp_path/'snscrape.any', account='@' + name.upper(), company='Acme Foods')
    assert set(one['username']) == {name} and set(one['inferred company']) == {'Acme Foods'} and 'of other accounts' in one.attrs['report']
    with pytest.raises(BadInput, match='no post is left'): read_posts(tmp_path/'snscrape.any', account='nobody')


def test_columns_that_are_told(tmp_path):
    (tmp_path/'a.csv').write_text('When,Words,Hearts,Who\n2021-03-04 10:00,hello,3,acme\n')
    with pytest.raises(BadInput, match='no column of date'): read_posts(tmp_path/'a.csv')
    t = read_posts(tmp_path/'a.csv', columns=dict(date='when', content='Words', likes='hearts', username='Who'))
    assert t[['likes', 'content', 'username']].iloc[0].tolist() == [3, 'hello', 'acme']
    with pytest.raises(BadInput, match="'Hearts' looks like 'heart'"): read_posts(tmp_path/'a.csv', columns={'likes': 'heart'})
    with pytest.raises(BadInput, match='no column of posts'): read_posts(tmp_path/'a.csv', columns={'colour': 'Who'})


# --- Media ---

@pytest.mark.parametrize('media, kind, count', [('photo', 'photo', 1), ('Video', 'video', 1), ('gif', 'gif', 1), ('none', 'none', 0), ('2 photos', 'photo', 2), ('photos', 'photo', 1),
    ('https://pbs.example.com/a.jpg', 'photo', 1), ("['https://pbs.example.com/a.jpg']", 'photo', 1), ('[{"id": 861627472244162561, "type": "video", "media_url_https": "https://pbs.example.com/a.jpg"}]', 'video', 1)])
def test_media_in_every_form(media, kind, count, tmp_path):
    (tmp_path/'a.csv').write_text(cells(media=media).replace('likes', 'Likes'))
    seen = parse_media(read_posts(tmp_path/'a.csv')['media'][0])
    assert (seen['kind'], seen['count']) == (kind, count)


# --- Hostile files ---

def bomb(name, data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as z: z.writestr(name, data)
    return out.getvalue()


ZEROS = b'0'*60_000_000
HOSTILE = {'empty': b'', 'blank': b' \n ', 'NUL': cells(content='a\0b').encode(), 'binary': bytes(range(256))*40, 'cut zip': bomb('data/tweets.js', b'[]')[:-10], 'old excel': b'\xd0\xcf\x11\xe0' + b'0'*99,
    'zip of nothing': bomb('readme.txt', b'x'), 'zip bomb': lambda: bomb('data/tweets.js', ZEROS), 'gzip bomb': lambda: gzip.compress(ZEROS, 9), 'cut gzip': gzip.compress(b'x'*9999)[:40],
    'deep': b'['*200_000, 'deep lines': b'{"a":1}\n{"a":' + b'['*200_000, 'no list': b'7', 'empty list': b'[]', 'list of numbers': b'[1, 2]', 'cut json': b'[{"id": 1, "date": "2020-01-01"', 'bad line': b'{"id": 1}\n{"id": \n{"id": 3}',
    'long cell': cells(content='x'*1_000_001).encode(), 'long number': b'[{"id": ' + b'9'*5000 + b'}]', 'not parquet': b'PAR1' + b'0'*99, 'code': b'[__import__("os").getpid()]', 'header only': HEAD.encode(),
    'unclosed quote': (HEAD + '1,"2021').encode(), 'long row': (cells() + '1,2,3,4,5,6,7,8\n').encode(), 'short row': (cells() + '1,2,3\n').encode(), 'invalid UTF-8': (HEAD + '1,éèêéèê').encode() + b'\xff'}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_end_in_one_sentence(name, tmp_path):
    data = HOSTILE[name]
    (tmp_path/'a.any').write_bytes(data() if callable(data) else data)
    with pytest.raises(BadInput) as e: read_posts(tmp_path/'a.any', account='acme')
    assert 'a.any' in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < 900


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(BadInput, match='no such file'): read_posts(tmp_path/'none.csv')
    with pytest.raises(BadInput, match='no data/tweets.js'): read_posts(tmp_path)


def test_members_that_unpack_to_too_much_are_not_read(tmp_path, monkeypatch):
    "Judged by their entries, one by one and together, before anything is unpacked."
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
        for n in range(3): z.writestr(f'data/tweets-part{n}.js', random.Random(n).randbytes(1000))
    monkeypatch.setattr(zipfile.ZipFile, 'open', lambda *_, **__: pytest.fail('it was opened'))
    monkeypatch.setattr(post_files, '_MAX_UNPACKED', 2500)
    with pytest.raises(BadInput, match='more than 1 GB'): read_posts(tmp_path/'a.zip')
    monkeypatch.setattr(post_files, '_MAX_UNPACKED', 500)
    with pytest.raises(BadInput, match='would unpack|more than'): read_posts(tmp_path/'a.zip')


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=3) |
    st.dictionaries(st.sampled_from(['id', 'date', 'likes', 'text', 'user', 'media', 'data', 'includes', 'tweet']), x, max_size=4), max_leaves=12).map(lambda x: json.dumps(x).encode()))
def test_any_bytes_give_posts_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp()/'any.bin'
    path.write_bytes(data)
    try: read_posts(path, account='acme')
    except BadInput as e: assert '\n' not in str(e)


# --- Plans ---

def test_plans_of_buffer_and_hootsuite():
    t = pd.concat([sample_tweets(100)]*4)
    buffer, hootsuite = _plan_pieces(t, 'buffer'), _plan_pieces(t, 'hootsuite')
    assert len(buffer) == 4 and len(hootsuite) == 2
    first = pd.read_csv(io.StringIO(buffer[0]), keep_default_na=False)
    assert list(first) == ['Text', 'Image URL', 'Tags', 'Posting Time'] and len(first) == 100
    assert first['Posting Time'].str.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d').all() and first['Text'].tolist() == t['content'].tolist()[:100]
    rows = pd.read_csv(io.StringIO(hootsuite[0]), header=None, keep_default_na=False)
    assert rows.shape == (350, 3) and rows[1].tolist() == t['content'].tolist()[:350]


# --- The command line ---

def test_convert(tmp_path):
    t = sample_tweets(50)
    write_export(t, 'x_content', tmp_path/'content.csv')
    for suffix in ('csv', 'parquet', 'xlsx'):
        code, out, err = told('convert', 'content.csv', '--out', f'posts.{suffix}', cwd=tmp_path)
        assert code == 0 and out.startswith(f'posts.{suffix}: ') and err.count('\n') == 1 and 'X content CSV, ' in err
        back = read_posts(tmp_path/f'posts.{suffix}')
        assert back['id'].tolist() == read_posts(tmp_path/'content.csv')['id'].tolist() and back.attrs['report'].startswith('challenge file')
    cell = openpyxl.load_workbook(tmp_path/'posts.xlsx').active['A2']
    assert cell.data_type == 's' and int(cell.value) == back['id'][0]


def test_convert_is_told_what_it_cannot_see(tmp_path):
    (tmp_path/'a.csv').write_text('When,Words,Hearts\n4/3/2021 10:00,hello,"1,200"\n4/3/2021 11:00,@bob,\n')
    given = ['convert', 'a.csv', '--out', 'o.csv', '--account', '@Acme', '--company', 'Acme Foods', '--columns', 'date=When,content=Words,likes=hearts', '--tz', '+02:00', '--day-first']
    assert told(*given, cwd=tmp_path)[0] == 0
    t = read_tweets(tmp_path/'o.csv')
    assert t['date'].astype(str).tolist() == ['2021-03-04 08:00:00', '2021-03-04 09:00:00'] and t['likes'].tolist()[0] == 1200 and np.isnan(t['likes'][1])
    assert set(t['username']) == {'Acme'} and set(t['inferred company']) == {'Acme Foods'}
    for options, why in {(): 'no column of date', ('--columns', 'date'): 'write it as', ('--columns', 'date=When', '--account', 'a'): 'day or with the month'}.items():
        code, out, err = told('convert', 'a.csv', '--out', 'no.csv', *options, cwd=tmp_path)
        assert code == 2 and out == '' and err.count('\n') == 1 and why in err and not (tmp_path/'no.csv').exists()
    assert told('convert', 'a.csv', '--out', 'a.csv', cwd=tmp_path)[0] == 2


def test_every_command_reads_exports(tmp_path):
    "A model from an X content CSV, predictions for an archive; the challenge's columns are read without a word."
    t = sample_tweets(160).drop(columns='caption')
    write_export(t, 'x_content', tmp_path/'content.csv'); write_export(t[:20], 'x_archive', tmp_path/'archive.zip'); write_tweets(t[:9], tmp_path/'own.csv')
    code, out, err = told('fit', 'content.csv', '--model', 'm', '--preset', 'tiny', cwd=tmp_path)
    assert code == 0 and 'content.csv: X content CSV, ' in err and 'fitted on' in out
    code, out, err = told('predict', 'archive.zip', '--model', 'm', '--out', 'p.csv', cwd=tmp_path)
    assert code == 0 and 'X archive, 20 posts of 1 account read' in err and len(pd.read_csv(tmp_path/'p.csv')) == 20
    code, out, err = told('predict', 'own.csv', '--model', 'm', '--out', 'p.csv', cwd=tmp_path)
    assert code == 0 and all('never seen' in l for l in err.splitlines())


def test_long_ids_are_text_in_a_workbook(tmp_path):
    from behaviour_sim.table_files import _write_table
    ids = [1294030472427835393, 1294030472427835394]
    _write_table(pd.DataFrame({'id': ids, 'likes': [1, 2]}), tmp_path/'p.xlsx')
    sheet = openpyxl.load_workbook(tmp_path/'p.xlsx').active
    assert [sheet[c].value for c in ('A2', 'A3', 'B2')] == [*map(str, ids), 1]
    t = sample_tweets(2).assign(id=ids)
    assert read_tweets(write_tweets(t, tmp_path/'t.xlsx'))['id'].tolist() == ids
    assert openpyxl.load_workbook(tmp_path/'t.xlsx').active['A2'].data_type == 's', 'Excel would keep fifteen digits of a number'
