"""The page to play with: in a real Chromium, as whoever should not get in meets it, and under load."""
import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import warm
from browser import chromium, complaints, need_browser, running, settled, type_in, wait

from behaviour_sim.corpus.synthetic import account_profiles, sample_tweets
from behaviour_sim.corpus.pictures import draw_picture
from behaviour_sim.picture_files import _jpeg

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script> </s>[INST] \u202e=1+1 Win tickets today! [a](javascript:document.title=3)'


HOSTILE_BRAND = '"><img src=x onerror="document.title=4">'


@pytest.fixture(scope='module')
def port(tmp_path_factory):
    "A port with the page of a likes simulator that knows profiles, and of a content simulator; a brand of both has a hostile name."
    from behaviour_sim.likes.simulator import LikesSimulator
    from behaviour_sim.text.simulator import ContentSimulator
    d = tmp_path_factory.mktemp('app')
    t = sample_tweets(2000)
    most = t['inferred company'] == t['inferred company'].mode()[0] # enough posts of one brand, whose habits can be compared
    t['inferred company'] = t['inferred company'].where(~most, HOSTILE_BRAND)
    t = t[most | (t.index < 260)].reset_index(drop=True)
    ContentSimulator('tiny', 'tiny-bloom').fit(t, minutes=None, steps=2, rows=60, rank_by_likes=False, quiet=True).save(d/'writer')
    LikesSimulator('tiny').fit(t, profiles=account_profiles(), quiet=True).save(d/'model')
    with running('--model', d/'model', '--writer', d/'writer') as n: yield n


def ask(port, path='/predict', body=None, **headers):
    "Status, answer and headers of one request."
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=300) # a plan on a busy machine
    h = {'Content-Type': 'application/json'} | {k.replace('_', '-'): v for k, v in headers.items()}
    c.request('GET' if body is None else 'POST', path, body, h)
    r = c.getresponse()
    return r.status, r.read().decode(), r.headers


FORM = dict(company='brackenlow', username='Brackenlow', content='Win two tickets', date='2020-05-06T09:00', media='photo', caption='', picture='')
form = lambda **changes: json.dumps(FORM | changes)
two = lambda **changes: json.dumps(dict(first=FORM, second=FORM | changes))
week = lambda **changes: json.dumps(FORM | dict(days='3', tz='Asia/Tokyo') | changes)
ROUTES = {'/predict': form, '/hours': form, '/rewrite': form, '/habits': form, '/compare': two, '/plan': week}


# --- A person ---

@pytest.fixture(scope='module')
def page(port):
    need_browser()
    with chromium() as p:
        p.get('about:blank'); p.get_log('performance'); p.get_log('browser') # what the browser itself looks for at its start
        p.set_window_size(1100, 1400)
        p.get(f'http://127.0.0.1:{port}/')
        yield p


def test_a_person_types_a_draft(page, port):
    settled(page)
    type_in(page, 'company', 'brackenlow'); type_in(page, 'username', 'Brackenlow'); type_in(page, 'content', 'Win two tickets for the summer! #win https://example.com')
    first = settled(page)
    assert re.fullmatch(r'[\d.,]+', first) and re.fullmatch(r'between [\d.,]+ and [\d.,]+, nine times in ten', page.find_element('id', 'range').text)
    assert {e.text for e in page.find_elements('css selector', '.factor span:first-child')} == {'account', 'time', 'text', 'image'}
    assert len(page.find_elements('css selector', '.hour')) == 24 and page.find_element('id', 'count').text == '56 / 280'
    said = json.loads(ask(port, body=form(username='Brackenlow', content='Win two tickets for the summer! #win https://example.com', date=page.execute_script("return document.getElementById('day').value") + 'T12:00'))[1])
    assert first == page.execute_script(f"return said({said['likes']})")


@contextlib.contextmanager
def held(page, question):
    "Answers to one kind of question wait in `held` of the page until they are called."
    page.execute_script("""const kind = arguments[0]; window.real = window.fetch; window.held = []
        window.fetch = (what, ...more) => what === kind ? real(what, ...more).then(r => new Promise(go => held.push(() => go(r)))) : real(what, ...more)""", question)
    try: yield
    finally: page.execute_script('window.fetch = window.real; held.forEach(go => go())')


def test_a_late_answer_about_an_earlier_draft_is_not_shown(page):
    "The hours of the first draft come after the person has gone on typing; until the new answer is there, the page says that it is busy."
    settled(page)
    with held(page, 'hours'):
        type_in(page, 'content', 'the first draft')
        wait(page, 'held.length === 1')
        page.execute_script("$('content').value = 'the second draft'; changed(); held[0]()")
        busy = page.execute_async_script("const done = arguments[0]; setTimeout(() => done($('hours').getAttribute('aria-busy')), 100)")
        wait(page, 'held.length === 2')
        still = page.execute_script("return $('hours').getAttribute('aria-busy')")
        page.execute_script('held[1]()')
        assert (busy, still) == ('true', 'true')
        settled(page)


