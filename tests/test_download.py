"""The downloader against hostile addresses, a lying name service and a hostile server on this machine."""
import gzip, io, ipaddress, json, os, shutil, signal, socket, socketserver, ssl, struct, subprocess, sys, threading, time, zlib
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd, pytest, warm
from hypothesis import given, settings, strategies as st
from PIL import Image

from behaviour_sim.features.addresses import RefusedAddress, public_addresses, _read_url, why_not_public
from behaviour_sim.core import BadInput
from behaviour_sim.features.download import check_picture, download
from behaviour_sim.features.manifest import _AGAIN, _COLUMNS, _STATUSES, Manifest, _picture_path
from behaviour_sim.corpus.pictures import draw_picture


# --- Pictures, good and bad ---

def encoded(im, format, **kw):
    f = io.BytesIO(); im.save(f, format, **kw)
    return f.getvalue()

KITE = draw_picture('sunrise', size=64)
PNG, JPG, GIF, WEBP = (encoded(KITE, k) for k in ('PNG', 'JPEG', 'GIF', 'WEBP'))

def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def png(w, h, *more): return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)) + b''.join(more) + chunk(b'IDAT', zlib.compress(bytes((w % 5000 + 1)*(h % 5000)))) + chunk(b'IEND', b'')

def jpeg_of(w, h): # another size in its frame header
    at = next(i for i in range(len(JPG)) if JPG[i:i+2] == b'\xff\xc0')
    return JPG[:at+5] + struct.pack('>HH', h, w) + JPG[at+9:]

def many_scans():
    data = encoded(KITE, 'JPEG', progressive=True)
    start, end = data.rindex(b'\xff\xda'), data.rindex(b'\xff\xd9')
    return data[:end] + data[start:end]*400 + data[end:]

WEBP_HUGE = b'RIFF' + struct.pack('<I', 100) + b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + b'\xfe\x3f\0\xfe\x3f\0' + bytes(70)


# --- A server that means harm ---

def answer(body=PNG, status='200 OK', length=True, **headers):
    lines = [f'HTTP/1.1 {status}', *(f'{k.replace("_", "-")}: {v}' for k, v in headers.items())]
    if length: lines.append(f'Content-Length: {len(body) if length is True else length}')
    return '\r\n'.join(lines).encode('latin-1') + b'\r\n\r\n' + body

def chunked(*pieces): return b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in pieces)
def to(location, status='302 Found', **kw): return answer(b'', status, Location=location, **kw)

def drip(data, every, size=1, first=b''):
    "Send little by little."
    def send(conn):
        conn.sendall(first)
        for i in range(0, len(data), size):
            conn.sendall(data[i:i+size]); time.sleep(every)
    return send

def endless(first, piece=b'\0'*65536):
    def send(conn):
        conn.sendall(first)
        for _ in range(4000): conn.sendall(piece)
    return send

def silence(conn): time.sleep(3)
def reset(conn): conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

