"""Thousands of mutated tweets, and files that nobody meant: a row or one clear sentence, never a crash, a hang or an evaluation."""
import builtins, contextlib, csv, io, os, random, re, signal, time
from pathlib import Path

import fuzz
import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from behaviour_sim.data.cleaning import CLEAN_STEPS, LIGHT_STEPS, REPORT_STEPS, clean_text, time_since_last_tweet, temporal_features
from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import TWEET_COLUMNS, _REQUIRED, read_tweets, write_tweets
from behaviour_sim.data.media import MAX_MEDIA, media_table, parse_media
from behaviour_sim.likes.simulator import LikesSimulator

LONG = bool(os.environ.get('BEHAVIOUR_SIM_LONG')) # `make test-long`: ten thousand rows, and four times the examples
DATA, N = data_dir(), 10_000 if LONG else 3_000 # before a test changes the folder


@contextlib.contextmanager
def nothing_is_run(seconds=60):
    "No `eval`, `exec` or `compile` of Python while this lasts, no command, no other program, and an end after so many seconds."
    called, real = [], {}
    places = [(builtins, n) for n in ('eval', 'exec', 'compile', '__import__')] + [(os, n) for n in ('system', 'popen', 'execv', 'posix_spawn', 'fork') if hasattr(os, n)]
    for where, name in places:
        real[where, name] = f = getattr(where, name)
        def spy(*args, _f=f, _name=name, **kw):
            if _name == '__import__' and (args[0].partition('.')[0] not in ('os', 'subprocess', 'pty', 'pickle') or len(args) > 1 and args[1]): return _f(*args, **kw)
            called.append(_name)
            raise AssertionError(f'{_name} was called')
        setattr(where, name, spy)
    def late(*_): raise TimeoutError('it hangs')
    old = signal.signal(signal.SIGALRM, late) if hasattr(signal, 'SIGALRM') else None
    try:
        if old is not None: signal.alarm(seconds)
        yield
    finally:
        if old is not None: signal.alarm(0); signal.signal(signal.SIGALRM, old)
        for (where, name), f in real.items(): setattr(where, name, f)
    assert not called, called # also where somebody swallowed the exception

def test_the_guard_sees_an_evaluation():
    for f in (lambda: eval('1'), lambda: exec('1'), lambda: compile('1', '', 'eval'), lambda: os.system('true'), lambda: __import__('subprocess'), lambda: eval("__import__('os')")):
        with pytest.raises(AssertionError):
            with nothing_is_run(5):
                with contextlib.suppress(AssertionError): f() # also where somebody swallows it
    with pytest.raises(TimeoutError), nothing_is_run(1): time.sleep(3)


# --- Thousands of mutated tweets ---

PIECES = ["'", '"', '\\', '\n', '\r', '\r\n', '\t', ',', ';', '[', ']', '(', ')', '{}', '%s', '\0', '\x1b[2J', '\x7f', '\u202e', '\u200b', '\ufeff', '\ufffd', '\U0001f9a0', '👨‍👩‍👧', 'e\u0301'*9, '&#x110000;', '&#0;', '&amp;'*9,
    "__import__('os').system('touch pwned')", "'+__import__('os').system('touch pwned')+'", '=cmd|"/c calc"!A1', '@SUM(1+1)', '${jndi:ldap://x}', '{{7*7}}', '<script>alert(1)</script>', "'; DROP TABLE tweets;--", '</s>[INST]', '../../etc/passwd',
    'nan', 'None', 'NULL', 'inf', '-inf', '-1', '1e999', '0x10', '١٢٣', '1_000', '1,5', '9'*400, '-0', 'true', '2020-13-45', '2020-02-30', '0000-00-00', '9999-12-31', '1e18', '2020-01-01T00:00:00+99:99', '2020-W01', 'now', 'today',
    "[Photo(", "Video(thumbnailUrl='https://a", 'variants=[', 'duration=-1', 'views=1e400', 'bitrate=None', "file:///etc/passwd", 'http://169.254.169.254/']

def mutate(text, other, rng):
    "`text` hurt in one of a dozen ways; `other` is some other cell."
    i, j = sorted(rng.randrange(len(text)+1) for _ in 'ij')
    piece = rng.choice(PIECES)
    return rng.choice([lambda: text[:i], lambda: text[i:], lambda: text[:i]+text[j:], lambda: text[:i]+piece+text[i:], lambda: text[:i]+piece+text[j:], lambda: piece, lambda: '', lambda: text[::-1], lambda: text*rng.choice([2, 3, 40]),
        lambda: other, lambda: text[:i]+other+text[i:], lambda: text.swapcase(), lambda: ''.join(rng.sample(text, len(text))), lambda: text.replace(rng.choice("',=([0 "), piece), lambda: text[:i]+chr(rng.choice([*range(0xd800), *range(0xe000, 0x110000, 97)]))+text[i:]])()