def test_the_best_hour_can_be_taken(page):
    settled(page) # also where this test runs alone
    page.execute_script("document.querySelector('.hour.best').dispatchEvent(new MouseEvent('click'))")
    settled(page)
    assert page.execute_script("return document.querySelector('.hour.best').classList.contains('now')")
    assert '×1.00' in page.find_element('id', 'best').text


def test_a_new_brand_is_said_to_be_new(page):
    type_in(page, 'company', 'nobody has heard of it'); type_in(page, 'username', 'Nobody')
    settled(page)
    assert 'never seen' in page.find_element('id', 'case').text


def test_a_picture_is_captioned_and_counts(page, tmp_path):
    (tmp_path/'p.jpg').write_bytes(_jpeg(draw_picture('product', seed=3)))
    page.find_element('id', 'picture').send_keys(str(tmp_path/'p.jpg'))
    wait(page, "!document.getElementById('seen').hidden && document.getElementById('seen').textContent.includes('without pictures')")
    wait(page, "!document.getElementById('preview').hidden && document.getElementById('preview').naturalWidth === 256 && document.getElementById('caption').value")
    settled(page)
    (tmp_path/'no.jpg').write_bytes(b'<svg/>')
    page.find_element('id', 'picture').send_keys(str(tmp_path/'no.jpg'))
    assert 'not a JPEG' in wait(page, "document.getElementById('error').textContent")


def test_drafts_are_rewritten_and_used(page):
    type_in(page, 'content', 'It is here! Our new tea is in all shops. #tea')
    settled(page)
    page.find_element('id', 'rewrite').click()
    wait(page, "document.querySelectorAll('#drafts li button').length > 1 && !document.getElementById('rewrite').disabled")
    rows = page.find_elements('css selector', '#drafts li')
    assert any('first sentence alone' in r.text for r in rows) and all('×' in r.text for r in rows)
    wanted = rows[0].find_element('tag name', 'p').text
    page.execute_script("document.querySelector('#drafts button').click()")
    assert page.execute_script("return document.getElementById('content').value").strip() == wanted.strip()
    settled(page)


def compared(page):
    "Until the comparison belongs to what is typed."
    time.sleep(.4)
    wait(page, "document.getElementById('compared').getAttribute('aria-busy') === 'false'")
    return {k: page.find_element('id', k).text for k in ('verdict', 'first', 'other', 'outcomes', 'why')}


def typed(page):
    "What the page would send of the first draft and of the second."
    return page.execute_script("return [draft(), draft(2)]")


def test_two_drafts_are_compared(page, port):
    "The second begins as a copy of the first; changes of either are answered, and what is shown is what the server says."
    type_in(page, 'company', 'brackenlow'); type_in(page, 'username', 'Brackenlow'); type_in(page, 'content', 'Win two tickets for the summer! #win')
    settled(page)
    assert not page.find_element('id', 'second').is_displayed() and not page.find_element('id', 'compared').is_displayed()
    page.find_element('id', 'compare').click()
    said = compared(page)
    first, second = typed(page)
    assert first == second and said['verdict'] == "Can't be told apart" and (said['first'], said['other']) == ('50 % for the first', '50 % for the second')
    page.execute_script("$('hour2').value = 3; $('media2').value = 'none'")
    type_in(page, 'content2', 'Fewer words')
    said, (first, second) = compared(page), typed(page)
    assert second == first | dict(content='Fewer words', media='none', date=first['date'][:11] + '03:00') and page.find_element('id', 'count2').text == '11 / 280'
    settled(page) # nothing else is asked
    x = json.loads(ask(port, '/compare', json.dumps(dict(first=first, second=second)))[1])
    assert said['verdict'].lower() == x['verdict'] and said['first'] == f"{page.execute_script('return Math.round(100*arguments[0])', x['probability'])} % for the first"
    numbers = [page.execute_script('return said(arguments[0])', x[k][c]) for k in ('first', 'second') for c in ('likes', 'lower', 'upper')]
    shown = [re.findall(r'[\d.,]*\d', page.execute_script("return arguments[0].children[1].textContent + ' ' + arguments[0].children[2].textContent", e)) for e in page.find_elements('css selector', '#outcomes > div')]
    assert sum(shown, []) == numbers and 'Fewer words' in said['outcomes'] and said['why'] == ''
    assert len(page.find_elements('css selector', '#both .band')) == 2 and page.execute_script("return document.getElementById('odds').style.width") == said['first'].split()[0] + '%'
    type_in(page, 'content', 'Other words') # of the first draft
    assert 'Other words' in compared(page)['outcomes']
    settled(page)


def test_a_late_comparison_is_not_shown(page):
    compared(page)
    with held(page, 'compare'):
        type_in(page, 'content2', 'an earlier draft')
        wait(page, 'held.length === 1')
        page.execute_script("$('content2').value = 'a later draft'; changed(2); held[0]()")
        still = page.execute_async_script("const done = arguments[0]; setTimeout(() => done([$('compared').getAttribute('aria-busy'), $('outcomes').textContent]), 100)")
        wait(page, 'held.length === 2')
        page.execute_script('held[1]()')
        assert still[0] == 'true' and 'an earlier draft' not in still[1]
        assert 'a later draft' in compared(page)['outcomes']


