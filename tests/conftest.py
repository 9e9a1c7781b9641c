"""How the tests share two cores: one thread a process, and what takes long first.

Two processes take the tests, a file or a notebook at a time, and neither may take the other's core. What costs much
begins first, so that both end together: `COST` holds rough seconds, to be corrected by `--durations=0`.
"""
import os

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'POLARS_MAX_THREADS', 'RAYON_NUM_THREADS'):
    os.environ.setdefault(name, '1')        # before numpy and torch are imported: they read it once
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest
from changed import changed, dependents

if os.environ.get('BEHAVIOUR_SIM_LONG'): # `make test-long`: more kills, and 300,000 tweets
    os.environ.setdefault('BEHAVIOUR_SIM_KILLS', '30')
    os.environ.setdefault('BEHAVIOUR_SIM_SCALE', '1')

#: Seconds on one core, of what takes more than 8; the tests of every other file are marked `fast`.
COST = dict(test_ray=240, test_crash=120, test_content=110, test_images=140, test_site=110, test_cli=85, test_app=70, test_scale=60,
    test_simulator=70, test_fuzz=50, test_language_models=45, test_plug_in=45, test_speed=40, test_audit=25, test_notebooks=25,
    test_model_directories=15, test_eda=15, test_updates=60) | {
    '71_ray_train': 125, '70_ray_data': 95, '61_sdxl_lora': 83, '92_likes_quality': 70, '47_simulator': 60, '94_image_quality': 56,
    '93_text_quality': 49, 'plug_in': 46, '56_simulator': 45, 'scale_out': 45, 'your_own_tweets': 40, '55_retrieval': 36,
    '80_report': 35, '60_models': 30, '84_cli': 26, 'index': 24, '53_bloom_lora': 22, '82_app': 21, 'draft_a_tweet': 20,
    '33_embeddings': 20, '96_speed': 19, '45_new_company': 18, '91_peers': 17, '46_known_account': 16, '48_explain': 14, '49_updates': 16,
    '40_regressors': 13, '95_growth': 13, '72_out_of_core': 12, '34_captioning': 12, 'reproduce_team83': 10, '90_audit': 10}


def unit(item) -> str:
    "What goes to a process as a whole: a notebook, or a file of tests."
    return item.callspec.id if item.path.stem == 'test_cells' and hasattr(item, 'callspec') else item.path.stem


def pytest_addoption(parser):
    parser.addoption('--quick', action='store_true', help='Notebooks that differ from main, those that import from them, and the tests marked fast.')


def pytest_configure(config):
    config.addinivalue_line('markers', 'fast: the tests of a file that take a few seconds in all')


@pytest.hookimpl(tryfirst=True) # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.path.stem == 'test_cells' and item.path.stem not in COST: item.add_marker('fast')
        item.add_marker(pytest.mark.xdist_group(unit(item)))
    if config.getoption('--quick'):
        concerned = {p.stem for p in dependents(changed())}
        wanted = lambda i: unit(i) in concerned if i.path.stem == 'test_cells' else i.get_closest_marker('fast')
        config.hook.pytest_deselected(items=[i for i in items if not wanted(i)])
        items[:] = [i for i in items if wanted(i)]
    items.sort(key=lambda i: -COST.get(unit(i), 0)) # a stable sort: within a file the order stays
