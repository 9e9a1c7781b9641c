"""The whole job in its order: a page as soon as the likes are there, which says what is to come; parts that are left out; the same figures on one core and on two."""
import logging

import pandas as pd
import pytest
from commands import refused, told

from behaviour_sim.apps import report
from behaviour_sim.apps.report import _judge_splits, run_all
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.splits import _possible_splits

REFRESH = '<meta http-equiv="refresh"'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "The folder of a run whose writing and drawing only look at the page; what they saw; what was logged."
    out, seen, said = tmp_path_factory.mktemp('run')/'r', {}, []
    def look(part): seen[part] = (out/'index.html').read_text(encoding='utf-8'), sorted(p.name for p in out.iterdir())
    def write(sim, known, wanted, *args):
        look('text')
        return pd.DataFrame(dict(id=wanted['id'], content='A <new> tweet', source='lm'))
    def draw(*args, **kwargs):
        look('images')
        return [], 'No picture was drawn. There was no paint.'
    heard = logging.Handler(); heard.emit = lambda r: said.append(r.getMessage())
    log = logging.getLogger('behaviour_sim'); level = log.level
    with pytest.MonkeyPatch.context() as m:
        m.setattr(report, '_write_some', write); m.setattr(report, '_draw_some', draw)
        m.delenv('BEHAVIOUR_SIM_QUIET', raising=False)
        log.addHandler(heard); log.setLevel(logging.INFO)
        try: run_all(out=out, preset='tiny', n=100)
        finally: log.removeHandler(heard); log.setLevel(level)
    return out, seen, said

def test_the_page_is_there_before_text_and_pictures(run):
    early, files = run[1]['text']
    assert files == ['images', 'index.html', 'metrics.json', 'model', 'predictions.csv']
    assert all(f'<h2>{h}</h2>' in early for h in ('Predicted and observed', 'Hit', 'Missed', 'Written', 'Drawn')) and early.count('To come: ') == 2
    assert REFRESH in early and early.rstrip().endswith('</html>')

def test_the_page_fills_in(run):
    page, files = run[1]['images']
    assert 'A &lt;new&gt; tweet' in page and page.count('To come: ') == 1 and REFRESH in page and 'generated.csv' in files

def test_a_complete_page_does_not_load_itself_again(run):
    page = (run[0]/'index.html').read_text(encoding='utf-8')
    assert 'refresh' not in page and 'To come' not in page and 'A &lt;new&gt; tweet' in page and 'There was no paint.' in page

def test_every_step_says_what_it_does_and_how_long_it_expects(run):
    said = run[2]
    assert [s.split(':')[0] for s in said if not s.startswith('/')] == ['Tweets', 'Likes', 'Text', 'Images']
    assert all(', about ' in s for s in said if not s.startswith('/')) and sum('the page with likes' in s for s in said) == 1


def judged(threads, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', threads)
    t = sample_tweets(150)
    return _judge_splits(t, _possible_splits(t, 1)[0], True, preset='tiny', seed=1, target='likes', effort='quick')[0]

def test_the_figures_do_not_depend_on_the_splits_at_a_time(monkeypatch):
    assert judged('1', monkeypatch) == judged('3', monkeypatch)


def test_parts_are_left_out_and_a_run_that_fails_waits_for_nothing(tmp_path, monkeypatch):
    "The likes alone, where text and pictures of an earlier run lie; then a writer that fails."
    t = sample_tweets(100)
    real = report._judge_splits
    kept = []
    def once(*args, **kwargs):
        kept or kept.append(real(*args, **kwargs, effort='quick'))
        return kept[0]
    def never(*args, **kwargs): raise RuntimeError('no ink')
    for name in ('_write_some', '_draw_some'): monkeypatch.setattr(report, name, never)
    monkeypatch.setattr(report, '_judge_splits', once)
    (tmp_path/'a'/'images').mkdir(parents=True)
    for name in ('generated.csv', 'images/drawn-00.png', 'images/mine.png'): (tmp_path/'a'/name).touch()
    run_all(t, tmp_path/'a', 'tiny', only='likes', quiet=True)
    assert [f.name for f in (tmp_path/'a'/'images').iterdir()] == ['mine.png']
    page = (tmp_path/'a'/'index.html').read_text(encoding='utf-8')
    assert '<h2>Missed</h2>' in page and not any(x in page for x in ('refresh', 'Written', 'Drawn', 'To come')) and not (tmp_path/'a'/'generated.csv').exists()
    with pytest.raises(RuntimeError, match='no ink'): run_all(t, tmp_path/'b', 'tiny', only=['images'], quiet=True)
    page = (tmp_path/'b'/'index.html').read_text(encoding='utf-8')
    assert 'The run stopped before this.' in page and '<h2>Drawn</h2>' in page and 'Written' not in page and 'refresh' not in page


@pytest.mark.parametrize('only', ['pictures', 'likes,', '', 'text;images'])
def test_a_part_that_there_is_not_is_refused(only, tmp_path):
    refused(told('run', '--only', only, '--data', 'none.csv', '--out', 'r', cwd=tmp_path), 'choose of likes, text, images')
    assert not (tmp_path/'r').exists()