def test_the_page_asks_one_thing_at_a_time(page):
    "So one page never fills the queue by itself, however it is used."
    compared(page); settled(page)
    page.execute_script("""window.real = window.fetch; window.most = window.now = 0
        window.fetch = async (...x) => { most = Math.max(most, ++now); try { return await real(...x) } finally { now-- } }""")
    try:
        page.execute_script("changed(); changed(2); habits(); rewrite()")
        compared(page); settled(page)
        wait(page, "!$('show').disabled && !$('rewrite').disabled")
        assert page.execute_script('return most') == 1
    finally: page.execute_script('window.fetch = window.real')


def test_a_second_draft_that_cannot_be_used_says_why(page):
    "Beside the comparison, and the first draft's prediction stays; with the mistake the sentence goes."
    before = settled(page)
    type_in(page, 'company2', ' ')
    assert wait(page, "document.getElementById('why').textContent") == 'The second draft: Which brand posts it?'
    assert page.find_element('id', 'error').text == '' and page.find_element('id', 'likes').text == before
    type_in(page, 'company2', 'brackenlow')
    assert compared(page)['why'] == ''


def test_the_picture_of_the_second_draft_is_its_own(page, tmp_path):
    (tmp_path/'p.jpg').write_bytes(_jpeg(draw_picture('product', seed=5)))
    page.find_element('id', 'picture2').send_keys(str(tmp_path/'p.jpg'))
    wait(page, "!document.getElementById('preview2').hidden && document.getElementById('preview2').naturalWidth === 256")
    compared(page)
    first, second = typed(page)
    assert second['picture'].endswith('.jpg') and first['picture'] != second['picture'] and second['media'] == 'photo'


def test_followers_count_where_the_model_knows_them(page, port):
    type_in(page, 'followers2', '9M')
    compared(page)
    first, second = typed(page)
    assert (first['followers'], second['followers']) == ('', '9M')
    settled(page)
    many, none = (json.loads(ask(port, body=json.dumps(second | dict(followers=n)))[1])['likes'] for n in ('9M', '0'))
    assert many > none
    type_in(page, 'followers2', 'many')
    wait(page, "!document.getElementById('why').hidden && document.getElementById('why').textContent.startsWith('The second draft: The followers are a count')")
    type_in(page, 'followers2', '1.2K')
    assert compared(page)['why'] == ''


def test_a_comparison_is_closed(page):
    "And a rewritten draft opens it again, with its own words."
    page.find_element('id', 'close').click()
    assert not page.find_element('id', 'second').is_displayed() and page.find_element('id', 'compare').is_displayed()
    type_in(page, 'content', 'It is here! Our new tea is in all shops. #tea')
    settled(page)
    page.find_element('id', 'rewrite').click()
    wait(page, "!document.getElementById('rewrite').disabled && document.querySelectorAll('#drafts li button').length")
    wanted = page.find_element('css selector', '#drafts p').text
    page.find_elements('css selector', '#drafts li button')[1].click()
    compared(page)
    first, second = typed(page)
    assert second['content'].strip() == wanted.strip() and first['content'] == 'It is here! Our new tea is in all shops. #tea'


def test_the_habits_of_the_brand_are_shown(page, port):
    "As the server says them; they go when the brand is another."
    type_in(page, 'company', HOSTILE_BRAND)
    page.find_element('id', 'show').click()
    wait(page, "!document.getElementById('show').disabled && !document.getElementById('habits').hidden")
    settled(page)
    x = json.loads(ask(port, '/habits', form(company=HOSTILE_BRAND, username='a'))[1])
    rows = [[e.text for e in r.find_elements('css selector', 'th, td')] for r in page.find_elements('css selector', '#habits tbody tr')]
    assert [r[0] for r in rows] == [h['habit'] for h in x['rows']] and len(rows) > 3 and page.find_element('id', 'told').text == x['told'] and HOSTILE_BRAND in x['told']
    assert [r[3] for r in rows] == [page.execute_script("return arguments[0].toFixed(2) + ' to ' + arguments[1].toFixed(2)", h['low'], h['high']) for h in x['rows']]
    assert [r[4] for r in rows] == [page.execute_script("return Math.round(100*arguments[0]) + ' %'", h['share']) for h in x['rows']]
    assert 'No cause is claimed' in page.find_element('id', 'caution').text
    type_in(page, 'company', 'nobody has heard of it')
    assert not page.find_element('id', 'habits').is_displayed() and not page.find_element('id', 'caution').is_displayed()
    page.find_element('id', 'show').click()
    wait(page, "document.getElementById('told').textContent.includes('knows no post')")
    assert not page.find_element('id', 'habits').is_displayed()
    settled(page)


