"""Killed at any moment, a full disk, a place where nothing may be written, two at once: what is there is whole, and the next run completes.

BEHAVIOUR_SIM_KILLS=50 kills that often; the default is a few, for every day."""
import hashlib, json, os, random, shutil, signal, subprocess, sys, threading, time
from pathlib import Path

import pandas as pd, pytest, warm
from PIL import Image

from behaviour_sim.core import BadInput, write_atomic
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import read_tweets, write_tweets
from behaviour_sim.likes.simulator import LikesSimulator
from test_download import Hostile, answer, debris, encoded

KILLS = int(os.environ.get('BEHAVIOUR_SIM_KILLS', 3))
pytestmark = pytest.mark.skipif(os.name != 'posix', reason='signals and limits of POSIX')
MAIN = 'from behaviour_sim.apps.cli import main; main()'
# The superuser, too, is held to what a folder permits: CAP_DAC_OVERRIDE and its like leave the effective capabilities
HELD = '''import ctypes, os
if os.geteuid() == 0:
    libc, head, now = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)()
    assert libc.capget(head, now) == 0, ctypes.get_errno()
    now[0] &= ~0b1110 # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
    assert libc.capset(head, now) == 0, ctypes.get_errno()
'''
FIT, RUN = ['fit', 't.csv', '--model', 'm', '--preset', 'tiny'], ['run', '--preset', 'tiny', '--n', '100', '--out', 'r', '--pictures', '0']

def begin(args, place, limit=None, held=False, **env):
    "Start the command line in a folder with a cache of its own; `limit` is the largest file it may write, in bytes; `held`: to what a folder permits."
    def limited():
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'BEHAVIOUR_SIM_CACHE': str(place/'cache'), 'MPLCONFIGDIR': str(place.parent/'mpl'), **env}
    if not limit: return warm.Warm(HELD*held + MAIN, *args, cwd=place, env=env)
    return subprocess.Popen([sys.executable, '-c', MAIN, *args], cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limited)

def finish(p):
    out, err = p.communicate(timeout=300)
    return p.returncode, out, err

def contents(folder):
    "The files of a folder and the checksum of each."
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).rglob('*')) if p.is_file()}

def halves(folder): return [p for p in Path(folder).rglob('.*') if p.name.startswith('.') and p.is_file()]

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "A folder with t.csv, the model m and how long it took."
    d = tmp_path_factory.mktemp('undisturbed')
    write_tweets(sample_tweets(120), d/'t.csv')
    warm.run('') # the fork server is up
    start = time.monotonic()
    code, _, err = finish(begin(FIT, d))
    assert (code, err) == (0, ''), err
    return d, time.monotonic() - start

def kill_somewhere(p, seconds):
    "Kill after so many seconds at the latest; whether it was still at work."
    try: p.wait(max(0, seconds))
    except subprocess.TimeoutExpired: p.kill()
    p.communicate()
    return p.returncode == -signal.SIGKILL


def test_a_changed_byte_of_a_checkpoint_is_noticed(tmp_path):
    "In its weights; the header is in order. The training begins again."
    import torch
    from behaviour_sim.text.bloom_lora import _Checkpoint
    weights = {'a': torch.nn.Parameter(torch.ones(4))}
    optimiser = torch.optim.AdamW(weights.values())
    weights['a'].sum().backward(); optimiser.step()
    point = _Checkpoint(tmp_path, 'key')
    point.save(weights, optimiser, {'a': weights['a']}, dict(step=1))
    assert point.load(weights, optimiser)[0] == dict(step=1)
    whole = point.path.read_bytes()
    point.path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert point.load(weights, optimiser) is None


