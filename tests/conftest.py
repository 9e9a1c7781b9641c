"""How the tests share two cores: one thread a process, and what takes long first.

Two processes take the tests, a file or a notebook at a time, and neither may take the other's core. What costs much
begins first, so that both end together: `COST` holds rough seconds, to be corrected by `--durations=0`.
"""
import gc
import os
import re
import sys
from pathlib import Path

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'POLARS_MAX_THREADS', 'RAYON_NUM_THREADS'):
    os.environ.setdefault(name, '1')        # before numpy and torch are imported: they read it once
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('RAY_TRAIN_HEALTH_CHECK_INTERVAL_S', '0.2') # Ray Train looks at its workers every 2 seconds
STARTUP = str(Path(__file__).parent/'startup')
if STARTUP not in (path := os.environ.get('PYTHONPATH', '').split(os.pathsep)):
    os.environ['PYTHONPATH'] = os.pathsep.join([STARTUP, *filter(None, path)])

import pytest
from changed import changed, dependents

if os.environ.get('BEHAVIOUR_SIM_LONG'): # `make test-long`: more kills, 300,000 tweets, ten thousand rows through each reader, more examples
    os.environ.setdefault('BEHAVIOUR_SIM_KILLS', '30')
    os.environ.setdefault('BEHAVIOUR_SIM_SCALE', '1')
    os.environ.setdefault('BEHAVIOUR_SIM_FUZZ_ROWS', '10000')

#: Seconds of one core, children included, of what takes long; the tests of every other file are marked `fast`.
COST = dict(test_images=60, test_ray=95, test_cli=86, test_crash=80, test_content=120, test_simulator=64, test_app=63, test_embeddings=42, test_scale=41, test_site=39, test_hub=38,
    test_targets=34, test_plug_in=30, test_updates=30, test_plan=12, test_gpu=27, test_fuzz=25, test_speed=25, test_audit=25, test_language_models=24, test_model_directories=23, test_eda=23,
    test_models=20, test_cleaning=20, test_reproduce=17, test_records=14, test_posts=13, test_notebooks=12, test_attacks=12, test_near_misses=32, test_device=9, test_run=40) | {
    '71_ray_train': 58, '92_likes_quality': 20, '99_likes_studies': 45, '58_rewriting': 25, '59_voice': 15, '70_ray_data': 18, '61_sdxl_lora': 58, '94_image_quality': 29, 'scale_out': 22, '93_text_quality': 38, '80_report': 23, '47_simulator': 27,
    '55_retrieval': 21, 'plug_in': 20, 'draft_a_tweet': 60, '87_report_system': 19, '56_simulator': 16, 'your_own_tweets': 15, '96_speed': 15, '91_peers': 14,
    '45_new_company': 13, '48_explain': 13, '46_known_account': 12, '95_growth': 45, '98_full_size': 12, 'index': 11, '49_updates': 8, '86_app': 9, '89_cli': 9, '22_cleaning': 9,
    '40_regressors': 9, '82_app_session': 8, '62_simulator': 6, '53_bloom_lora': 6, '33_embeddings': 6}

#: Functions of the package with a cache that holds models
KEPT = {'_loaded_encoder', '_vector_file', '_class_head', '_vocabulary', '_blip2_parts', '_sentence_transformer'}


def unit(id:str) -> str:
    "What goes to a process as a whole, from the id of a test: a notebook, or a file of tests."
    file, _, name = id.partition('::')
    of_notebook = re.fullmatch(r'test_cells\[(.+)\]', name) if Path(file).stem == 'test_cells' else None
    return of_notebook[1] if of_notebook else Path(file).stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling
    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid): return unit(nodeid)
    return Units(config, log)


@pytest.fixture(autouse=True, scope='module')
def released():
    "After a file of tests the models that the package keeps loaded are let go, and what is free goes back to the system."
    yield
    for module in [m for name, m in sys.modules.items() if name.startswith('behaviour_sim.')]:
        for name in KEPT & vars(module).keys(): getattr(module, name).cache_clear()
    gc.collect()
    if module := sys.modules.get('behaviour_sim.features.effort'): module._give_memory_back()


def pytest_addoption(parser):
    parser.addoption('--quick', action='store_true', help='Notebooks that differ from main, those that import from them, and the tests marked fast.')


def pytest_ignore_collect(collection_path, config):
    "With --quick a costly file of tests is not even imported."
    return config.getoption('--quick') and collection_path.stem in COST or None


def pytest_configure(config):
    config.addinivalue_line('markers', 'fast: the tests of a file that take a few seconds in all')


def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.path.stem == 'test_cells' and item.path.stem not in COST: item.add_marker('fast')
    if config.getoption('--quick'):
        concerned = {p.stem for p in dependents(changed())}
        wanted = lambda i: unit(i.nodeid) in concerned if i.path.stem == 'test_cells' else i.get_closest_marker('fast')
        config.hook.pytest_deselected(items=[i for i in items if not wanted(i)])
        items[:] = [i for i in items if wanted(i)]
    items.sort(key=lambda i: -COST.get(unit(i.nodeid), 0)) # a stable sort: within a file the order stays
