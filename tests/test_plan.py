"""Plans: the hours of a zone, a gap between posts, drafts that are not said twice, and files for planning programs."""
import numpy as np
import pandas as pd
import pytest
from commands import told

from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.likes.updates import LikesSimulator
from behaviour_sim.text.plan import _local_hours # adds LikesSimulator.plan
from behaviour_sim.text.simulator import ContentSimulator


@pytest.fixture(scope='module')
def tweets(): return sample_tweets(160)

@pytest.fixture(scope='module')
def names(tweets): return tweets['username'].value_counts().index[:2].tolist()

@pytest.fixture(scope='module')
def place(tweets, tmp_path_factory):
    "A folder with the likes model m and the writer w, which retrieves."
    d = tmp_path_factory.mktemp('plan')
    LikesSimulator('tiny', effort='quick').fit(tweets, quiet=True).save(d/'m')
    ContentSimulator('tiny', lm=None).fit(tweets, rank_by_likes=False, quiet=True).save(d/'w')
    return d


def test_a_plan_of_slots(place, names):
    "One slot for each account and day, at the best hour of the day in its zone; ranked, and readable as posts."
    code, out, err = told('plan', *names, '--model', 'm', '--days', 3, '--start', '2024-02-05', '--tz', 'Asia/Tokyo', '--out', 'plan.csv', cwd=place)
    assert code == 0 and 'Mon 05 Feb' in out and 'Asia/Tokyo' in out, err
    t = pd.read_csv(place/'plan.csv', parse_dates=['date', 'local'], keep_default_na=False)
    assert len(t) == 6 and set(t['username']) == set(names) and (t['local'] - t['date'] == pd.Timedelta('9h')).all()
    assert t.groupby(['username', t['local'].dt.date]).size().eq(1).all() and t['date'].is_monotonic_increasing
    assert sorted(t['rank']) == [*range(1, 7)] and t.sort_values('rank')['predicted_likes'].is_monotonic_decreasing
    assert (t['lower'] <= t['predicted_likes']).all() and (t['predicted_likes'] <= t['upper']).all()
    sim, first = LikesSimulator.load(place/'m'), t[t['username'] == names[0]].iloc[[0]]
    day = pd.concat([first]*24).assign(date=pd.Timestamp('2024-02-04 15:00') + pd.to_timedelta(range(24), 'h'))
    assert np.isclose(sim.predict(day, quiet=True)['likes'].max(), first['predicted_likes'].item(), rtol=1e-3)
    assert told('predict', 'plan.csv', '--model', 'm', '--out', 'p.csv', cwd=place)[0] == 0


@pytest.mark.parametrize('gap, per_day', [(4, 3), (9, 24)])
def test_slots_keep_their_distance(place, names, gap, per_day):
    t = LikesSimulator.load(place/'m').plan(names, 3, start='2024-03-30', tz='Europe/Berlin', per_day=per_day, gap=gap, quiet=True).table
    for _, own in t.groupby('username'):
        assert own['date'].diff().dropna().min() >= pd.Timedelta(hours=gap)
        assert 3 < len(own) and own.groupby(own['local'].dt.date).size().max() <= per_day


def test_hours_of_a_zone_are_those_that_there_are_once():
    for day, n in {'2024-03-31': 23, '2024-10-27': 23, '2024-10-28': 24}.items():
        h = _local_hours(day, 1, 'Europe/Berlin')
        assert len(h) == n and h['local'].is_unique and h['date'].is_unique
    for day in ('soon', '2024-05-01T10:00Z', '1999-01-01'):
        with pytest.raises(BadInput, match='is no day'): _local_hours(day, 1, 'UTC')
    with pytest.raises(BadInput, match='time zone'): _local_hours('2024-01-01', 1, 'Mars')


def test_drafts_go_to_planning_programs(place, names):
    "A file for each account, local times, at most 100 rows; no text twice, and the same again with the same seed."
    ask = ('plan', *names, '--model', 'm', '--writer', 'w', '--days', 2, '--start', '2024-02-05', '--tz', 'America/New_York', '--per-day', 2)
    assert told(*ask, '--out', 'a.csv', cwd=place)[0] == told(*ask, '--out', 'b.csv', cwd=place)[0] == 0
    assert (place/'a.csv').read_bytes() == (place/'b.csv').read_bytes()
    t = pd.read_csv(place/'a.csv', parse_dates=['date', 'local'], keep_default_na=False)
    assert set(t['source']) <= {'retrieval', 'none'} and (t['content'] != '').sum() > 4
    said = t[t['content'] != '']
    assert not said.duplicated(['username', 'content']).any()
    for style in ('buffer', 'hootsuite'):
        assert told(*ask, '--out', f'{style}.csv', '--format', style, cwd=place)[0] == 0
        files = sorted(place.glob(f'{style}_*.csv'))
        assert [f.stem for f in files] == sorted(f'{style}_{n}' for n in names)
    own = said[said['username'] == names[0]]
    rows = pd.read_csv(place/f'buffer_{names[0]}.csv', keep_default_na=False)
    assert rows['Posting Time'].tolist() == own['local'].dt.strftime('%Y-%m-%d %H:%M').tolist() and rows['Text'].tolist() == own['content'].tolist()


@pytest.mark.parametrize('options, why', [(['--format', 'buffer'], 'needs texts'), (['--tz', 'Mars'], 'no time zone'), (['--start', 'soon'], 'is no day'),
    (['--media', 'hologram'], 'hologram'), (['--writer', 'nothing'], 'no such model'), (['--days', '0'], 'days')])
def test_what_cannot_be_planned_is_refused(place, names, options, why):
    code, out, err = told('plan', names[0], '--model', 'm', '--out', 'no.csv', *options, cwd=place)
    assert code == 2 and out == '' and why in err and err.count('\n') == 1 and not (place/'no.csv').exists()


def test_a_model_without_hours_plans_none(place, tweets):
    sim = LikesSimulator.load(place/'m')
    with pytest.raises(BadInput, match='name those to plan for'): sim.plan()
    sim.table.hour_known = False
    with pytest.raises(BadInput, match='hours are unknown'): sim.plan('x')