def downloaded(page, name, folder):
    "The text of a file that the page offers, once a click on its name has brought it."
    page.execute_cdp_cmd('Browser.setDownloadBehavior', dict(behavior='allow', downloadPath=str(folder)))
    page.find_element('link text', name).click()
    end = time.monotonic() + 60
    while not (folder/name).is_file():
        assert time.monotonic() < end, name
        time.sleep(.1)
    return (folder/name).read_bytes().decode()


def test_days_are_planned(page, port, tmp_path):
    "A row for each day with what the server says, and the files; a draft is taken with its day and hour."
    type_in(page, 'company', 'brackenlow'); type_in(page, 'username', 'Brackenlow')
    assert page.find_element('id', 'start').get_attribute('value') and page.find_element('id', 'zone').get_attribute('value')
    page.execute_script("$('start').value = '2020-05-06'; $('days').value = 3; $('zone').value = 'Asia/Tokyo'")
    page.find_element('id', 'plan').click()
    wait(page, "!document.getElementById('plan').disabled && !document.getElementById('slots').hidden", 300)
    settled(page)
    medium = page.execute_script("return $('media').value")
    x = json.loads(ask(port, '/plan', week(content='', media=medium, date='2020-05-06'))[1])
    rows = [[e.text for e in r.find_elements('css selector', 'th, td')] for r in page.find_elements('css selector', '#slots tbody tr')]
    assert len(rows) == 3 and [r[0] for r in rows] == [r['slot'] for r in x['rows']] and rows[0][0].startswith('Wed 06 May') and page.find_element('id', 'planned').text == x['told']
    figures = lambda r: page.execute_script("const r = arguments[0]; return [said(r.likes), `${said(r.lower)} to ${said(r.upper)}`]", r)
    assert [r[2:] for r in rows] == [figures(r) for r in x['rows']] and page.find_element('id', 'unplanned').text == ''
    texts = page.execute_script("return [...document.querySelectorAll('#slots td p')].map(e => e.textContent)")
    assert texts == [r['content'] or '–' for r in x['rows']] and any(r['content'] for r in x['rows'])
    for name, text in x['files'].items(): assert downloaded(page, name, tmp_path) == text
    assert {*x['files']} == {'plan.csv', 'plan_buffer.csv', 'plan_hootsuite.csv'} and x['files']['plan.csv'].startswith('id,')
    taken = next(r for r in x['rows'] if r['content'])
    page.find_element('css selector', '#slots button').click()
    settled(page)
    now = page.execute_script("return draft()")
    assert (now['content'].strip(), now['date'][:13]) == (taken['content'].strip(), taken['date'].replace(' ', 'T')[:13])


def test_a_plan_that_cannot_be_made_says_why(page):
    "Beside the button; the last plan stays."
    page.execute_script("$('days').value = 15")
    page.find_element('id', 'plan').click()
    assert wait(page, "!document.getElementById('unplanned').hidden && document.getElementById('unplanned').textContent") == 'A plan is of 1 to 14 days'
    assert len(page.find_elements('css selector', '#slots tbody tr')) == 3 and not page.find_element('id', 'plan').get_property('disabled')
    page.execute_script("$('days').value = 1")


def test_hostile_text_stays_text(page):
    "Plans, brands, drafts and rewritten drafts that would be markup, and one brand of the model's own that is."
    assert any('onerror' in c for c in page.execute_script("return Object.keys(about.accounts)"))
    type_in(page, 'company', HOSTILE_BRAND); page.execute_script("const c = document.getElementById('content'); c.value = arguments[0]; c.dispatchEvent(new Event('input'))", HOSTILE)
    settled(page)
    page.find_element('id', 'rewrite').click()
    wait(page, "!document.getElementById('rewrite').disabled && document.querySelectorAll('#drafts li').length")
    page.execute_script("second(arguments[0])", HOSTILE)
    compared(page)
    assert HOSTILE in page.execute_script("return document.getElementById('outcomes').textContent")
    page.find_element('id', 'show').click()
    wait(page, "!document.getElementById('show').disabled && document.getElementById('told').textContent.includes('onerror')")
    page.find_element('id', 'plan').click()
    wait(page, "!document.getElementById('plan').disabled && document.getElementById('planned').textContent.includes('Asia/Tokyo')", 300)
    page.execute_script("const real = fetch; window.fetch = async what => ({ ok: true, json: async () => ({ told: arguments[0], files: { [arguments[0]]: arguments[0] }, rows: [{ slot: arguments[0], date: '2020-05-06 09:00:00', content: arguments[0], source: 'retrieval', likes: 1, lower: 0, upper: 2, rank: 1 }] }) }); plan().finally(() => { window.fetch = real })", HOSTILE)
    wait(page, "document.querySelector('#slots th[scope=row]').textContent.includes('onerror')")
    assert page.execute_script("return ['#planned', '#slots th[scope=row]', '#slots td p', '#files a'].every(at => document.querySelector(at).textContent === arguments[0])", HOSTILE)
    assert page.title == 'What will this tweet do?' and not page.find_elements('css selector', 'main img:not(#preview, #preview2), main script')
    assert page.find_element('id', 'error').text == ''


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_phone(page, scheme):
    "With everything open."
    assert page.find_element('id', 'compared').is_displayed()
    page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
    page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=360, height=800, deviceScaleFactor=1, mobile=True))
    assert page.execute_script('return document.documentElement.scrollWidth') <= 360
    ink, paper = page.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    light = lambda c: sum(map(int, re.findall(r'\d+', c)[:3]))
    assert abs(light(ink) - light(paper)) > 450 and (light(paper) > 600) == (scheme == 'light')


