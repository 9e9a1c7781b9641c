"The media parser against an `ast` oracle, generated strings and damaged ones."
import ast, math, random, re, time
from dataclasses import dataclass

import pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from behaviour_sim.core import data_dir
from behaviour_sim.data.media import MAX_MEDIA, MEDIA_COLUMNS, POST_PUBLICATION, media_table, parse_media


@dataclass
class Photo: previewUrl: str; fullUrl: str
@dataclass
class VideoVariant: contentType: str; url: str; bitrate: int|None
@dataclass
class Video: thumbnailUrl: str; variants: list; duration: float|None; views: int|None
@dataclass
class Gif: thumbnailUrl: str; variants: list

CLASSES = {c.__name__: c for c in (Photo, VideoVariant, Video, Gif)}

def build(node):
    "Turn a syntax tree of lists, constants and the four classes into objects; anything else is an error."
    if isinstance(node, ast.List): return [build(e) for e in node.elts]
    if isinstance(node, ast.Constant): return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return CLASSES[node.func.id](**{k.arg: build(k.value) for k in node.keywords})
    raise ValueError('not a media string')

def facts(items):
    "What `parse_media` should say of `items`, written the plain way."
    nan = math.nan
    row = dict(kind='none', count=len(items), url='', duration=nan, width=nan, height=nan, bitrate=nan, n_variants=0, views=nan,
               urls=tuple(getattr(i, 'fullUrl', None) or i.thumbnailUrl for i in items), error='')
    if not items: return row
    row['url'] = row['urls'][0]
    lead = next((i for c in (Video, Gif, Photo) for i in items if type(i) is c))
    row['kind'] = type(lead).__name__.lower()
    if isinstance(lead, Photo): return row
    row['n_variants'] = len(lead.variants)
    row['bitrate'] = float(max((v.bitrate for v in lead.variants if v.bitrate is not None), default=nan))
    sizes = [tuple(map(float, s)) for v in lead.variants for s in re.findall(r'/([0-9]{2,5})x([0-9]{2,5})/', v.url)]
    if sizes: row['width'], row['height'] = max(sizes, key=lambda s: s[0]*s[1])
    if isinstance(lead, Video):
        row['duration'] = nan if lead.duration is None else float(lead.duration)
        row['views'] = nan if lead.views is None else float(lead.views)
    return row

def oracle(s): return facts(build(ast.parse(s.strip(), mode='eval').body))

def same(a, b): return a.keys() == b.keys() and all(a[k] == b[k] or (a[k] != a[k] and b[k] != b[k]) for k in a)


url_chars = "ABCxyz019-._~:/?#[]@!$&'()*+,;=%"
urls = st.builds(lambda s, t: s+t, st.sampled_from(['http://', 'https://', 'https://video.example.com/vid/1280x720/', 'https://a/']),
                 st.text(url_chars, min_size=1, max_size=60) | st.just('/640x360/it(s)'))
counts = st.none() | st.integers(0, 10**15-1)
variants = st.lists(st.builds(VideoVariant, st.sampled_from(['video/mp4', 'application/x-mpegURL']), urls, counts), max_size=5)
items = st.lists(st.builds(Photo, urls, urls) | st.builds(Gif, urls, variants) |
                 st.builds(Video, urls, variants, st.none() | st.floats(0, 1e8), counts), max_size=4)

@given(items)
@settings(max_examples=400, deadline=None)
def test_what_python_prints_is_read_back(xs):
    s = repr(xs)
    got = parse_media(s)
    assert same(got, facts(xs)), s
    assert same(got, oracle(s))

def check_row(s):
    "Whatever `s` is: a row, never an exception, and nothing but http(s) addresses."
    row = parse_media(s)
    assert tuple(row) == MEDIA_COLUMNS and row['kind'] in ('photo', 'video', 'gif', 'none', 'error')
    assert (row['kind'] == 'error') == bool(row['error'])
    assert all(u.startswith(('http://', 'https://')) and u.isascii() and u.isprintable() and ' ' not in u for u in row['urls'])
    if row['kind'] in ('none', 'error'): assert not row['urls'] and not row['count']
    for k in ('duration', 'width', 'height', 'bitrate', 'views'): assert row[k] != row[k] or 0 <= row[k] < 1e16
    return row

@given(st.text(max_size=300) | st.binary(max_size=50) | st.none() | st.integers() | st.floats() | st.lists(st.text()))
@settings(max_examples=400, deadline=None)
def test_arbitrary_input_never_raises(s): check_row(s)

def agrees(row, s):
    "Where `s` still is what the four classes print, the row says what they say."
    if row['kind'] == 'error' or not s.strip(): return True
    try: want = oracle(s)
    except (ValueError, SyntaxError, TypeError, AttributeError, LookupError, StopIteration): return True
    return repr(build(ast.parse(s.strip(), mode='eval').body)) != s or same(row, want)