def test_ctrl_c_has_its_own_exit_code(monkeypatch, capsys):
    from behaviour_sim.apps import cli
    def stopped(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(cli, 'app', stopped)
    with pytest.raises(SystemExit) as e: cli.main(['fit'])
    assert e.value.code == 130 and capsys.readouterr().err == 'behaviour-sim: stopped\n'


def test_files_have_the_mode_that_the_user_wants(tmp_path):
    "Whoever sets a umask of 077 does not want others to read what is written."
    before = os.umask(0o077)
    try:
        for mask, mode in ((0o077, 0o600), (0o027, 0o640), (0o022, 0o644)):
            os.umask(mask)
            with write_atomic(tmp_path/'f') as f: f.write('x')
            assert (tmp_path/'f').stat().st_mode & 0o777 == mode, oct(mask)
    finally: os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == ['f']


def test_side_tables_have_the_limits_of_tweets(tmp_path, monkeypatch):
    "A workbook that unpacks to much more than it is, a parquet file that is larger than it looks, a cell of a million characters."
    import zipfile
    from behaviour_sim import table_files
    from behaviour_sim.table_files import _read_table
    table = pd.DataFrame(dict(id=['007', '8'], caption=['a dog', '']))
    def refused(name, words):
        with pytest.raises(BadInput, match=words) as e: _read_table(tmp_path/name, ('id', 'caption'))
        assert str(e.value).count(name) == 1 and 'tweet' not in str(e.value)
    for name in ('t.csv', 't.xlsx', 't.parquet'):
        write = {'.csv': table.to_csv, '.xlsx': table.to_excel, '.parquet': table.to_parquet}[Path(name).suffix]
        write(tmp_path/name, index=False)
        assert _read_table(tmp_path/name, ('id', 'caption'))['caption'].fillna('').tolist() == ['a dog', '']
    assert _read_table(tmp_path/'t.csv', ('id',))['id'].tolist() == ['007', '8']
    with zipfile.ZipFile(tmp_path/'t.xlsx') as a, zipfile.ZipFile(tmp_path/'bomb.xlsx', 'w', zipfile.ZIP_DEFLATED) as b:
        for n in a.namelist(): b.writestr(n, a.read(n).replace(b'</sheetData>', b'<row><c><v>1</v></c></row>'*2_500_000 + b'</sheetData>') if 'sheet1' in n else a.read(n))
    refused('bomb.xlsx', 'would unpack')
    (tmp_path/'long.csv').write_text('id,caption\n1,' + 'x'*1_000_001 + '\n')
    refused('long.csv', 'more than 1,000,000')
    (tmp_path/'empty.csv').write_text('id,caption\n'); refused('empty.csv', 'no row')
    (tmp_path/'twice.csv').write_text('id,caption,caption\n1,a,b\n'); refused('twice.csv', 'two columns')
    (tmp_path/'other.csv').write_text('id,text\n1,a\n'); refused('other.csv', "column 'caption' missing; found 'id', 'text'")
    (tmp_path/'blanks.csv').write_text('id, caption ,Unnamed: 2\n1,a,0\n')
    assert _read_table(tmp_path/'blanks.csv', ('id', 'caption')).columns.tolist() == ['id', 'caption']
    os.mkfifo(tmp_path/'pipe.csv'); refused('pipe.csv', 'not a regular file')
    monkeypatch.setattr(table_files, '_MAX_FILE', 20_000)
    pd.DataFrame(dict(id=range(9000), caption='x'*50)).to_parquet(tmp_path/'big.parquet')
    refused('big.parquet', 'larger than')


def test_a_host_that_answers_nothing_is_left_alone(tmp_path):
    "Sixty addresses of it would be 120 attempts; another host in the same run is not held up, and the rows say that they may be tried again."
    from test_download import get
    quiet, s = threading.Event(), None
    try:
        s = Hostile(routes={str(i): lambda conn: quiet.wait(30) for i in range(60)} | {'x': answer(encoded(Image.new('RGB', (64, 64)), 'PNG'))})
        t = get(s, [*[s.url(str(i)) for i in range(60)], s.url('x', 'other.example.com')], tmp_path/'d', seconds=.3, retries=1, pause=0)
        assert set(t.status[:60]) == {'timeout'} and t.status.iloc[60] == 'ok'
        assert (t.reason == 'its host answers nothing').sum() >= 30 and s.calls.total() <= 40
    finally:
        quiet.set()
        if s: s.shutdown(); s.server_close()


# --- kill -9 ---

def test_fit_killed_at_random_moments(undisturbed, tmp_path):
    "At each moment there is no model or a whole one, and the re-run makes the model of an undisturbed run."
    whole, seconds = undisturbed
    rng, hit = random.Random(), 0
    shutil.copy(whole/'t.csv', tmp_path)
    for k in range(KILLS):
        hit += kill_somewhere(begin(FIT, tmp_path), min(seconds, 4)*rng.uniform(.2, .9))
        if (tmp_path/'m').exists(): assert len(LikesSimulator.load(tmp_path/'m').predict(read_tweets(tmp_path/'t.csv')[:3], quiet=True)) == 3
        if k % 4 == 3: shutil.rmtree(tmp_path/'m', ignore_errors=True)
    assert finish(begin(FIT, tmp_path))[0] == 0
    assert contents(tmp_path/'m') == contents(whole/'m') and (hit or KILLS < 3)

def test_fit_killed_while_it_saves(undisturbed, tmp_path):
    "Killed the moment the new model begins to appear, beside an old one: the old one is still whole, or it has moved aside whole."
    whole, _ = undisturbed
    shutil.copy(whole/'t.csv', tmp_path); shutil.copytree(whole/'m', tmp_path/'m')
    p = begin(FIT, tmp_path)
    while p.poll() is None and not list(tmp_path.glob('.m.*')): time.sleep(.0005)
    time.sleep(random.uniform(0, .1)); p.kill(); p.communicate()
    assert [d for d in (tmp_path/'m', *tmp_path.glob('.m.*/old')) if d.is_dir() and contents(d) == contents(whole/'m')]
    assert finish(begin(FIT, tmp_path))[0] == 0 and contents(tmp_path/'m') == contents(whole/'m')

def test_run_killed_at_random_moments(tmp_path):
    "The whole job: a file that is there is whole, and the re-run ends as an undisturbed run does, byte for byte."
    (tmp_path/'a').mkdir(); (tmp_path/'b').mkdir()
    start = time.monotonic()
    assert finish(begin(RUN, tmp_path/'a'))[0] == 0
    seconds = time.monotonic() - start
    for _ in range(max(1, KILLS//3)):
        kill_somewhere(begin(RUN, tmp_path/'b'), min(seconds, 10)*random.uniform(.2, .9))
        r = tmp_path/'b'/'r'
        if (r/'metrics.json').exists(): assert len(json.loads((r/'metrics.json').read_text())['splits']) == 4
        if (r/'predictions.csv').exists(): assert len(pd.read_csv(r/'predictions.csv')) == 20
        if (r/'index.html').exists(): assert (r/'index.html').read_text().rstrip().endswith('</html>')
        for f in r.glob('images/[!.]*'): Image.open(f).load()
        if (r/'model').exists():
            try: LikesSimulator.load(r/'model')
            except BadInput: pass # half a model is refused
    assert finish(begin(RUN, tmp_path/'b'))[0] == 0
    a, b = contents(tmp_path/'a'/'r'), contents(tmp_path/'b'/'r')
    assert {k: v for k, v in b.items() if not Path(k).name.startswith('.')} == a

DOWNLOAD = '''import sys; from behaviour_sim.features.download import download
p = int(sys.argv[2]); urls = [f'http://pics.example.com:{p}/{i}' for i in range(int(sys.argv[3]))]
r = download(urls, sys.argv[1], resolver=lambda h: ['127.0.0.1'], unsafe_allow_for_tests=[('127.0.0.1', p)], per_host=4, quiet=True)
print(r.status.eq('ok').all(), r.attempts.max())'''

def test_download_killed_at_random_moments(tmp_path):
    n = 60 + 20*KILLS
    s = Hostile(routes={str(i): lambda conn, i=i: (time.sleep(.01), conn.sendall(answer(encoded(Image.new('RGB', (8, 8), (i % 256, i//256, 9)), 'PNG')))) for i in range(n)})
    go = lambda out: warm.Warm(DOWNLOAD, tmp_path/out, s.port, n)
    for k in range(KILLS):
        p, before = go('a'), s.calls.total()
        while s.calls.total() == before and p.poll() is None: time.sleep(.002)
        kill_somewhere(p, random.uniform(0, .1))
        for f in (tmp_path/'a').rglob('[0-9a-f]*.png'): Image.open(f).load() # a picture that is there is whole
    assert go('a').communicate(timeout=120)[0].split() == ['True', '1']
    assert s.calls.total() <= n + 5*KILLS # only what was on its way was fetched again
    assert go('b').communicate(timeout=120)[0].split() == ['True', '1']
    pictures = lambda d: {k: v for k, v in contents(tmp_path/d).items() if k.endswith('.png')}
    assert pictures('a') == pictures('b') and len(pictures('a')) == n and debris(tmp_path/'a') == []
    s.shutdown(); s.server_close()

def test_write_atomic_killed_while_it_writes(tmp_path):
    "The old content or the new one, at any of many moments."
    code = "import sys; from behaviour_sim.core import write_atomic\nwhile True:\n  for c in 'ab':\n    with write_atomic(sys.argv[1]) as f: [f.write(c*10_000) for _ in range(300)]"
    target = tmp_path/'f'
    for _ in range(max(2, KILLS)):
        p = warm.Warm(code, target)
        while not target.exists(): time.sleep(.005)
        kill_somewhere(p, random.uniform(0, .3))
        text = target.read_text()
        assert len(text) == 3_000_000 and len(set(text)) == 1


# --- No room, no permission ---

def whole_or_absent(place, before):
    "Nothing new but whole files: no temporary ones outside the cache."
    return [p for p in place.rglob('*') if p.relative_to(place).as_posix() not in before and 'cache' not in p.parts and p.is_file()]

@pytest.mark.parametrize('args,limit', [(FIT, 9_000), (['predict', 't.csv', '--model', 'm', '--out', 'p.csv'], 100)], ids=['fit', 'predict'])
def test_disk_full(undisturbed, tmp_path, args, limit):
    "As if the disk had room for so many bytes of a file: one line, no traceback, nothing half-written, the old model untouched."
    whole, _ = undisturbed
    shutil.copytree(whole, tmp_path/'w'); place = tmp_path/'w'
    if limit == 100: shutil.rmtree(place/'cache') # not even the cache can be written
    before = contents(place)
    code, out, err = finish(begin(args, place, limit))
    told = [l for l in err.splitlines() if 'vectors are not kept' not in l] # a warning, before the fault
    assert code in (1, 2) and len(told) == 1 and told[0].startswith('behaviour-sim: ') and 'Traceback' not in err, (code, err)
    assert whole_or_absent(place, before) == [] and contents(place/'m') == contents(whole/'m')

def test_disk_full_while_pictures_come(tmp_path):
    "What is there stays; with room again the download goes on."
    s = Hostile(routes={str(i): answer(encoded(Image.effect_noise((8 if i < 9 else 90, 90), 99), 'PNG')) for i in range(12)})
    code = DOWNLOAD.replace('import sys;', 'import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY));')
    go = lambda limit: subprocess.run([sys.executable, '-c', code, str(tmp_path/'d'), str(s.port), '12', str(limit)], capture_output=True, text=True, timeout=60)
    p = go(3_500)
    assert p.returncode and 'OSError' in p.stderr and 'File too large' in p.stderr
    assert not [f for f in (tmp_path/'d').glob('*/*') if f.name.startswith('.') or not Image.open(f).load()]
    p = go(10**7)
    assert p.stdout.split() == ['True', '1'], p.stderr
    assert debris(tmp_path/'d') == []
    s.shutdown(); s.server_close()

def below_a_file(d): (d/'file').write_text('x'); return d/'file'/'m'

def no_file_system(d): return Path('/proc/nothing/m') if Path('/proc/self').exists() else pytest.skip('no /proc here')

def read_only(d):
    (d/'ro').mkdir(mode=0o500)
    return d/'ro'/'m'

@pytest.mark.parametrize('make', [below_a_file, no_file_system, read_only])
@pytest.mark.parametrize('args', [['predict', 't.csv', '--model', 'm', '--out', '{}.csv'], ['fit', 't.csv', '--preset', 'tiny', '--model', '{}']], ids=['predict', 'fit'])
def test_a_place_where_nothing_can_be_written(undisturbed, tmp_path, make, args):
    whole, _ = undisturbed
    target = make(tmp_path)
    code, out, err = finish(begin([a.format(target) for a in args], whole, held=True))
    assert code in (1, 2) and out == '' and err.startswith('behaviour-sim: ') and err.count('\n') == 1 and 'Traceback' not in err, err
    assert not list(tmp_path.glob('ro/*'))


# --- Two at once ---

def test_two_at_once_on_one_cache(undisturbed, tmp_path):
    "Two fits begin together with an empty cache: both models are those of an undisturbed run."
    whole, _ = undisturbed
    shutil.copy(whole/'t.csv', tmp_path)
    both = [begin(['fit', 't.csv', '--model', name, '--preset', 'tiny'], tmp_path) for name in 'ab']
    assert [finish(p)[0] for p in both] == [0, 0]
    assert contents(tmp_path/'a') == contents(tmp_path/'b') == contents(whole/'m')
    assert not halves(tmp_path/'cache') and any((tmp_path/'cache').rglob('*.vectors'))