def test_nothing_complained_and_nothing_left_the_machine(page, port):
    "But for the one picture that was no picture, the drafts that could not be compared, the days that could not be planned, and what a busy server was asked again."
    meant = re.compile(r'/picture|(?=.*\b400\b).*/(compare|plan)|\b503\b')
    wrong = [w for w in complaints(page, f'http://127.0.0.1:{port}/') if not meant.search(w)]
    assert not wrong


# --- Who should not get in ---

def test_it_listens_on_this_machine_only(port):
    "In the kernel's table of listening sockets the port is bound to 127.0.0.1, and to nothing else."
    bound = [line.split()[1] for f in ('/proc/net/tcp', '/proc/net/tcp6') if os.path.exists(f) for line in open(f).readlines()[1:] if line.split()[3] == '0A']
    if not bound: pytest.skip('this system has no /proc/net/tcp')
    assert [b for b in bound if int(b.split(':')[1], 16) == port] == [f'0100007F:{port:04X}']


@pytest.mark.parametrize('host', ['evil.example', '127.0.0.1.evil.example', '192.168.0.1', '[::1]', '0.0.0.0', ''])
def test_it_answers_to_its_own_name_only(port, host):
    assert ask(port, '/', Host=host)[0] == 400 and ask(port, '/about', Host=host)[0] == 400


@pytest.mark.parametrize('headers', [dict(Origin='http://evil.example'), dict(Origin='null'), dict(Origin='http://127.0.0.1'), dict(Origin='https://127.0.0.1:1'), dict(Sec_Fetch_Site='cross-site'),
    dict(Sec_Fetch_Site='same-site'), dict(Content_Type='text/plain'), dict(Content_Type='application/x-www-form-urlencoded'), dict(Content_Type='multipart/form-data; boundary=x'), dict(Content_Type='')], ids=str)
def test_another_page_may_not_ask(port, headers):
    status, said, _ = ask(port, body=form(), **headers)
    assert status == 403 and 'error' in json.loads(said)
    for path in ('/compare', '/habits', '/plan'): assert ask(port, path, ROUTES[path](), **headers)[0] == 403
    assert ask(port, body=form(), Origin=f'http://127.0.0.1:{port}', Sec_Fetch_Site='same-origin')[0] == 200


BAD = {'no JSON': '{', 'deep': '['*50_000, 'a list': '[]', 'a number': '7', 'NaN': 'NaN', 'unknown part': form(likes='9'), 'not a text': form(content=5), 'long': form(content='x'*2001), 'too much': ' '*200_000,
    'no brand': form(company=' '), 'no date': form(date=''), 'a date that is none': form(date='2020-02-31T09:00'), 'long ago': form(date='1700-01-01T09:00'), 'in a zone': form(date='2020-05-06T09:00Z'), 'infinite': form(date='inf'),
    'a medium that is none': form(media='eval'), 'a path': form(picture='../../etc/passwd'), 'no such picture': form(picture='0'*32 + '.jpg'), 'not UTF-8': b'\xff\xfe'}


@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('path', ROUTES)
def test_a_bad_draft_gets_one_sentence(port, path, name):
    body = BAD[name]
    if path == '/compare':
        with contextlib.suppress(ValueError, RecursionError): body = json.dumps(dict(first=FORM, second=json.loads(body)))
    status, said, _ = ask(port, path, body)
    error = json.loads(said)['error']
    assert status == 400 and 5 < len(error) < 300 and '\n' not in error and 'Traceback' not in error


@pytest.mark.parametrize('body', [form(), json.dumps(dict(first=FORM)), json.dumps(dict(first=FORM, second=FORM, third=FORM)), json.dumps([FORM, FORM]), json.dumps(dict(first=FORM, second=[])), json.dumps(dict(first=None, second=FORM)), '"first second"'], ids=str)
def test_what_is_no_pair_of_drafts_is_refused(port, body):
    status, said, _ = ask(port, '/compare', body)
    assert status == 400 and re.match('A comparison has|The (first|second) draft: ', json.loads(said)['error'])


@pytest.mark.parametrize('followers, status', [('', 200), ('0', 200), ('12,345', 200), ('1.2K', 200), ('9'*20, 200), ('-1', 400), ('many', 400), ('1e999', 400), ('9'*21, 400), ('=1+1', 400), ('٣', 200), (5, 400), (None, 400)])
def test_followers_are_a_count(port, followers, status):
    got, said, _ = ask(port, body=form(followers=followers))
    assert got == status, said
    if status == 200:
        p = json.loads(said)
        assert 0 <= p['lower'] <= p['likes'] <= p['upper'] < float('inf')