pieces = ["[", "]", "(", ")", ", ", "'", '"', "\\", "\0", "Photo(", "Video(", "Gif(", "previewUrl=", "fullUrl=", "thumbnailUrl=", "variants=[",
          "VideoVariant(contentType=", "'video/mp4'", "url=", "bitrate=", "None", "duration=", "views=", "1e999", "nan", "-1", "9"*40,
          "'https://a/b'", "'javascript:alert(1)'", "__import__('os')", "é", "\u202e", "\n"]

@given(st.lists(st.sampled_from(pieces), max_size=40))
@settings(max_examples=400, deadline=None)
def test_shuffled_pieces_never_raise(xs): check_row(''.join(xs))

@given(items.filter(bool), st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_string_is_refused_or_read_as_python_reads_it(xs, data):
    s = repr(xs)
    i = data.draw(st.integers(0, len(s)))
    j = data.draw(st.integers(i, min(len(s), i+5)))
    s = s[:i] + data.draw(st.sampled_from(pieces+[''])) + s[j:]
    row = check_row(s)
    assert agrees(row, s), s
    table = media_table([s], post_publication=True).to_dict('records')[0]
    assert same(table, {k: row[k] for k in table}), s

@pytest.mark.parametrize('unit', ["Photo(", "[", "Photo(previewUrl='https://a", "Photo(previewUrl='https://a', fullUrl='https://b'), ",
    "VideoVariant(contentType='v/m', url='https://a', bitrate=1), ", "'", '"https://', "\0", "😀", "Gif(thumbnailUrl='https://a', variants=["])
def test_long_hostile_strings_are_quick(unit):
    for start in ('[', '', "[Video(thumbnailUrl='https://a', variants=["):
        s = (start + unit*MAX_MEDIA)[:MAX_MEDIA]
        t = time.perf_counter()
        assert parse_media(s)['kind'] == 'error'
        assert time.perf_counter()-t < .5
    assert 'longer than' in parse_media(s+'x')['error']

def test_errors_do_not_repeat_the_text():
    assert 'secret' not in parse_media("[Photo('secret')]")['error']

@given(st.lists(items.map(repr) | st.text(max_size=20) | st.none(), max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_table_is_parse_media_row_by_row(xs):
    index = [f'r{i}' for i in range(len(xs))]
    table = media_table(pd.Series(xs, index=index, dtype=object), post_publication=True)
    assert list(table.index) == index and list(table.columns) == [c for c in MEDIA_COLUMNS if c != 'urls']
    for s, row in zip(xs, table.to_dict('records')):
        want = parse_media(s); del want['urls']
        assert same(row, want)

@pytest.mark.parametrize('long', [dict(kind='video/'+'m'*n) for n in (39, 40, 41, 2000)] + [dict(url='https://a/'+'b'*n) for n in (1800, 1960, 2020, 2040, 2041, 2048, 2100)])
def test_the_bounds_are_the_same_in_the_table(long):
    for s in (repr([Video('https://a/b.jpg', [VideoVariant(long.get('kind', 'v/m'), long.get('url', 'https://a/b'), 7)], 3.0, 10)]), repr([Photo('https://a/b', long.get('url', 'https://a/b'))])):
        row, table = parse_media(s), media_table([s], post_publication=True).to_dict('records')[0]
        assert same(table, {k: row[k] for k in table}), s

def test_views_stay_out_unless_asked_for():
    s = repr([Video('https://a/b.jpg', [], 3.0, 10)])
    assert media_table([s])[list(POST_PUBLICATION)].isna().all(axis=None)
    assert media_table([s], post_publication=True).views[0] == 10


@pytest.fixture(scope='module')
def real():
    d = data_dir()
    if d is None: pytest.skip('the real rows are not here (BEHAVIOUR_SIM_DATA or ../shared/data)')
    files = sorted(f for f in d.glob('*simulation*.csv'))
    return pd.concat([pd.read_csv(f, usecols=['media']).media for f in files], ignore_index=True)

def test_real_rows_agree_with_the_oracle(real):
    table = media_table(real, post_publication=True)
    assert len(table) > 40_000 and not (table.kind == 'error').any()
    for s in real.unique(): assert same(parse_media(s), oracle(s))
    rows = pd.DataFrame([parse_media(s) for s in real]).drop(columns='urls')
    pd.testing.assert_frame_equal(table, rows, check_dtype=False)

def test_real_rows_with_a_mutation(real):
    rng = random.Random(42)
    for s in real.sample(1500, random_state=42):
        i = rng.randrange(len(s))
        hurt = rng.choice([s[:i], s[i:], s[:i]+s[i+1:], s[:i]+rng.choice(pieces)+s[i:], s[:i]+s[i:][::-1], s+s, s.replace("'", '"'), s.replace('=', ':')])
        row = check_row(hurt)
        assert agrees(row, hurt), hurt


pic, film = 'https://a.example.com/b.jpg?x=1&name=large', 'https://a.example.com/vid/640x360/c.mp4'
FORMS = {
    'more keys': (f"[Photo(previewUrl='{pic}', fullUrl='{pic}', altText=None)]", 'photo'),
    'other order': (f"[Photo(altText='a (b), [c]', fullUrl='{pic}', previewUrl='{pic}')]", 'photo'),
    'escapes': (f"[Photo(fullUrl='{pic}', altText='It\\'s \\u00e9 \\n')]", 'photo'),
    'double quotes': (f'[Photo(previewUrl="{pic}", fullUrl="{pic}", altText="It\'s")]', 'photo'),
    'doubled quotes': (f'[Photo(previewUrl=""{pic}"", fullUrl=""{pic}"")]', 'photo'),
    'dotted class': (f"[snscrape.modules.twitter.Photo(previewUrl='{pic}', fullUrl='{pic}')]", 'photo'),
    'no list': (f"Photo(previewUrl='{pic}', fullUrl='{pic}')", 'photo'),
    'no duration': (f"[Video(thumbnailUrl='{pic}', variants=[VideoVariant(contentType='video/mp4', url='{film}', bitrate=7)], duration=None, views=None, altText=None)]", 'video'),
    'animated gif': (f"[AnimatedGif(thumbnailUrl='{pic}', variants=[])]", 'gif'),
    'JSON': (f'[{{"type": "photo", "media_url_https": "{pic}"}}]'.replace('//', '\\/\\/'), 'photo'),
    'dicts': (f"[{{'_type': 'snscrape.modules.twitter.Photo', 'fullUrl': '{pic}'}}]", 'photo'),
    'grouped': (f"{{'photos': [], 'videos': [{{'thumbnailUrl': '{pic}', 'variants': [], 'duration': 3}}], 'animated': []}}", 'video'),
    'API v1': (f'{{"media": [{{"type": "animated_gif", "media_url_https": "{pic}", "video_info": {{"variants": []}}}}]}}', 'gif'),
    'API v2': (f'[{{"type": "video", "preview_image_url": "{pic}", "duration_ms": 3000, "width": 640, "height": 360}}]', 'video'),
    'addresses': (f"['{pic}', '{pic}']", 'photo'), 'an address': (pic, 'photo'), 'with commas': (f'{pic}, {pic}', 'photo'),
    '&amp;': (f"[Photo(previewUrl='{pic}', fullUrl='{pic}')]".replace('&', '&amp;'), 'photo'),
    'a list': ([dict(type='photo', url=pic)], 'photo')}

@pytest.mark.parametrize('name', FORMS)
def test_other_forms_are_read(name):
    s, kind = FORMS[name]
    row = check_row(s)
    assert (row['kind'], row['url'], row['error']) == (kind, pic, '')
    assert row['count'] == len(row['urls']) >= 1

def test_the_facts_of_a_film_in_other_forms():
    row = parse_media(FORMS['no duration'][0])
    assert (row['width'], row['height'], row['bitrate'], row['n_variants']) == (640, 360, 7, 1) and row['duration'] != row['duration']
    row = parse_media(FORMS['API v2'][0])
    assert (row['duration'], row['width']) == (3, 640)

@pytest.mark.parametrize('s', ['photo', 'Video', 'gif'])
def test_a_kind_alone(s): assert (parse_media(s)['kind'], parse_media(s)['url']) == (s.lower(), '')

@pytest.mark.parametrize('s', ['None', 'null', 'nan', '{}', '[None]', '-', [], {}])
def test_words_for_nothing(s): assert parse_media(s)['kind'] == 'none'

@pytest.mark.parametrize('s', ["Photo(fullUrl=open('x'))", "[Photo(fullUrl='https://a'+'b')]", "[Poll(a=1)]", "{'type': 'photo', 'url': 'javascript:alert(1)'}",
    "[Photo(fullUrl='file:///etc/passwd')]", "[os.system('x')]", '7', "[[['https://a/b']]]", "{'a': "*3000])
def test_other_forms_are_refused(s): assert parse_media(s)['kind'] == 'error'

def test_the_report_counts_what_is_unread():
    from behaviour_sim.data.media import _media_report
    assert _media_report(media_table([pic, ''])) is None
    assert '1 of 2 tweets' in _media_report(media_table([pic, '[Poll(a=1)]']))