ROUTES = {
    # what is fine
    'png': answer(), 'jpg': answer(JPG), 'gif': answer(GIF), 'webp': answer(WEBP), 'progressive': answer(encoded(KITE, 'JPEG', progressive=True)),
    'wrong-claim': answer(JPG, Content_Type='text/html'), 'chunked': chunked(PNG[:5], PNG[5:100], PNG[100:]) + b'0\r\n\r\n', 'to-the-end': answer(length=False, Connection='close'),
    'identity': answer(Content_Encoding='identity'), 'cookie': answer(Set_Cookie='session=1; Path=/'), 'large': answer(PNG + bytes(900_000)),
    # too big
    'announced': answer(b'', length=10**7), 'announced-15-digits': answer(b'', length=10**15), 'announced-30-digits': answer(b'', length=10**30), 'endless': endless(b'HTTP/1.1 200 OK\r\n\r\n' + PNG),
    'endless-chunks': endless(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n\x89PNG\r\n\x1a\n\r\n', b'1000\r\n' + bytes(4096) + b'\r\n'),
    'a-byte-too-many': answer(PNG + bytes(1_000_001 - len(PNG))), 'a-byte-too-many-chunked': chunked(PNG, bytes(1_000_001 - len(PNG))) + b'0\r\n\r\n',
    'pixels-png': answer(png(30_000, 30_000)), 'pixels-png-max': answer(png(2**31-1, 2**31-1)), 'pixels-jpg': answer(jpeg_of(65_500, 65_500)), 'pixels-webp': answer(WEBP_HUGE),
    'pixels-gif': answer(GIF[:6] + b'\xff\xff\xff\xff' + GIF[10:]), 'pixels-white': answer(encoded(Image.new('1', (9000, 9000)), 'PNG')),
    # no picture
    'html': answer(b'<html><script>alert(1)</script></html>', Content_Type='image/png'), 'svg': answer(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', Content_Type='image/svg+xml'),
    'bmp': answer(encoded(KITE, 'BMP')), 'tiff': answer(encoded(KITE, 'TIFF')), 'ico': answer(encoded(KITE, 'ICO')), 'eps': answer(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n'),
    'pdf': answer(b'%PDF-1.7 and so on and on'), 'zip': answer(b'PK\x03\x04' + bytes(60)), 'exe': answer(b'MZ' + bytes(60)), 'riff-wav': answer(b'RIFF\0\0\0\0WAVEfmt ' + bytes(60)),
    'html-endless': endless(b'HTTP/1.1 200 OK\r\n\r\n<html><body>hello'), 'empty': answer(b''), 'three-bytes': answer(b'\x89PN'), 'gzip': answer(gzip.compress(PNG), Content_Encoding='gzip'), 'gzip-bomb': answer(gzip.compress(PNG + bytes(50_000_000)), Content_Encoding='gzip'),
    'gzip-claimed': answer(PNG, Content_Encoding='gzip'), 'br': answer(PNG, Content_Encoding='br'), 'deflate-twice': answer(PNG, Content_Encoding='deflate, deflate'), 'gzip-unclaimed': answer(gzip.compress(PNG)),
    # broken pictures
    'half': answer(PNG[:len(PNG)//2]), 'half-jpg': answer(JPG[:-300]), 'signature-only': answer(PNG[:8] + bytes(20)), 'polyglot': answer(b'GIF89a/*' + b'\x01\0\x01\0'*3 + b'*/=1;alert(1)//'),
    'zero-pixels': answer(png(0, 10)), 'jpg-nothing': answer(b'\xff\xd8\xff' + bytes(40)), 'jpg-fill-bytes': answer(b'\xff\xd8' + b'\xff'*5000), 'text-bomb': answer(png(9, 9, *[chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(5_000_000)))]*5)),
    'many-scans': answer(many_scans()), 'damaged': answer(PNG[:200] + b'\0\1\2\3'*50 + PNG[400:]), 'webp-cut': answer(WEBP[:60]), 'less-than-announced-picture': answer(PNG, length=400),
    # no answer
    'silence': silence, 'slow-head': drip(answer(), .05), 'slow-body': drip(PNG, .05, first=answer(b'', length=len(PNG))), 'slow-chunks': drip(b''.join(b'1\r\n%c\r\n' % c for c in PNG), .05, 6, b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'),
    'stops': lambda conn: (conn.sendall(answer(PNG[:100], length=len(PNG))), time.sleep(3)), 'continue-for-ever': drip(b'HTTP/1.1 100 Continue\r\n\r\n'*100, .05, 25),
    'hangs-up': b'', 'reset': reset, 'breaks-off': answer(PNG[:100], length=len(PNG)), 'chunk-breaks-off': chunked(PNG[:100]), 'garbage': b'\x16\x03\x01' + bytes(100) + b'\r\n\r\n', 'no-http': PNG, 'ssh': b'SSH-2.0-OpenSSH_9.2\r\n',
    'header-flood': endless(b'HTTP/1.1 200 OK\r\n', b'X: ' + b'a'*1000 + b'\r\n'), 'long-header': answer(X='a'*1_000_000), 'nul-header': answer(X='a\0b'), 'negative-length': answer(length=-5), 'two-lengths': answer(Content_length=7),
    'word-length': answer(length='many'), 'bad-chunk': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 'gzip-transfer': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    # statuses
    **{str(s): answer(PNG, f'{s} X') for s in (204, 206, 304, 400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503, 504, 599, 600, 999)}, '101': answer(b'', '101 Switching', Upgrade='x', Connection='upgrade'),
    # redirects
    'r-private': to('http://10.0.0.1/'), 'r-loopback': to('http://127.0.0.1/'), 'r-metadata': to('http://169.254.169.254/latest/meta-data/'), 'r-decimal': to('http://2130706433/'), 'r-hex': to('http://0x7f000001/'),
    'r-mapped': to('http://[::ffff:127.0.0.1]/'), 'r-localhost': to('http://localhost/'), 'r-inside': to('http://inside.example.com/'), 'r-mixed': to('//mixed.example.com/'), 'r-file': to('file:///etc/passwd'), 'r-ftp': to('ftp://pics.example.com/'),
    'r-script': to('javascript:alert(1)'), 'r-data': to('data:image/png;base64,AAAA'), 'r-user': to('http://a:b@pics.example.com/'), 'r-port': to('http://pics.example.com:22/'), 'r-backslash': to('http://pics.example.com\\@10.0.0.1/'),
    'r-empty': to(''), 'r-none': answer(b'', '302 Found'), 'r-self': to('r-self'), 'r-ping': to('r-pong'), 'r-pong': to('r-ping'), 'r-long': to('/' + 'a'*5000), 'r-spaces': to('/a b'),
    'r-1': to('/png', '301 X'), 'r-2': to('r-1', '307 X'), 'r-3': to('r-2', '308 X'), 'r-4': to('r-3', '303 X'), 'r-other-host': to('//other.example.com:{port}/png'), 'r-accent': to('/d\xc3\xa9j\xc3\xa0'), '/d%C3%A9j%C3%A0': answer(),
    'r-with-endless-body': endless(to('/png', length=False)), 'r-404': to('/404'),
}

class Hostile(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 100
    def __init__(self, host='127.0.0.1', port=0, routes=ROUTES, tls=None):
        self.routes, self.calls, self.heads, self.tls, self.now, self.most, self.guard = dict(routes), Counter(), [], tls, 0, 0, threading.Lock()
        super().__init__((host, port), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=.05), daemon=True).start()
    def handle_error(self, *args): pass
    def url(self, path, host='pics.example.com', scheme='http'): return f'{scheme}://{host}:{self.port}/{path.lstrip("/")}'

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        conn, s = self.request, self.server
        conn.settimeout(5)
        if s.tls: conn = s.tls.wrap_socket(conn, server_side=True)
        head = b''
        while b'\r\n\r\n' not in head:
            if not (got := conn.recv(65536)): return
            head += got
        line, *fields = head.decode('latin-1').split('\r\n')
        path = line.split(' ')[1]
        with s.guard:
            s.calls[path] += 1; s.now += 1; s.most = max(s.most, s.now)
            s.heads.append((line, {k.lower(): v for k, _, v in (f.partition(': ') for f in fields if f)}))
        try:
            what = s.routes.get(path.lstrip('/'), s.routes.get(path, s.routes.get(path[1:].partition('?')[0] if path.startswith(('/x?', '/silence?')) else None, answer(b'', '404 Not Found'))))
            if isinstance(what, list): what = what[min(s.calls[path], len(what)) - 1]
            if callable(what): what(conn)
            else: conn.sendall(what.replace(b'{port}', str(s.port).encode()))
        finally:
            with s.guard: s.now -= 1
        if s.tls: conn.close()

HOSTS = {'pics.example.com': ['127.0.0.1'], 'other.example.com': ['127.0.0.1'], 'inside.example.com': ['10.0.0.1'], 'mixed.example.com': ['127.0.0.1', '10.0.0.1']}

def resolver(host):
    if host not in HOSTS: raise socket.gaierror('unknown')
    return HOSTS[host]

def get(server, what, out, **kw):
    "`download` with the allowance for this server and with little patience."
    kw = dict(resolver=resolver, unsafe_allow_for_tests=[('127.0.0.1', server.port)], max_bytes=1_000_000, max_pixels=2_000_000, seconds=.5, retries=0, pause=.01, quiet=True) | kw
    result = download(what, out, **kw)
    for r in result.to_dict('records'):
        assert r['status'] in _STATUSES and (r['status'] == 'ok') == bool(r['path']) and (r['status'] == 'ok') != bool(r['reason']), r
        assert r['reason'].isprintable() and len(r['reason']) < 100 and 'example' not in r['reason']
        if r['path']: assert (Path(out)/r['path']).stat().st_size == r['bytes']
    return result

def debris(out): return [f.name for f in Path(out).rglob('*') if f.is_file() and f.name.startswith('.') and f.name != '.lock' or f.suffix == '.journal']

@pytest.fixture(scope='module')
def server():
    s = Hostile()
    yield s
    s.shutdown(); s.server_close()


# --- The table ---

def group(status, *names): return [(n, status) for n in names]
FINE = 'png jpg gif webp progressive wrong-claim chunked to-the-end identity cookie large r-1 r-2 r-3 r-other-host r-accent r-with-endless-body'
SERVED = [
    *group('ok', *FINE.split()),
    *group('too_big', 'announced', 'announced-15-digits', 'endless', 'endless-chunks', 'a-byte-too-many', 'a-byte-too-many-chunked', *(k for k in ROUTES if k.startswith('pixels-'))),
    *group('bad_type', *'html html-endless svg bmp tiff ico eps pdf zip exe riff-wav empty three-bytes gzip gzip-bomb gzip-claimed br deflate-twice gzip-unclaimed'.split()),
    *group('bad_image', *'half half-jpg signature-only polyglot zero-pixels jpg-nothing jpg-fill-bytes text-bomb many-scans damaged webp-cut less-than-announced-picture'.split()),
    *group('timeout', *'silence slow-head slow-body slow-chunks stops continue-for-ever'.split()),
    *group('error', *'hangs-up reset breaks-off chunk-breaks-off garbage no-http ssh announced-30-digits header-flood long-header nul-header negative-length two-lengths word-length bad-chunk gzip-transfer 101 204 206 304 600 999 r-none r-empty'.split()),
    *group('http_4xx', *'400 401 403 404 410 418 429 451 r-404'.split()),
    *group('http_5xx', *'500 502 503 504 599'.split()),
    *group('blocked', *'r-private r-loopback r-metadata r-decimal r-hex r-mapped r-localhost r-inside r-mixed r-file r-ftp r-script r-data r-user r-port r-backslash r-self r-ping r-long r-spaces r-4'.split()),
]

def test_the_table_is_long_and_names_what_there_is():
    assert len([s for _, s in SERVED if s != 'ok']) + len(ADDRESSES) + len(ANSWERS) >= 150
    assert {n for n, _ in SERVED} <= set(ROUTES) and {s for _, s in SERVED} == set(_STATUSES)

@pytest.mark.parametrize('path,status', SERVED, ids=[f'{n}-{s}' for n, s in SERVED])
def test_a_hostile_server(server, path, status, tmp_path):
    start, before = time.monotonic(), len(server.heads)
    r = get(server, server.url(path), tmp_path).iloc[0]
    assert r.status == status, r.to_dict()
    assert time.monotonic() - start < 2.5 and r.attempts == 1
    assert debris(tmp_path) == [] and len(list(tmp_path.rglob('*.*'))) == 2 + (status == 'ok')
    assert len(server.heads) - before <= 4
    if status == 'ok': assert Image.open(tmp_path/r.path).size == (r.width, r.height) == (64, 64)

def test_a_server_that_speaks_no_tls(server, tmp_path):
    assert get(server, server.url('png', scheme='https'), tmp_path, seconds=.3).status[0] in ('error', 'timeout')

def test_nobody_listens(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    r = download([f'http://pics.example.com:{port}/'], tmp_path, resolver=resolver, unsafe_allow_for_tests=[('127.0.0.1', port)], retries=2, quiet=True).iloc[0]
    assert (r.status, r.attempts) == ('error', 1)


# --- Addresses ---

ADDRESSES = [
    '', ' ', 'kite', '/kite.png', '//pics.example.com/x', 'pics.example.com/x', 'http:', 'http://', 'http:///x', 'https:pics.example.com',
    'file:///etc/passwd', 'ftp://pics.example.com/x', 'gopher://pics.example.com/_x', 'data:image/png;base64,AAAA', 'javascript:alert(1)', 'blob:https://pics.example.com/1',
    'ws://pics.example.com/', 'jar:http://pics.example.com!/', 'http+unix://%2Fvar%2Frun%2Fdocker.sock/', 'hTTp s://pics.example.com',
    'http://user@pics.example.com/', 'http://user:secret@pics.example.com/', 'http://@pics.example.com/', 'http://pics.example.com@10.0.0.1/', 'http://10.0.0.1#@pics.example.com/', 'http://10.0.0.1\\@pics.example.com/', 'http://pics.example.com%40@10.0.0.1/',
    'http://pics.example.com:22/', 'http://pics.example.com:6379/', 'http://pics.example.com:8080/', 'https://pics.example.com:80/', 'http://pics.example.com:443/', 'http://pics.example.com:0/', 'http://pics.example.com:99999/', 'http://pics.example.com:-1/', 'http://pics.example.com:８０/', 'http://pics.example.com:80:80/', 'http://pics.example.com:0x50/',
    'http://localhost/', 'http://LOCALHOST./', 'http://a.localhost/', 'http://router/', 'http://printer.local/', 'http://metadata.google.internal/computeMetadata/v1/', 'http://db.corp/', 'http://nas.home.arpa/', 'http://x.onion/',
    'http://127.0.0.1/', 'http://127.0.0.1./', 'http://127.1/', 'http://127.0.1/', 'http://2130706433/', 'http://017700000001/', 'http://0177.0.0.1/', 'http://0x7f.0.0.1/', 'http://0x7f000001/', 'http://0X7F000001/', 'http://127.0.0.0x1/', 'http://127.000.000.001/', 'http://0/', 'http://0.0.0.0/', 'http://256.256.256.256/', 'http://4294967297/',
    'http://１２７.０.０.１/', 'http://①②⑦.⓪.⓪.①/', 'http://127。0。0。1/', 'http://127%2e0%2e0%2e1/', 'http://%31%32%37.0.0.1/', 'http://127.0.0.1%00.example.com/', 'http://127.0.0.1%23.example.com/', 'http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/', 'http://loc\u00adalhost/', 'http://pics.example.com\u2044@10.0.0.1/',
    'http://10.1.2.3/', 'http://172.16.0.1/', 'http://172.31.255.255/', 'http://192.168.1.1/', 'http://169.254.169.254/latest/', 'http://100.64.0.1/', 'http://100.100.100.200/', 'http://168.63.129.16/', 'http://192.0.0.192/', 'http://198.18.0.1/', 'http://224.0.0.1/', 'http://255.255.255.255/', 'http://240.0.0.1/',
    'http://[::1]/', 'http://[::]/', 'http://[0:0:0:0:0:0:0:1]/', 'http://[::ffff:127.0.0.1]/', 'http://[::ffff:7f00:1]/', 'http://[::127.0.0.1]/', 'http://[64:ff9b::127.0.0.1]/', 'http://[64:ff9b:1::a00:1]/', 'http://[2002:7f00:1::]/', 'http://[2001::1]/', 'http://[fe80::1]/', 'http://[fe80::1%25eth0]/', 'http://[fd00:ec2::254]/', 'http://[fc00::1]/', 'http://[ff02::1]/', 'http://[2001:db8::1]/', 'http://[4000::1]/', 'http://[2606:4700::5efe:127.0.0.1]/',
    'http://[::1', 'http://::1/', 'http://[pics.example.com]/', 'http://[::1].example.com/', 'http://[v1.x]/', 'http://[]/', 'http://[::1]@pics.example.com/',
    'http://pics.example.com/a b', 'http://pics.example.com/\r\nHost: inside', 'http://pics.example.com/\t', ' http://pics.example.com/', 'http://pics.example.com/\0', 'ht\ntp://pics.example.com/', 'http://pics.example.com/\u2028x', 'http://pics.example.com/\ud800',
    'http://pics..example.com/', 'http://.example.com/', 'http://-pics.example.com/', 'http://pics-.example.com/', 'http://pics.example.com../', 'http://' + 'a'*64 + '.example.com/', 'http://' + 'a.'*150 + 'com/', 'http://pics.exam ple.com/', 'http://pics,example.com/', 'http://xn--.example/x\u202e', 'http://*.example.com/', 'http://pics.example.com/' + 'a'*3000,
]

@pytest.mark.parametrize('url', ADDRESSES, ids=[ascii(u)[1:50] for u in ADDRESSES])
def test_an_address_that_is_refused(url, tmp_path):
    "Neither a connection nor, unless it is an IP address in good spelling, a look-up."
    asked = []
    r = download([url], tmp_path, resolver=lambda h: asked.append(h) or ['93.184.216.34'], seconds=20, retries=0, quiet=True).iloc[0]
    assert r.status == 'blocked' and r.url == url.replace('\ud800', r'\ud800') and not asked, r.to_dict()

@pytest.mark.parametrize('value', [None, 5, 3.5, float('nan'), b'http://pics.example.com/', ['http://pics.example.com/'], {}, pd.NA], ids=repr)
def test_what_is_no_text_is_a_row(value, tmp_path): assert download([value], tmp_path, quiet=True).status.tolist() == ['blocked']

@given(st.text(max_size=60) | st.builds('http://{}{}{}'.format, st.text('0123456789abcxf.:@[]%\\/#?-', max_size=30), st.sampled_from(['', '/', '@', '.', ':80', '。', '１']), st.text(max_size=8)))
@settings(max_examples=600, deadline=None)
def test_any_text_is_read_or_refused(url):
    try: whole, p = _read_url(url)
    except RefusedAddress as e: assert e.status == 'blocked'; return
    assert p.scheme in ('http', 'https') and p.port in (80, 443) and p.path.startswith('/') and whole.isascii() and ' ' not in whole
    assert _read_url(whole) == (whole, p), 'an address that was read is read the same again'
    try: ipaddress.ip_address(p.host)
    except ValueError: assert '.' in p.host and p.host.rpartition('.')[2][0].isalpha() and not set(p.host) & set('@:/\\[]%#?')


# --- What the name service says ---

ANSWERS = ['127.0.0.1', '127.8.8.8', '10.0.0.1', '172.20.0.1', '192.168.0.1', '169.254.169.254', '100.100.100.200', '100.127.255.255', '168.63.129.16', '0.0.0.0', '192.0.0.1', '192.0.2.1', '192.88.99.1', '192.31.196.1', '192.52.193.1', '192.175.48.6', '198.19.255.255', '203.0.113.9', '224.0.0.251', '239.1.1.1', '240.0.0.1', '255.255.255.255',
    '::', '::1', '::ffff:10.0.0.1', '::ffff:93.184.216.34', '64:ff9b::7f00:1', '64:ff9b::a9fe:a9fe', '64:ff9b:1::1', '100::1', '2001::7f00:1', '2001:2::1', '2001:10::1', '2001:db8::1', '2002:7f00:1::1', '2002:a00:1::', '3fff::1', '5f00::1', 'fc00::1', 'fd00:ec2::254', 'fe80::1', 'fe80::1%2', 'fec0::1', 'ff02::1', '2606:4700::5efe:a00:1', 'nonsense', '127.1', '']

@pytest.mark.parametrize('address', ANSWERS)
@pytest.mark.parametrize('with_public', [False, True], ids=['alone', 'beside a public one'])
def test_a_name_at_a_private_address(address, with_public):
    answers = ['93.184.216.34', address] if with_public else [address]
    with pytest.raises(RefusedAddress) as e: public_addresses('pics.example.com', 443, lambda h: answers)
    assert e.value.status == 'blocked'

def test_public_addresses_are_let_through():
    for a in ('93.184.216.34', '1.1.1.1', '223.255.255.254', '100.128.0.1', '172.32.0.1', '192.0.3.1', '2606:4700::1111', '2a00:1450:4001::1', '2001:4860:4860::8888'): assert why_not_public(a) == '', a

@given(st.ip_addresses())
@settings(max_examples=2000, deadline=None)
def test_what_python_calls_private_is_never_public(ip):
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_link_local or ip.is_loopback: assert why_not_public(str(ip))
    if ip.version == 4: assert all(why_not_public(str(ipaddress.IPv6Address(base + int(ip)))) for base in (0, 0xffff << 32, int(ipaddress.IPv6Address('64:ff9b::'))))

def test_the_private_name_is_not_connected_to(server, tmp_path):
    "The same server, the same port: without the allowance it gets no visit."
    before = len(server.heads)
    r = download([server.url('png'), 'http://pics.example.com/', 'https://127.0.0.1/', 'http://inside.example.com/'], tmp_path, resolver=resolver, retries=2, quiet=True)
    assert set(r.status) == {'blocked'} and len(server.heads) == before and r.attempts.max() <= 1

def test_the_allowance_lets_nobody_else_use_its_port(server, tmp_path):
    r = get(server, server.url('png'), tmp_path, resolver=lambda h: ['93.184.216.34'])
    assert (r.status[0], r.reason[0]) == ('blocked', 'an unusual port')

def test_names_that_are_not_known(tmp_path):
    def odd(host): raise {'a': OSError('no'), 'b': UnicodeError('no'), 'c': RuntimeError('secret')}[host[0]]
    r = download([f'http://{h}.example.com/' for h in 'abc'], tmp_path, resolver=odd, quiet=True)
    assert set(r.status) == {'error'} and not r.reason.str.contains('secret').any()
    assert download(['http://a.example.com/'], tmp_path/'2', resolver=lambda h: [], quiet=True).status[0] == 'error'

def test_a_name_service_that_does_not_answer(tmp_path):
    start = time.monotonic()
    assert download(['http://a.example.com/'], tmp_path, resolver=lambda h: time.sleep(1.5) or ['93.184.216.34'], seconds=.3, retries=0, quiet=True).status[0] == 'timeout'
    assert time.monotonic() - start < 1.2

@pytest.mark.parametrize('address', ['93.184.216.34', '10.0.0.1', '169.254.169.254', '::ffff:127.0.0.1', 'localhost', ''])
def test_the_allowance_is_for_loopback_only(address, tmp_path):
    with pytest.raises(BadInput, match='loopback'): download([], tmp_path, unsafe_allow_for_tests=[(address, 80)])


# --- The connection goes to what was checked ---

@pytest.fixture
def two_servers():
    "The same port at two loopback addresses: one stands for a public address, the other for a private one."
    a = Hostile(routes={'x': answer(), 'r': to('/x')})
    try: b = Hostile('127.0.0.2', a.port, {'x': answer(JPG)})
    except OSError: a.shutdown(); pytest.skip('127.0.0.2 is not an address of this machine')
    yield a, b
    for s in (a, b): s.shutdown(); s.server_close()

def test_no_second_look_up(two_servers, tmp_path):
    "A name service that says one thing to the check and another to the connection (DNS rebinding)."
    public, private = two_servers
    asked = []
    def rebinding(host):
        asked.append(host)
        return ['127.0.0.1'] if len(asked) == 1 else ['127.0.0.2']
    r = get(public, public.url('x'), tmp_path, resolver=rebinding)
    assert r.status[0] == 'ok' and r.path[0].endswith('png') and len(asked) == 1 and not private.heads

def test_a_redirect_looks_the_name_up_and_checks_again(two_servers, tmp_path):
    public, private = two_servers
    public.routes['r'] = to('http://again.example.com:{port}/x')
    seen = []
    def rebinding(host):
        seen.append(host)
        return ['127.0.0.2'] if host.startswith('again') else ['127.0.0.1']
    assert get(public, public.url('r'), tmp_path, resolver=rebinding).status[0] == 'blocked'
    assert seen == ['pics.example.com', 'again.example.com'] and not private.heads

def test_a_new_connection_is_checked_again(two_servers, tmp_path):
    "The name turns private between two pictures."
    public, private = two_servers
    public.routes.update({str(i): answer(Connection='close') for i in range(3)})
    answers = iter([['127.0.0.1'], ['127.0.0.2'], ['127.0.0.1', '127.0.0.2']])
    r = get(public, [public.url(str(i)) for i in range(3)], tmp_path, resolver=lambda h: next(answers), workers=1)
    assert r.status.tolist() == ['ok', 'blocked', 'blocked'] and not private.heads

def test_the_next_address_is_tried(tmp_path, server):
    "All of them are checked; one that does not answer is passed over."
    r = get(server, server.url('png'), tmp_path, resolver=lambda h: ['127.0.0.3', '127.0.0.1'], unsafe_allow_for_tests=[('127.0.0.3', server.port), ('127.0.0.1', server.port)])
    assert r.status[0] == 'ok'

def test_what_is_sent(server, tmp_path, monkeypatch):
    "The name in Host, no cookie, no compression, no proxy of the environment."
    for k in ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy'): monkeypatch.setenv(k, 'http://127.0.0.1:9')
    server.heads.clear()
    assert set(get(server, [server.url('cookie'), server.url('png?name=large'), server.url('png#part')], tmp_path, workers=1).status) == {'ok', 'http_4xx'}
    for line, head in server.heads:
        assert line.startswith('GET /') and line.endswith(' HTTP/1.1') and '#' not in line
        assert head['host'] == f'pics.example.com:{server.port}' and head['accept-encoding'] == 'identity'
        assert not {'cookie', 'authorization', 'referer', 'proxy-authorization'} & set(head)

@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    "A certificate for pics.example.com that signs itself."
    if not shutil.which('openssl'): pytest.skip('no openssl command to make a certificate with')
    d = tmp_path_factory.mktemp('tls')
    made = subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=pics.example.com', '-addext', 'subjectAltName=DNS:pics.example.com', '-keyout', d/'key.pem', '-out', d/'cert.pem'], capture_output=True)
    if made.returncode: pytest.skip('this openssl makes no such certificate')
    return d

@pytest.mark.parametrize('host,trusted,status', [('pics', True, 'ok'), ('other', True, 'error'), ('pics', False, 'error')], ids=['right name', 'wrong name', 'unknown authority'])
def test_the_certificate_is_for_the_name(authority, host, trusted, status, tmp_path, monkeypatch):
    tls, names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    tls.load_cert_chain(authority/'cert.pem', authority/'key.pem')
    tls.sni_callback = lambda sock, name, context: names.append(name)
    if trusted: monkeypatch.setenv('SSL_CERT_FILE', str(authority/'cert.pem'))
    s = Hostile(tls=tls)
    try:
        r = get(s, s.url('png', f'{host}.example.com', 'https'), tmp_path, seconds=2).iloc[0]
        assert (r.status, r.attempts, names) == (status, 1, [f'{host}.example.com'])
        if status == 'error': assert 'certificate' in r.reason and not s.heads
        s.routes['down'] = to('http://pics.example.com:{port}/png')
        if status == 'ok': assert get(s, s.url('down', scheme='https'), tmp_path).status[0] == 'blocked'
    finally: s.shutdown(); s.server_close()


# --- Patience ---

@pytest.mark.parametrize('first,n,retries,status,attempts', [
    (['503 X'], 2, 3, 'ok', 3), (['429 X'], 1, 3, 'ok', 2), (['500 X', '502 X'], 2, 3, 'ok', 3), (['503 X'], 9, 2, 'http_5xx', 3), (['429 X'], 9, 1, 'http_4xx', 2), (['503 X'], 9, 0, 'http_5xx', 1),
    (['404 X'], 9, 3, 'http_4xx', 1), (['403 X'], 1, 3, 'http_4xx', 1), (['418 X'], 9, 3, 'http_4xx', 1)], ids=str)
def test_how_often(first, n, retries, status, attempts, tmp_path):
    s = Hostile(routes={'x': [*[answer(b'', first[i % len(first)]) for i in range(n)], answer()]})
    r = get(s, s.url('x'), tmp_path, retries=retries).iloc[0]
    assert (r.status, r.attempts, s.calls['/x']) == (status, attempts, attempts)
    s.shutdown(); s.server_close()

@pytest.mark.parametrize('path,calls', [('silence', 3), ('hangs-up', 1), ('reset', 1), ('garbage', 1), ('html', 1), ('half', 1), ('announced', 1), ('r-private', 1), ('breaks-off', 1)])
def test_only_what_may_pass_is_tried_again(path, calls, tmp_path):
    s = Hostile()
    r = get(s, s.url(path), tmp_path, retries=2, seconds=.15).iloc[0]
    assert r.attempts == s.calls['/'+path] == calls
    s.shutdown(); s.server_close()

@pytest.mark.parametrize('status', ['429 X', '503 X'])
def test_retry_after_is_honoured_and_capped(status, tmp_path):
    s = Hostile(routes={'soon': [answer(b'', status, Retry_After='1'), answer()], 'late': [answer(b'', status, Retry_After='86400'), answer()], 'date': [answer(b'', status, Retry_After='Fri, 31 Dec 2199 23:59:59 GMT'), answer()], 'odd': [answer(b'', status, Retry_After='-1e9'), answer()]})
    times = {}
    for path, kw in (('soon', {}), ('late', dict(max_wait=.3)), ('date', dict(max_wait=.3)), ('odd', {})):
        start = time.monotonic()
        assert get(s, s.url(path), tmp_path, retries=1, **kw).attempts[0] == 2
        times[path] = time.monotonic() - start
    assert 1 <= times['soon'] < 2 and .3 <= times['late'] < 1 and .3 <= times['date'] < 1 and times['odd'] < .5, times
    s.shutdown(); s.server_close()

def test_a_host_that_asks_for_rest_is_left_alone_by_all(tmp_path):
    "Two connections: one is asked to come back in a second; the other is done with what it had and waits as well."
    s, at = Hostile(routes={'busy': [answer(b'', '429 X', Retry_After='1'), answer()]}), []
    s.routes.update({str(i): lambda conn: (time.sleep(.3), at.append(time.monotonic()), conn.sendall(answer())) for i in range(3)})
    start = time.monotonic()
    r = get(s, [s.url(p) for p in ('busy', '0', '1', '2')], tmp_path, retries=1, workers=2, seconds=2)
    assert set(r.status) == {'ok'} and min(at) - start < 1 and sorted(at)[1] - start >= 1.2
    s.shutdown(); s.server_close()

def test_pauses_double_and_differ(tmp_path, monkeypatch):
    "The pauses before further attempts: doubled, and not the same for two addresses."
    import asyncio, behaviour_sim.features.download as d
    real, slept = asyncio.sleep, []
    async def sleep(s, *a): slept.append(s) if s else None; await real(0)
    monkeypatch.setattr(d.asyncio, 'sleep', sleep)
    s = Hostile(routes={p: answer(b'', '503 X') for p in 'ab'})
    get(s, [s.url('a'), s.url('b')], tmp_path, retries=3, pause=1, max_wait=3, workers=1)
    assert len(slept) == 6 and all(.5 <= w/2**(i % 3) <= 1.5 or w == 3 for i, w in enumerate(slept)) and slept[:2] != slept[3:5]
    s.shutdown(); s.server_close()

@pytest.mark.parametrize('per_host', [1, 3])
def test_a_host_gets_no_more_than_its_share(per_host, tmp_path):
    s = Hostile(routes={**{str(i): lambda conn: (time.sleep(.03), conn.sendall(answer())) for i in range(12)}, **{f'r{i}': to('//other.example.com:{port}/%d' % i) for i in range(12)}})
    assert set(get(s, [s.url(str(i)) for i in range(12)], tmp_path/'a', per_host=per_host, seconds=5).status) == {'ok'}
    assert s.most == per_host
    s.most = 0
    hosts = {f'h{i}.example.com': ['127.0.0.1'] for i in range(12)} | HOSTS
    assert set(get(s, [s.url(f'r{i}', f'h{i}.example.com') for i in range(12)], tmp_path/'b', per_host=per_host, workers=12, resolver=hosts.get, seconds=5).status) == {'ok'}
    assert s.calls['/3'] == 2
    s.shutdown(); s.server_close()

def test_redirects_do_not_get_round_the_share(tmp_path):
    "Many hosts that all redirect to one: it still has its share only."
    now, most, guard = [0], [0], threading.Lock()
    def slow(conn):
        with guard: now[0] += 1; most[0] = max(most[0], now[0])
        time.sleep(.03); conn.sendall(answer())
        with guard: now[0] -= 1
    s = Hostile(routes={**{str(i): slow for i in range(10)}, **{f'r{i}': to('//other.example.com:{port}/%d' % i) for i in range(10)}})
    hosts = {f'h{i}.example.com': ['127.0.0.1'] for i in range(10)} | HOSTS
    assert set(get(s, [s.url(f'r{i}', f'h{i}.example.com') for i in range(10)], tmp_path, per_host=2, workers=10, resolver=hosts.get, seconds=5).status) == {'ok'}
    assert most[0] <= 2
    s.shutdown(); s.server_close()

def test_the_clock_runs_over_redirects(tmp_path):
    "Each hop is quick enough, all of them together are not."
    slowly = lambda data: lambda conn: (time.sleep(.25), conn.sendall(data.replace(b'{port}', str(s.port).encode())))
    s = Hostile(routes={'a': slowly(to('b')), 'b': slowly(to('c')), 'c': slowly(answer())})
    assert get(s, s.url('a'), tmp_path, seconds=.5).status[0] == 'timeout' and get(s, s.url('b'), tmp_path, seconds=2).status[0] == 'ok'
    s.shutdown(); s.server_close()

def test_a_kept_connection_that_was_closed_is_no_answer(tmp_path):
    "The server closes a connection just as the next question comes along it: it is asked again, once."
    s = Hostile(routes={'a': lambda conn: (conn.sendall(answer()), conn.recv(65536)), 'b': answer()})
    assert get(s, [s.url('a'), s.url('b')], tmp_path, workers=1).status.tolist() == ['ok', 'ok'] and s.calls['/b'] == 1
    s.shutdown(); s.server_close()

def test_a_slow_host_does_not_hold_up_the_others(tmp_path):
    "Four addresses of a host that is silent, six of another: the six are there before the first of the four is given up."
    s, at = Hostile(routes={'silence': silence, 'x': lambda conn: (at.append(time.monotonic()), conn.sendall(answer()))}), []
    start = time.monotonic()
    r = get(s, [s.url(f'silence?{i}') for i in range(4)] + [s.url(f'x?{i}', 'other.example.com') for i in range(6)], tmp_path, workers=3, per_host=2, seconds=.8)
    assert r.status.tolist() == ['timeout']*4 + ['ok']*6 and max(at) - start < .8
    s.shutdown(); s.server_close()


# --- Resuming ---

def test_a_second_run_asks_for_nothing(tmp_path):
    s = Hostile()
    urls = [s.url(p) for p in ('png', 'jpg', '404', 'html', 'half', 'endless', 'r-private')] + ['http://10.0.0.1/', 'file:///x']
    first, calls = get(s, urls, tmp_path), s.calls.total()
    pd.testing.assert_frame_equal(get(s, urls, tmp_path), first)
    pd.testing.assert_frame_equal(get(s, urls[::-1], tmp_path).iloc[::-1].drop(columns='id').reset_index(drop=True), first.drop(columns='id'))
    assert s.calls.total() == calls
    lines = (tmp_path/'downloads.jsonl').read_text().splitlines()
    assert len(lines) == len(urls) and all(set(json.loads(l)) == set(_COLUMNS) for l in lines)
    s.shutdown(); s.server_close()

def test_what_may_have_passed_is_tried_by_the_next_run(tmp_path):
    s = Hostile(routes={'a': [answer(b'', '503 X'), answer()], 'b': [answer(b'', '429 X'), answer()], 'c': [b'', answer()], 'd': [silence, answer()], 'e': [answer(b'', '404 X'), answer()], 'f': [answer(b'<html>hello hello'), answer()]})
    urls = [s.url(p) for p in 'abcdef']
    assert get(s, urls, tmp_path, seconds=.2).status.tolist() == ['http_5xx', 'http_4xx', 'error', 'timeout', 'http_4xx', 'bad_type']
    assert get(s, urls, tmp_path).status.tolist() == ['ok']*4 + ['http_4xx', 'bad_type']
    assert get(s, urls, tmp_path, again=(*_AGAIN, 'http_4xx', 'bad_type')).status.tolist() == ['ok']*6
    s.shutdown(); s.server_close()

@pytest.mark.parametrize('harm', ['lost', 'cut', 'folder in its place', 'manifest lost', 'manifest torn', 'manifest nonsense', 'a path that leads out', 'another address\'s path'])
def test_damage_is_mended(harm, tmp_path):
    s, outside = Hostile(), tmp_path/'secret.png'
    outside.write_bytes(PNG)
    urls, out = [s.url('png'), s.url('jpg')], tmp_path/'out'
    first = get(s, urls, out)
    picture, manifest = out/first.path[0], out/'downloads.jsonl'
    rows = [json.loads(l) for l in manifest.read_text().splitlines()]
    if harm == 'lost': picture.unlink()
    if harm == 'cut': picture.write_bytes(PNG[:100])
    if harm == 'folder in its place': picture.unlink(); picture.mkdir()
    if harm == 'manifest lost': manifest.unlink()
    if harm == 'manifest torn': manifest.write_bytes(manifest.read_bytes()[:-30])
    if harm == 'manifest nonsense': manifest.write_bytes(b'\xff\0[[[[\n{}\n[1]\nnull\n"x"\n' + b'['*10_000)
    if harm == 'a path that leads out': manifest.write_text(json.dumps({**rows[0], 'path': '../secret.png', 'bytes': len(PNG)}))
    if harm == "another address's path": manifest.write_text(json.dumps({**rows[0], 'path': rows[1]['path'], 'bytes': rows[1]['bytes']}))
    if harm == 'folder in its place':
        with pytest.raises(OSError): get(s, urls, out)
        picture.rmdir()
    calls = s.calls['/png']
    pd.testing.assert_frame_equal(get(s, urls, out), first)
    assert s.calls['/png'] == calls + (harm not in ('manifest torn', 'folder in its place')) or harm == 'manifest torn' or harm == 'folder in its place'
    assert picture.read_bytes() == PNG and outside.read_bytes() == PNG and debris(out) == []
    s.shutdown(); s.server_close()

RUN = '''import sys; from behaviour_sim.features.download import download
p = int(sys.argv[2]); urls = [f'http://pics.example.com:{p}/{i}' for i in range(int(sys.argv[3]))]
print(*download(urls, sys.argv[1], resolver=lambda h: ['127.0.0.1'], unsafe_allow_for_tests=[('127.0.0.1', p)], per_host=2, quiet=True).status)'''

def start(out, s, n): return warm.Warm(RUN, out, s.port, n)

def test_kill_9_in_the_middle(tmp_path):
    "Killed three times; the last run completes, no picture is fetched twice but those in flight, and the result is that of an undisturbed run."
    n = 40
    s = Hostile(routes={str(i): lambda conn, i=i: (time.sleep(.02), conn.sendall(answer(encoded(KITE.rotate(i), 'PNG')))) for i in range(n)})
    for kill_at in (8, 20, 30):
        p = start(tmp_path/'a', s, n)
        while s.calls.total() < kill_at and p.poll() is None: time.sleep(.005)
        p.send_signal(signal.SIGKILL); p.wait()
        assert p.returncode == -signal.SIGKILL
    assert (tmp_path/'a'/'downloads.journal').exists()
    assert start(tmp_path/'a', s, n).communicate(timeout=60)[0].split() == ['ok']*n
    assert s.calls.total() <= n + 3*3 and set(s.calls) == {f'/{i}' for i in range(n)}
    assert start(tmp_path/'b', s, n).communicate(timeout=60)[0].split() == ['ok']*n
    files = lambda d: {str(f.relative_to(d)): f.read_bytes() for f in d.rglob('*.png')}
    assert files(tmp_path/'a') == files(tmp_path/'b') and len(files(tmp_path/'a')) == n and debris(tmp_path/'a') == []
    s.shutdown(); s.server_close()

def test_stopped_by_hand(tmp_path):
    "Ctrl-C: what is done is in the manifest, and nothing is left lying about."
    s = Hostile(routes={str(i): lambda conn: (time.sleep(.1), conn.sendall(answer())) for i in range(40)})
    p = start(tmp_path, s, 40)
    while s.calls.total() < 10: time.sleep(.005)
    p.send_signal(signal.SIGINT); p.wait()
    assert p.returncode and 5 <= len((tmp_path/'downloads.jsonl').read_text().splitlines()) < 40 and debris(tmp_path) == []
    s.shutdown(); s.server_close()

def test_one_run_in_a_folder_at_a_time(tmp_path, server):
    pytest.importorskip('fcntl')
    with Manifest(tmp_path):
        with pytest.raises(BadInput, match='another download'): get(server, server.url('png'), tmp_path)
    assert get(server, server.url('png'), tmp_path).status[0] == 'ok'

def test_temporary_files_of_a_killed_run_go_away_and_nothing_else(tmp_path, server):
    path = tmp_path/_picture_path(server.url('png'), 'png')
    path.parent.mkdir()
    kept = [tmp_path/'.hidden.mine', tmp_path/'notes.txt', path.parent/'mine.png', path.parent/'.gitkeep']
    for f in kept: f.write_text('x')
    (path.parent/f'.{path.name}.abcd1234.png').write_bytes(PNG[:50]); (tmp_path/'.downloads.jsonl.abcd.jsonl').write_text('{')
    get(server, server.url('png'), tmp_path)
    assert all(f.exists() for f in kept) and sorted(f.name for f in tmp_path.rglob('.*')) == ['.gitkeep', '.hidden.mine', '.lock']


# --- Tweets ---

def media(url): return f"[Photo(previewUrl='{url}&name=small', fullUrl='{url}')]"

def test_tweets(server, tmp_path):
    gif = f"[Gif(thumbnailUrl='{server.url('jpg')}', variants=[])]"
    tweets = pd.DataFrame({'id': [11, 12, 13, 14, 15, 16], 'media': [media(server.url('png')), '', gif, media(server.url('png')), "[Photo(previewUrl='file:///etc/passwd', fullUrl='file:///etc/passwd')]", media('http://10.0.0.1/x')]}, index=list('abcdef'))
    before = server.calls['/png']
    r = get(server, tweets, tmp_path)
    assert r.id.tolist() == [11, 13, 14, 15, 16] and r.status.tolist() == ['ok', 'ok', 'ok', 'error', 'blocked'] and server.calls['/png'] == before + 1
    assert list(r.columns) == ['id', *_COLUMNS] and r.path[0] == r.path[2] and r.reason[3].startswith('the media cannot be read')
    assert get(server, pd.Series([server.url('png')], index=['kite']), tmp_path).id.tolist() == ['kite']
    with pytest.raises(BadInput, match="'media'"): download(tweets.drop(columns='media'), tmp_path)

def test_names_of_files_come_from_no_one(server, tmp_path):
    urls = [server.url(p) for p in ('../../x', '%2e%2e/%2e%2e/x', 'a/b/c.exe', 'con', 'x?/../../y', 'x;rm -rf'.replace(' ', '%20'))]
    for u in urls: server.routes[_read_url(u, None, [server.port])[1].path] = answer()
    r = get(server, urls, tmp_path/'deep'/'er')
    assert set(r.status) == {'ok'} and r.path.str.fullmatch(r'[0-9a-f]{2}/[0-9a-f]{40}\.png').all() and r.path.is_unique
    assert {f.name for f in tmp_path.iterdir()} == {'deep'} and {f.name for f in (tmp_path/'deep').iterdir()} == {'er'}

@pytest.mark.parametrize('kw', [dict(seconds=0), dict(workers=0), dict(per_host=-1), dict(max_bytes=0), dict(retries=-1)], ids=str)
def test_limits_that_make_no_sense(kw, tmp_path):
    with pytest.raises(BadInput, match='positive'): download([], tmp_path, **kw)

def test_a_place_that_cannot_be_used(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(BadInput, match='file of that name'): download([], tmp_path/'file')

def test_within_a_running_loop(server, tmp_path):
    "As in a notebook."
    import asyncio
    async def main(): return get(server, server.url('png'), tmp_path)
    assert asyncio.run(main()).status[0] == 'ok'

@pytest.mark.parametrize('data', [png(30_000, 30_000), jpeg_of(65_500, 65_500), WEBP_HUGE, GIF[:6] + b'\xff\xff\xff\xff' + GIF[10:]], ids=['png', 'jpg', 'webp', 'gif'])
def test_too_many_pixels_never_reach_the_decoder(data, monkeypatch):
    monkeypatch.setattr(Image, 'open', lambda *a, **kw: pytest.fail('it was opened'))
    with pytest.raises(RefusedAddress) as e: check_picture(data, 50_000_000)
    assert e.value.status == 'too_big'

@given(st.binary(max_size=200) | st.builds(lambda head, data: head + data, st.sampled_from([PNG[:33], JPG[:200], GIF[:20], WEBP[:30], PNG, JPG, GIF, WEBP]), st.binary(max_size=60)),
       st.integers(0, 300), st.binary(max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_picture_or_refused(data, i, hurt):
    data = data[:i] + hurt + data[i+len(hurt):]
    try: kind, w, h = check_picture(data, 1_000_000)
    except RefusedAddress as e: assert e.status in ('bad_type', 'bad_image', 'too_big')
    else: assert kind in ('jpg', 'png', 'gif', 'webp') and 0 < w*h <= 1_000_000