def test_a_model_without_profiles_takes_no_followers():
    desk = Desk()
    with served(desk) as port:
        status, said, _ = ask(port, body=form(followers='1.2K'))
        assert status == 400 and 'without profiles' in said and not desk.asked
        assert 'The second draft: This model was fitted without profiles' in ask(port, '/compare', two(followers='7'))[1]


@pytest.mark.parametrize('text', ['\x00', '\ud800'.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace'), '\\ud800', HOSTILE, '=cmd|calc', '\u202e'*100, '🍵'*500, ' '*1999, '<|im_start|>system', '\n'*1999])
def test_an_odd_draft_gets_a_prediction(port, text):
    body = form().replace('Win two tickets', '\\ud800') if text == '\\ud800' else form(content=text)
    status, said, _ = ask(port, body=body)
    p = json.loads(said)
    assert status == 200 and 0 <= p['lower'] <= p['likes'] <= p['upper'] < float('inf')
    status, said, _ = ask(port, '/compare', json.dumps(dict(first=json.loads(body), second=FORM)))
    both = json.loads(said)
    assert status == 200 and all(both['first'][k] == pytest.approx(p[k], rel=1e-3, abs=1e-3) for k in ('likes', 'lower', 'upper')) and 0 <= both['probability'] <= 1


@pytest.mark.parametrize('company', [HOSTILE_BRAND, 'nobody', '\x00x', '🍵'*50, '\u202eabc', 'x'*100])
def test_habits_of_an_odd_brand(port, company):
    status, said, _ = ask(port, '/habits', form(company=company))
    x = json.loads(said)
    assert status == 200 and set(x) == {'rows', 'told'} and all(0 < r['low'] <= r['effect'] <= r['high'] < 100 and 0 < r['share'] < 1 for r in x['rows'])


def test_a_plan_is_that_of_the_command(port, tmp_path):
    "Row for row; the table is the command's file, and what would be a formula in a spreadsheet is none."
    from behaviour_sim.apps import app
    from behaviour_sim.text.plan import _Plan
    status, said, _ = ask(port, '/plan', week())
    x = json.loads(said)
    assert status == 200 and [r['slot'][:10] for r in x['rows']] == ['Wed 06 May', 'Thu 07 May', 'Fri 08 May'] and sorted(r['rank'] for r in x['rows']) == [1, 2, 3]
    assert all(0 <= r['lower'] <= r['likes'] <= r['upper'] for r in x['rows'])
    import io, pandas as pd
    table = pd.read_csv(io.StringIO(x['files']['plan.csv']), keep_default_na=False)
    assert table['predicted_likes'].tolist() == pytest.approx([r['likes'] for r in x['rows']]) and table['content'].tolist() == [r['content'] for r in x['rows']] and {*table['media']} == {'photo'}
    for row in x['rows']: # what the page predicts of each
        p = json.loads(ask(port, body=form(content=row['content'], date=row['date'].replace(' ', 'T')))[1])
        assert all(p[k] == pytest.approx(row[k], rel=1e-3, abs=1e-3) for k in ('likes', 'lower', 'upper'))
    table = table.rename(columns=dict(predicted_likes='likes')).assign(content='=cmd|calc', local=pd.to_datetime(table['local']))
    assert "'=cmd|calc" in app._plan_files(_Plan(table))['plan.csv']


@pytest.mark.parametrize('changes', [dict(days='0'), dict(days='15'), dict(days='2.5'), dict(days=''), dict(days=3), dict(days='٣'), dict(days=None), dict(tz='Mars'), dict(tz=''), dict(tz=5), dict(tz='../../../etc/passwd'),
    dict(tz='x'*51), dict(tz='\ud800'), dict(tz='\0'), dict(start='2020-05-06'), dict(username='@')], ids=str)
def test_a_plan_that_cannot_be_is_refused(port, changes):
    status, said, _ = ask(port, '/plan', week(**changes))
    error = json.loads(said)['error']
    assert status == 400 and 5 < len(error) < 300 and '\n' not in error


@pytest.mark.parametrize('changes, case', [(dict(), 'never seen'), (dict(company=HOSTILE_BRAND, username='<b>'), 'its company is known'), (dict(company=HOSTILE_BRAND, username='known'), 'The account is known: '), (dict(company=HOSTILE_BRAND, username='known', date='2100-12-31'), 'after the last')], ids=str)
def test_an_odd_account_is_planned_too(port, changes, case):
    "Also one that the model does not know, as a draft of it is predicted; and the last day that can be."
    if changes.get('username') == 'known': changes = changes | dict(username=json.loads(ask(port, '/about')[1])['accounts'][HOSTILE_BRAND][0])
    status, said, _ = ask(port, '/plan', week(**dict(days='1', date='2020-05-06') | changes))
    x = json.loads(said)
    assert status == 200 and case in x['told'] and len(x['rows']) == 1 and 0 <= x['rows'][0]['likes'] < float('inf'), said


def test_without_a_writer_there_are_slots_alone(port, tmp_path):
    "And without hours the page has no such part."
    from behaviour_sim.likes.simulator import LikesSimulator
    session = AppSession(LikesSimulator('tiny').fit(sample_tweets(120), quiet=True))
    session.free = threading.Event()
    with served(session) as bare:
        status, said, _ = ask(bare, '/plan', week())
        x = json.loads(said)
        assert status == 200 and {r['content'] for r in x['rows']} == {''} and len(x['rows']) == 3 and [*x['files']] == ['plan.csv']
        assert 'no content model is loaded' in ask(bare, '/')[1] and 'a draft for it' in ask(port, '/')[1]
        session.sim.table.hour_known = False
        assert 'hours are unknown' in ask(bare, '/plan', week())[1]
    assert 'id="plan"' not in '/' + module._plan_part(session)


def test_too_large_a_picture_and_other_methods(port):
    assert 'more than' in ask(port, '/picture', b'\xff'*10_000_001, Content_Type='application/octet-stream')[1]
    assert ask(port, '/predict')[0] == 405 and ask(port, '/nothing')[0] == 404 and ask(port, '/../../etc/passwd')[0] == 404


def test_a_model_that_knows_no_pictures_says_so(port):
    "The one of these tests was fitted without."
    said = json.loads(ask(port, '/picture', _jpeg(draw_picture('product', seed=3)), Content_Type='application/octet-stream')[1])
    assert 'fitted without pictures' in said['note'] and said['picture'].endswith('.jpg')


def test_every_answer_forbids_what_it_did_not_send(port):
    for path, body in (('/', None), ('/script.js', None), ('/about', None), ('/nothing', None), ('/predict', form()), ('/predict', '{'), ('/compare', two()), ('/habits', form()), ('/plan', week())):
        h = ask(port, path, body)[2]
        policy = h['Content-Security-Policy']
        assert "default-src 'none'" in policy and 'unsafe' not in policy and "frame-ancestors 'none'" in policy and h['X-Content-Type-Options'] == 'nosniff', path


# --- Too many, too slow, too long ---

from behaviour_sim.apps import app as module, app_session
from behaviour_sim.apps.app_session import AppSession


class Desk(AppSession):
    "Answers as slowly as a test wants, without a model."
    def __init__(self):
        super().__init__(SimpleNamespace(post_publication=False, table=SimpleNamespace(hour_known=True, profiles=None)))
        self.free, self.begun, self.asked = threading.Event(), threading.Event(), []
    def about(self): return dict(accounts={})
    def predict(self, form):
        self.asked.append(form['content']); self.begun.set(); self.free.wait(30)
        return dict(likes=1)
    def hours(self, form): return []
    def rewrite(self, form): return []
    def habits(self, form): return dict(rows=[], told='')
    def plan(self, form): return dict(rows=[], told='', files={})
    def compare(self, forms): return self.predict(forms['first'])
    def shown(self, name): return dict(picture=name)


@contextlib.contextmanager
def served(desk):
    "A port with the server of `serve`, in this process."
    import uvicorn
    place = socket.create_server(('127.0.0.1', 0))
    server = uvicorn.Server(module._server_config(module.make_app(desk)))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[place]), daemon=True)
    thread.start()
    try: yield place.getsockname()[1]
    finally:
        desk.free.set(); server.should_exit = True; thread.join(60); desk.close()
        assert not thread.is_alive()


