"""The report's system: its own tables from one command, three readings that differ as they should, and nothing left half done."""
import re

import numpy as np
import pandas as pd
import pytest

from behaviour_sim.apps.report_choices import _READINGS, _REPORT_MODELS, _SPLITS, _encoders_of
from behaviour_sim.apps.report_system import ReportSystem
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import write_tweets
from behaviour_sim.likes.evaluation import Baselines, likes_metrics
from behaviour_sim.picture_files import open_picture
from commands import pictured_posts, refused, told

pytest.importorskip('peft')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with posts and with their pictures, named by id."
    return pictured_posts(tmp_path_factory.mktemp('reproduce'), 160)


@pytest.fixture(scope='module')
def tweets(place):
    t = sample_tweets(160)
    return t.assign(image_path=[str(p) if (p := place/'pictures'/f'{i}.jpg').is_file() else '' for i in t['id']])


def printed(out, title):
    "The rows below a title on the terminal: first cell → the others."
    rows = {}
    for line in out.split(title)[1].splitlines()[1:]:
        if line.startswith('└'): break
        if line.startswith('│'):
            first, *rest = [c.strip() for c in line.strip('│').split('│')]
            if first: rows[first] = rest
    return rows


def test_the_command_prints_the_tables_of_the_report(place):
    code, out, err = told('reproduce', 't.csv', '--images', 'pictures', '--out', 'out', '--preset', 'tiny', '--only', 'likes,text', cwd=place)
    assert code == 0 and 'Traceback' not in err, err
    table3, table5, seconds = (printed(out, t) for t in ('Table 3: validation RMSE', 'Table 5: text', 'Seconds'))
    assert [table3[m][2] for m in ('XGBoost 1', 'FAISS', 'XGBoost 2')] == ['5.388', '3.693', '8.326']
    assert all(float(row[3]) > 0 and 0 < float(row[4]) < 12 for row in table3.values())
    assert {'ensemble of Models 1 and 2', 'ensemble of all three', 'constant', 'account mean'} < set(table3)
    assert table5['BLEU-4'][0] == '–' and 0 <= float(table5['BLEU-4'][1]) <= 100 and 0 <= float(table5['ROUGE-L'][1]) <= 1 and float(table5['CIDEr'][1]) >= 0
    assert table5['training loss'][0] == '1.813' and float(table5['training loss'][1]) > 0
    assert seconds['likes of 10,000 tweets'][1] == '30.000' and seconds['a tweet, one at a time'][1] == '8.100'
    assert 'tiny-clip stands for openai/clip-vit-base-patch32.' in out and '20 longer rounds of boosting stand for 1,999.' in out
    t = pd.read_csv(place/'out'/'table3.csv').set_index('model')
    assert t.loc['XGBoost 1', 'printed'] == 5.3876 and t.loc['XGBoost 1', 'rmse_log1p'] == pytest.approx(float(table3['XGBoost 1'][4]), abs=6e-4)
    written = pd.read_csv(place/'out'/'generated.csv')
    assert list(written) == ['id', 'content', 'observed'] and len(written) == 8
    page = (place/'out'/'report.md').read_text(encoding='utf-8')
    assert re.search(r'\| FAISS \|.*\| 3\.693 \|', page) and '| BLEU-1 |' in page and sorted(p.name for p in (place/'out').iterdir()) == [
        'generated.csv', 'report.md', 'table3.csv', 'table5.csv', 'timings.csv']


def test_the_tables_are_errors_on_the_rows_that_were_held_back(tweets):
    "Recomputed from the predictions themselves, without `likes`."
    system = ReportSystem('tiny', 'repaired', quiet=True)
    table = system.likes(tweets).set_index('model')
    train, test = system.sides(tweets)
    assert tweets['date'].iloc[train].max() < tweets['date'].iloc[test].min()
    V = system.vectors(tweets)
    target, p, _ = system.predictions(_REPORT_MODELS[0], tweets, V, train, test)
    likes = tweets['likes'].to_numpy()[test]
    assert target == 'log1p' and table.loc['XGBoost 1', 'rmse_log1p'] == pytest.approx(likes_metrics(likes, p)['rmse_log1p'])
    mean = Baselines().fit(tweets.iloc[train]).predict(tweets.iloc[test])['account_mean']
    assert table.loc['account mean', 'rmse_log1p'] == pytest.approx(likes_metrics(likes, mean)['rmse_log1p'])


def test_no_prediction_looks_at_the_likes_of_its_own_row(tweets):
    for reading in _READINGS:
        system = ReportSystem('tiny', reading, quiet=True)
        train, test = system.sides(tweets)
        V, other = system.vectors(tweets), tweets.assign(likes=np.where(np.isin(np.arange(len(tweets)), test), 7, tweets['likes']))
        for m in _REPORT_MODELS:
            assert np.array_equal(system.predictions(m, tweets, V, train, test)[1], system.predictions(m, other, V, train, test)[1]), (reading, m.name)