@pytest.fixture(scope='module')
def mutated():
    "N rows with the challenge's columns as text, each with one to three mutated cells, and which cells those are."
    if DATA is not None: rows = pd.read_csv(DATA/'behaviour_simulation_train.csv', keep_default_na=False, dtype=str).sample(N, random_state=42)
    else:
        t = sample_tweets(1000)
        rows = t.assign(date=t.date.astype(str))[list(TWEET_COLUMNS)].astype(str)
        rows = pd.concat([rows.assign(id=rows.id + str(i)) for i in range(N//len(rows))])
    rng, rows = random.Random(42), rows[list(TWEET_COLUMNS)].to_numpy(dtype=object)
    weights, hurt = [1, 2, 2, 6, 1, 6, 1], []
    for r in rows:
        where = {rng.choices(range(7), weights)[0] for _ in range(rng.randint(1, 3))}
        for c in where: r[c] = mutate(r[c], rows[rng.randrange(N)][rng.randrange(7)][:5000], rng)
        hurt.append({TWEET_COLUMNS[c] for c in where})
    return rows, hurt

def write(path, rows):
    with open(path, 'w', encoding='utf-8', newline='') as f: csv.writer(f).writerows([TWEET_COLUMNS, *rows])

def sift(path, rows, hurt):
    "Read rows from a file; take out, one after another, those it complains about. What is left, as a frame, and the complaints."
    rows, hurt, said = [*rows], [*hurt], []
    while rows:
        write(path, rows)
        try: return read_tweets(path, need_likes=True), rows, said
        except BadInput as e:
            s = str(e)
            assert s.startswith(str(path)) and s.endswith('.') and s.isprintable() and len(s) < 400, s
            found = re.search(r"tweet (\d+) \(row \d+ of the sheet\)(?:, column '([^']*)')?", s)
            if not found: # a fault of the file's shape, such as a NUL in a short file's first cell
                assert len(rows) == 1, s
                return None, rows, said + [s]
            k = int(found[1]) - 1
            assert found[2] in (None, *hurt[k]) or 'is already the id' in s, (s, hurt[k])
            said.append(s); del rows[k], hurt[k]
    return None, [], said

def test_mutated_tweets_are_read_or_named(mutated, tmp_path, monkeypatch):
    "Each row ends up in a frame with its cells as they were written, or in a sentence with its number and a column that was hurt."
    monkeypatch.chdir(tmp_path)
    rows, hurt = mutated
    good, bad = [], 0
    read_tweets(write_tweets(sample_tweets(3), 'warm.csv')); Path('warm.csv').unlink() # imports what it needs
    with nothing_is_run(180):
        for i in range(0, N, 25):
            start = time.perf_counter()
            frame, kept, said = sift('m.csv', rows[i:i+25], hurt[i:i+25])
            bad += len(said)
            if frame is not None:
                good.append(frame)
                kept = [r for r in kept if any(x.strip() for x in r)]
                assert len(frame) == len(kept) and [*frame.content] == [r[3] for r in kept] and [*frame.media] == [r[5] for r in kept]
                assert frame['id'].is_unique and frame.date.notna().all() and (frame.likes >= 0).all() and np.isfinite(frame.likes).all()
            assert time.perf_counter() - start < 10
    assert sum(map(len, good)) + bad >= .999*N and bad > .1*N and sum(map(len, good)) > .3*N
    assert os.listdir() == ['m.csv']

def test_mutated_media_are_rows(mutated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    media = pd.Series([r[5] for r in mutated[0]])
    with nothing_is_run():
        start = time.perf_counter()
        table = media_table(media, post_publication=True)
        assert time.perf_counter() - start < 5 and len(table) == N and ((table.kind == 'error') == (table.error != '')).all()
        assert table.url[table.url != ''].str.fullmatch(r'https?://[!-~]+').all() and (table.url[table.kind.isin(['error', 'none'])] == '').all()
        assert table.kind.value_counts().min() > .005*N and set(table.kind) == {'photo', 'video', 'gif', 'none', 'error'}
        few = pd.DataFrame([parse_media(s) for s in media[:2000]]).drop(columns='urls')
        pd.testing.assert_frame_equal(table.head(2000), few, check_dtype=False)
    assert os.listdir() == []

@pytest.mark.parametrize('steps', [LIGHT_STEPS, REPORT_STEPS, tuple(CLEAN_STEPS)], ids=['light', 'report', 'all'])
def test_mutated_text_is_cleaned(mutated, steps):
    text = pd.Series([r[3] for r in mutated[0]], index=range(7, N+7))
    clean_text(['definately a kite 🪁', 'x'], steps) # imports what it needs
    with nothing_is_run():
        start = time.perf_counter()
        out = clean_text(text, steps)
        assert time.perf_counter() - start < 25
    assert out.index.equals(text.index) and out.notna().all() and not out.str.contains(r'[\x00-\x1f\x7f]|<hyperlink>|  ', regex=True).any()

def test_mutated_tweets_get_a_prediction(mutated, tmp_path):
    "What was read is good enough for everything that comes after."
    known = sample_tweets(300)
    sim = LikesSimulator('tiny', text_encoder='tiny-distilbert', effort='quick').fit(known, quiet=True) # any model will do
    rows, hurt = mutated
    some = [i for i in range(N) if hurt[i] <= {'content', 'media', 'username'} and re.search(r'\w', rows[i][4]) and all(rows[i][c].strip() and '\0' not in rows[i][c] for c in (3, 4, 5, 6))][:800]
    write(tmp_path/'m.csv', [[k, *rows[i][1:]] for k, i in enumerate(some)])
    tweets = read_tweets(tmp_path/'m.csv')
    sim.predict(tweets[:2].assign(content=str(time.time_ns())), quiet=True) # a text that no cache has: it loads what is needed
    with nothing_is_run(120):
        p = sim.predict(tweets, quiet=True)
        assert time_since_last_tweet(tweets).index.equals(tweets.index) and np.isfinite(temporal_features(tweets).to_numpy(dtype=float)).all()
    assert len(p) == len(tweets) > 700 and np.isfinite(p[['likes', 'lower', 'upper']].to_numpy()).all()
    assert (p.lower <= p.likes).all() and (p.likes <= p.upper).all() and (p.lower >= 0).all()


# --- Files that nobody meant ---

every = settings(max_examples=250 if LONG else 60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
cells = st.text(st.characters(blacklist_categories=['Cs']), max_size=30) | st.sampled_from(PIECES) | st.integers().map(str) | st.floats().map(repr) | st.datetimes().map(str)

def read_or_sentence(path):
    with nothing_is_run(20):
        try: return read_tweets(path)
        except BadInput as e: s = str(e)
    assert s.startswith(str(path)) and s.endswith('.') and s.isprintable() and len(s) < 500, s

@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in ('.csv', '.xlsx', '.parquet'): read_tweets(write_tweets(sample_tweets(3), 'good' + suffix)) # imports what it needs
    return tmp_path

@pytest.mark.parametrize('suffix', ['.csv', '.xlsx', '.parquet'])
@given(data=st.data())
@every
def test_any_bytes(here, suffix, data):
    "Arbitrary bytes, also behind the right first bytes, before the right last ones, and in the middle of a good file."
    good = Path('good' + suffix).read_bytes()
    junk = data.draw(st.binary(max_size=300))
    i, j = sorted(data.draw(st.lists(st.integers(0, len(good)), min_size=2, max_size=2)))
    Path('x' + suffix).write_bytes(data.draw(st.sampled_from([junk, good[:4]+junk, junk+good[-8:], good[:i]+junk+good[j:], good[:i]+junk+good[i:], good[:-8]+junk, good+junk])))
    t = read_or_sentence('x' + suffix)
    assert t is None or len(t) and {*_REQUIRED} <= {*t}

@given(header=st.permutations(TWEET_COLUMNS) | st.lists(st.sampled_from(TWEET_COLUMNS) | cells, max_size=9), rows=st.lists(st.lists(cells, max_size=9), max_size=4), sep=st.sampled_from(',,,,;\t|'), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
@every
def test_any_table(here, header, rows, sep, quoting):
    with open('x.csv', 'w', encoding='utf-8', newline='') as f: csv.writer(f, delimiter=sep, quoting=quoting).writerows([header, *rows])
    read_or_sentence('x.csv')

plain = st.text(st.characters(blacklist_categories=['Cs'], blacklist_characters='\0'), max_size=40)

@pytest.mark.parametrize('suffix', ['.csv', '.parquet'])
@given(texts=st.lists(st.tuples(plain, plain | st.sampled_from(PIECES).filter(lambda p: '\0' not in p)), min_size=1, max_size=5), likes=st.integers(0, 10**9))
@every
def test_any_text_comes_back(here, suffix, texts, likes):
    "Whatever a tweet says is read as it was written: a formula, a quotation mark, a line end, half an escape."
    n = len(texts)
    t = pd.DataFrame({'id': range(n), 'date': pd.Timestamp('2020-02-29 12:00'), 'likes': likes, 'content': [a for a, _ in texts], 'username': 'Kite', 'media': [b for _, b in texts], 'inferred company': 'kite club'})
    with nothing_is_run(20): back = read_tweets(write_tweets(t, 'x' + suffix), need_likes=True)
    assert [*back.content] == [*t.content] and [*back.media] == [*t.media] and (back.likes == likes).all()

@given(st.recursive(st.sampled_from(PIECES) | plain, lambda inner: st.lists(inner, max_size=6).map(lambda xs: f"[{', '.join(map(repr, xs))}]") | inner.map(lambda s: f"Photo(previewUrl={s!r}, fullUrl={s!r})"), max_leaves=30))
@every
def test_python_in_media_is_not_run(s):
    "Media strings that are valid Python, or nearly, and would do something if they were run."
    with nothing_is_run(20):
        for text in (s, f'[{s}]', f"[Photo(previewUrl='https://a.b/'+({s!r}), fullUrl=(lambda: {s})())]", s*(MAX_MEDIA//max(1, len(s)) + 1)):
            assert parse_media(text)['kind'] in ('none', 'error', 'photo', 'video', 'gif')


@pytest.mark.parametrize('kind,number', [('card', 475_596)]) # a version with a mark that turns the writing direction
def test_what_make_fuzz_has_found(kind, number): assert fuzz.attempt(kind, number) == 'refused'