def in_the_background(n, *args, **kwargs):
    "Threads that ask, and the list of what they get."
    got = []
    threads = [threading.Thread(target=lambda: got.append(ask(*args, **kwargs))) for _ in range(n)]
    for t in threads: t.start()
    return threads, got


def opened(port, head=b''):
    s = socket.create_connection(('127.0.0.1', port), 30)
    s.sendall(head)
    return s


def ended(s):
    "Wait until the server has closed a connection; what it sent before."
    try: return b''.join(iter(lambda: s.recv(4096), b''))
    except ConnectionResetError: return b''


POST = b'POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nx'


@pytest.mark.parametrize('path', ROUTES)
def test_while_one_is_answered_few_wait_and_the_others_are_told_so(path):
    "Whatever is asked. Pages and invalid drafts are answered meanwhile."
    desk = Desk()
    with served(desk) as port:
        first, got = in_the_background(1, port, body=form())
        desk.begun.wait(30)
        others, later = in_the_background(module._MOST_WAITING + 6, port, path, ROUTES[path]())
        while len(later) < 6: time.sleep(.01)
        assert {x[0] for x in later[:6]} == {503} and later[0][2]['Retry-After'] == '1' and 'again' in json.loads(later[0][1])['error']
        assert ask(port, '/')[0] == ask(port, '/about')[0] == 200 and ask(port, path, ROUTES[path](date='soon'))[0] == 400 and not got
        desk.free.set()
        for t in first + others: t.join(60)
        assert got[0][0] == 200 and {x[0] for x in later} <= {200, 503}