def test_the_models_differ_by_what_they_see(tweets):
    "Models 1 and 3 read the same words at `tiny`, and other pictures; without pictures or company a reading changes."
    system = ReportSystem('tiny', quiet=True)
    train, test = system.sides(tweets)
    V = system.vectors(tweets)
    predict = lambda m, V=V, s=system: s.predictions(m, tweets, V, train, test)[1]
    one, two, three = map(predict, _REPORT_MODELS)
    assert len({p.tobytes() for p in (one, two, three)}) == 3
    blind = V | dict(clip=np.zeros_like(V['clip']))
    assert not np.array_equal(predict(_REPORT_MODELS[0], blind), one) and np.array_equal(predict(_REPORT_MODELS[2], blind), three)
    assert not np.allclose(V['mpnet'], ReportSystem('tiny', 'as-computed', quiet=True).vectors(tweets)['mpnet'])


def test_readings_are_what_is_printed_computed_and_repaired(tweets):
    tables = {r: ReportSystem('tiny', r, quiet=True).likes(tweets).set_index('model') for r in _READINGS}
    printed, computed, repaired = (tables[r]['rmse_log1p'] for r in ('as-printed', 'as-computed', 'repaired'))
    assert abs(printed['XGBoost 1'] - printed['constant']) < .3, 'at the printed learning rate it hardly learns'
    assert computed['XGBoost 1'] > computed['constant'], 'on log(likes + 1e-10) it is worse than a constant'
    assert repaired['XGBoost 1'] < repaired['constant'] and repaired['FAISS'] < repaired['constant']
    assert tables['as-computed']['rmse_own']['XGBoost 1'] > 2*computed['XGBoost 1'] and np.isnan(tables['as-computed']['rmse_own']['ensemble of all three'])
    assert _SPLITS[_READINGS['as-printed'].choices.split](tweets).test.tolist() == list(range(128, 160))


def test_the_same_seed_gives_the_same_table(tweets):
    one, two = (ReportSystem('tiny', quiet=True).likes(tweets) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_the_encoders_of_the_paper_are_those_of_the_report():
    roles = _encoders_of('paper')
    assert [roles[r] for r in ('clip', 'efficientnet', 'mpnet', 'distilbert')] == ['openai/clip-vit-base-patch32', 'google/efficientnet-b0',
        'sentence-transformers/all-mpnet-base-v2', 'distilbert-base-uncased']
    assert ReportSystem('paper').effort.cap is None, 'all 1,999 rounds'


def test_pictures_are_drawn_for_tweets_that_were_held_back(tweets, tmp_path):
    pytest.importorskip('diffusers')
    system = ReportSystem('tiny', quiet=True)
    done = system.run(tweets, tmp_path/'o', only=['images'])
    assert [open_picture(p).size for p in sorted((tmp_path/'o'/'images').iterdir())] == [(32, 32)]*2
    assert list(done) == ['timings', 'differences'] and done['timings']['work'].tolist() == ['a picture']


def test_what_is_missing_is_left_out_and_said(tweets, tmp_path):
    "A preset without a language model, tweets without pictures."
    done = ReportSystem('light', quiet=True).run(tweets.drop(columns=['image_path', 'caption']), tmp_path/'o')
    said = ' '.join(done['differences'])
    assert 'table3' in done and 'table5' not in done and 'Without text: The preset light has no language model' in said and 'Without images: None of the 128 tweets has a picture' in said
    with pytest.raises(BadInput, match='no language model'): ReportSystem('light', quiet=True).run(tweets, tmp_path/'o', only=['text'])


def test_bad_usage_is_one_sentence(place, tmp_path):
    run = lambda *args: told('reproduce', 't.csv', '--preset', 'tiny', *args, cwd=place)
    refused(run('--out', tmp_path/'o', '--as-printed', '--repaired'), 'Choose one of --as-printed')
    refused(run('--out', tmp_path/'o', '--only', 'likes,sound'), "There is no part 'sound'")
    (tmp_path/'file').write_text('x')
    refused(run('--out', tmp_path/'file'), 'there is a file of that name')
    write_tweets(sample_tweets(20), tmp_path/'few.csv')
    refused(told('reproduce', tmp_path/'few.csv', '--out', tmp_path/'o', '--preset', 'tiny'), 'fifty is the least')
    with pytest.raises(BadInput, match="There is no reading 'guessed'"): ReportSystem('tiny', 'guessed')
