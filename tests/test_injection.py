"""Tweets are data: what a notebook shows of them and what the site makes of that stays text, in a real browser too.

Reports and CSV: test_cli.py. Prompts: test_prompts.py and test_language_models.py. The page to play with: test_app.py. File names and messages: test_bad_files.py."""
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import chromium, serve

from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.likes.evaluation import likes_metrics
from behaviour_sim.html import html_row, html_table, safe_html
from behaviour_sim.apps.report import _tweet_card
from behaviour_sim.likes.simulator import Evaluation, LikesSimulator
from behaviour_sim.data.splits import Split

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location('injection_docs', ROOT/'tests'/'docs.py')
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

HOSTILE = ['<script>document.title="1"</script>', '<img src=x onerror=\'document.title="2"\'>', '</td></table></div><svg onload=document.title="3">', '"><iframe srcdoc="<script>parent.document.title=4</script>">',
    '[a](javascript:document.title=5) ![b](x)', '</style><style>body { display: none }</style>', '`=1+1` $x^2$ **bold** :::{.hidden}', '\u202egnp.exe\u2066', "{{< include /etc/passwd >}} `r 1`", '<!-- -->', '</script></pre></body>']
TAGS = ('<script', '<img', '<svg', '<iframe', '<style', '</style', '</pre', '</td></table></div><', '<!--')


@pytest.fixture(scope='module')
def fitted():
    t = sample_tweets(150)
    t['content'] = [HOSTILE[i % len(HOSTILE)] for i in range(len(t))]
    t['username'] = [f'{HOSTILE[0]}{u}' for u in t['username']]
    return LikesSimulator('tiny', effort='quick').fit(t, quiet=True), t


def shown(fitted):
    "What notebooks show of tweets, and of what was made of them: name → HTML."
    sim, t = fitted
    p = sim.predict(t, quiet=True)
    figures = likes_metrics(t['likes'], np.zeros(len(t)))
    named = Evaluation(figures, baselines={h: figures for h in HOSTILE})
    odd = LikesSimulator('tiny'); odd.preset = HOSTILE[2]
    return dict(tweets=t._repr_html_(), predictions=p._repr_html_(), simulator=sim._repr_html_(), odd=odd._repr_html_(), evaluation=named._repr_html_(), table=html_table(pd.DataFrame({h: [h] for h in HOSTILE}, index=[HOSTILE[1]]), HOSTILE[0]),
        row=html_row(HOSTILE[0], **{HOSTILE[1]: HOSTILE[2]}), cards=''.join(_tweet_card(t.iloc[i], p.iloc[i]) for i in range(len(HOSTILE))), explained=_explained(sim, t),
        **{f'split {i}': Split(h, np.arange(3), np.arange(2))._repr_html_() for i, h in enumerate(HOSTILE)})

def _explained(sim, t):
    import behaviour_sim.likes.explain
    return sim.explain(t, t['id'].iloc[0], quiet=True)._repr_html_()


def test_what_a_notebook_shows_is_escaped(fitted):
    for name, html in shown(fitted).items():
        html = html.replace(pd.DataFrame()._repr_html_().split('</style>')[0] + '</style>', '') # the style that pandas itself brings
        assert not [tag for tag in TAGS if tag in html], name
    assert '\u202e' not in safe_html(HOSTILE[7]) and '\u2066' not in html_table(pd.DataFrame(dict(a=[HOSTILE[7]])))


def test_the_site_shows_it_as_text(fitted, tmp_path):
    "Every output above, and the same as plain text and as a stream, rendered as `make docs` does and looked at in Chromium."
    from smalldocs.site import build
    html = lambda text: dict(output_type='display_data', metadata={}, data={'text/html': docs.scoped(docs.align(text)), 'text/plain': 'a table'})
    plain = dict(output_type='execute_result', metadata={}, execution_count=1, data={'text/plain': '\n'.join(HOSTILE)})
    stream = dict(output_type='stream', name='stdout', text='\n'.join(HOSTILE))
    cell = dict(cell_type='code', id='a', metadata={}, execution_count=1, source='tweets', outputs=[*map(html, shown(fitted).values()), plain, stream])
    nb = dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(display_name='python3', language='python', name='python3')), cells=[dict(cell_type='raw', id='b', metadata={}, source='---\ntitle: Safe\n---'), cell])
    (tmp_path/'index.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    for name in ('_quarto.yml', 'nbdev.yml', 'styles.css', 'favicon.svg'): shutil.copy(ROOT/'nbs'/name, tmp_path/name)
    (tmp_path/'sidebar.yml').write_text(docs.sidebar_yml(['index.ipynb']), encoding='utf-8')
    out = build(tmp_path, quiet=True).out
    with serve(out) as home, chromium() as page:
        page.get(home)
        assert page.title.startswith('Safe')
        assert page.execute_script("return document.querySelectorAll('main :is(script, iframe, svg[onload], img[src=x])').length") == 0
        assert page.execute_script("return [...document.querySelectorAll('main [href^=\"javascript:\"]')].length") == 0
        assert page.execute_script("return getComputedStyle(document.body).display") != 'none'
        text = page.execute_script("return document.querySelector('main').textContent")
        for h in HOSTILE[:6]: assert text.count(h) >= 3, h