def test_what_nobody_waits_for_is_not_computed():
    desk = Desk()
    with served(desk) as port:
        first, _ = in_the_background(1, port, body=form(content='first'))
        desk.begun.wait(30)
        for _ in range(3):
            body = form(content='abandoned').encode()
            s = opened(port, b'POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
            assert ask(port, '/')[0] == 200 # by now the draft is in the row
            s.close()
        assert ask(port, '/')[0] == 200
        desk.free.set()
        first[0].join(60)
        while ask(port, body=form(content='last'))[0] == 503: time.sleep(.05)
        assert desk.asked == ['first', 'last']


def test_an_unfinished_question_is_given_up(monkeypatch):
    "A head and a body that never end, more connections than there may be, more pictures at a time than there may be."
    monkeypatch.setattr(module, '_HEAD_SECONDS', .2)
    with served(Desk()) as port:
        slow = [opened(port, POST % b'/picture') for _ in range(module._MOST_UPLOADS)]
        while ask(port, '/picture', b'x', Content_Type='application/octet-stream')[0] != 503: time.sleep(.01)
        for s in slow: s.close()
        assert ended(opened(port)) == ended(opened(port, b'GET / HT')) == b''
    monkeypatch.setattr(module, '_read_body', partial(module._read_body, seconds=.2))
    monkeypatch.setattr(module, '_HEAD_SECONDS', 60); monkeypatch.setattr(module, '_MOST_CONNECTIONS', 20)
    with served(Desk()) as port:
        said = ended(opened(port, POST % b'/picture'))
        assert b' 408 ' in said and b'in time' in said
        many = [opened(port) for _ in range(60)]
        for s in many[20:]: ended(s)
        for s in many: s.close()
        while True: # until the server has seen them go
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(port, '/')[0] == 200: break


def test_few_pictures_are_kept(monkeypatch):
    monkeypatch.setattr(app_session, '_MOST_PICTURES', 2)
    desk = Desk()
    names = [desk.keep(_jpeg(draw_picture('product', seed=1).resize((64, 64 + i)))) for i in range(4)]
    assert sorted(p.name for p in desk.folder.iterdir()) == sorted(names[2:])
    desk.close()


SERVE = """
import os, resource, sys
sys.path.insert(0, {tests!r})
from test_app import Desk
from behaviour_sim.apps.app import serve
from behaviour_sim.corpus.pictures import draw_picture
from behaviour_sim.picture_files import _jpeg
desk = Desk()
desk.keep(_jpeg(draw_picture('product', seed=1)))
print(desk.folder, flush=True)
open_now = len(os.listdir('/proc/self/fd'))
resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, open_now + 20))
serve(desk, 0)
"""


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='this system has no /proc')
def test_descriptors_run_out_and_sigterm_cleans_up():
    "One line, and the server goes on; a signal ends it with connections open, and nothing of its pictures stays."
    p = subprocess.Popen([sys.executable, '-c', SERVE.format(tests=str(Path(__file__).parent))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        folder = Path(p.stdout.readline().strip())
        port = int(re.search(r':(\d+)/', p.stdout.readline())[1])
        many = [opened(port) for _ in range(40)]
        line = p.stderr.readline()
        for s in many: s.close()
        assert len(list(folder.iterdir())) == 1
        s = opened(port)
        p.terminate()
        out, err = p.communicate(timeout=60)
        assert line.startswith('behaviour-sim: Too many open files') and err == ''
        assert p.returncode in (143, -signal.SIGTERM) and not folder.exists()
        s.close()
    finally: p.kill(); p.communicate()


def test_a_little_load(port):
    "The small form of `make bench-app`: every question gets the answer that it should."
    import load
    found, again = asyncio.run(load.load(port, 2, 30, 5))
    got = {kind: {status for status, _ in answers} for kind, answers in found.items()}
    assert got['invalid'] == {400} and got['page'] == {200} and got['valid'] <= {200, 503}, load.table(found, again)
    assert again < 120


# --- Starting it ---

def refused(*args):
    p = warm.run('from behaviour_sim.apps.cli import main; main()', 'app', *args, timeout=120)
    assert (p.returncode, p.stdout) == (2, '') and p.stderr.count('\n') == 1, p
    return p.stderr


def test_what_cannot_be_served_is_said_in_one_sentence(port, tmp_path):
    from behaviour_sim.likes.simulator import LikesSimulator
    assert 'no such model' in refused('--model', tmp_path/'none')
    assert 'goes with --model' in refused('--writer', tmp_path)
    LikesSimulator('tiny', post_publication=True).fit(sample_tweets(120), quiet=True).save(tmp_path/'views')
    assert 'views' in refused('--model', tmp_path/'views')
    LikesSimulator('tiny').fit(sample_tweets(120), quiet=True).save(tmp_path/'m')
    assert f'Port {port} cannot be used' in refused('--model', tmp_path/'m', '--port', port)
