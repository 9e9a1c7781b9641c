"""How the page to play with holds under load: `make bench-app`, or `python tests/load.py [preset]`.

200 questions a second for 30 seconds, a tenth of them valid, each on a connection of its own, and the page ten times a second beside them."""
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

DRAFT = dict(company='brackenlow', username='Brackenlow', content='Win two tickets', date='2020-05-06T09:00', media='photo')
BAD = [json.dumps(DRAFT | x) for x in (dict(company=''), dict(date='soon'), dict(likes='9'), dict(content=5), dict(content='x'*2001), dict(media='eval'), dict(picture='../../etc/passwd'))] + ['{', '['*50_000]
GOALS = 'no invalid draft without an answer, every valid one answered or refused (503) within 2 s, p99 of `/` under 200 ms, an answer within 2 s of the end'


async def asked(port, body=None, limit=10.):
    "Status (0: none in time) and seconds of one question; without a body, of the page."
    start, writer = time.monotonic(), None
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection('127.0.0.1', port)
            data = (body or '').encode()
            head = f'POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}' if body else 'GET / HTTP/1.1'
            writer.write(f'{head}\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n'.encode() + data)
            answer = await reader.read()
            status = int(answer.split(b' ', 2)[1])
    except (TimeoutError, OSError, IndexError, ValueError):
        status = 0
    finally:
        if writer:
            writer.close()
    return status, time.monotonic() - start


async def load(port, seconds=30., rate=200., pages=10.):
    "Kind → [(status, seconds)], and the seconds until a valid draft is answered again."
    valid = json.dumps(DRAFT)
    plan = [(k/rate, 'invalid' if k % 10 else 'valid', BAD[k % len(BAD)] if k % 10 else valid) for k in range(int(seconds*rate))]
    plan = sorted(plan + [(k/pages, 'page', None) for k in range(int(seconds*pages))], key=lambda x: x[0])
    start, tasks = time.monotonic(), []
    for at, kind, body in plan:
        await asyncio.sleep(max(0, start + at - time.monotonic()))
        tasks.append((kind, asyncio.create_task(asked(port, body))))
    end = time.monotonic()
    while (await asked(port, valid))[0] != 200 and time.monotonic() - end < 120:
        await asyncio.sleep(.1)
    again, found = time.monotonic() - end, {}
    for kind, task in tasks:
        found.setdefault(kind, []).append(await task)
    return found, again


def table(found, again):
    "Markdown."
    name = {0: 'none', 200: 'answered', 400: 'refused (400)', 503: 'come again (503)'}
    rows = ['| | questions | answers | median, ms | p99, ms | longest, ms |', '|---|---|---|---|---|---|']
    for kind, answers in found.items():
        ms, counts = 1000*np.array([s for _, s in answers]), Counter(name.get(a, str(a)) for a, _ in answers)
        rows.append(f'| {kind} | {len(answers):,} | {", ".join(f"{n:,} {k}" for k, n in counts.most_common())} | {np.median(ms):,.0f} | {np.percentile(ms, 99):,.0f} | {ms.max():,.0f} |')
    return '\n'.join([*rows, '', f'A valid draft is answered again {again:.2f} s after the end.'])


def main(preset='laptop', seconds=30., rate=200.):
    from browser import running
    from behaviour_sim.corpus.synthetic import sample_tweets
    from behaviour_sim.likes.simulator import LikesSimulator
    with tempfile.TemporaryDirectory() as d:
        LikesSimulator(preset).fit(sample_tweets(500), quiet=True).save(Path(d)/'m')
        with running('--model', Path(d)/'m') as port:
            for _ in range(2):
                print(f'One draft alone: {asyncio.run(asked(port, json.dumps(DRAFT), 60))[1]:.2f} s')
            print(table(*asyncio.run(load(port, float(seconds), float(rate)))))
    print('Goals:', GOALS)


if __name__ == '__main__':
    main(*sys.argv[1:])
