"""What stands in `.github`: valid by actionlint or by the JSON schemas, pinned, and allowed no more than it needs."""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [p for p in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if p.name != "config.yml"]
SCHEMAS = {"github-workflows": WORKFLOWS, "github-issue-forms": FORMS, "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
           "dependabot": [GITHUB / "dependabot.yml"], "citation-file-format": [ROOT / "CITATION.cff"]}
# The only jobs that may write anything, and what
WRITES = {("docs.yml", "deploy"): {"pages", "id-token"}, ("release.yml", "publish"): {"id-token"}}


def load(path: Path) -> dict:
    doc = yaml.safe_load(path.read_text(encoding="utf-8"))
    if True in doc:                 # YAML 1.1 reads `on` as true
        doc["on"] = doc.pop(True)
    return doc


def check(schema: str, *paths: Path) -> subprocess.CompletedProcess:
    "Files against one of the schemas that the package check-jsonschema carries."
    if importlib.util.find_spec("check_jsonschema") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("check-jsonschema is not installed (pip install check-jsonschema)")
    return subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)], capture_output=True, text=True)


def jobs():
    return [(p, name, job) for p in WORKFLOWS for name, job in load(p)["jobs"].items()]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schema(schema):
    done = check(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_catches(tmp_path):
    text = (GITHUB / "workflows" / "test.yml").read_text(encoding="utf-8")
    wrongs = {"runs-on:": "run-on:", "timeout-minutes: 90": "timeout-minutes: soon", "contents: read": "contents: reed"}
    paths = [tmp_path / f"{i}.yml" for i in range(len(wrongs))]
    for path, (old, new) in zip(paths, wrongs.items()):
        assert old in text
        path.write_text(text.replace(old, new))
    done = check("github-workflows", *paths)
    assert done.returncode == 1 and all(str(p) + "::" in done.stdout for p in paths), done.stdout


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed")
def test_actionlint():
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_workflows_are_there():
    assert [p.name for p in WORKFLOWS] == ["docs.yml", "long.yml", "release.yml", "test.yml"] and len(FORMS) >= 3
    assert (GITHUB / "pull_request_template.md").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_actions_are_pinned_by_commit(path):
    "A tag can be moved to other code; a commit cannot. The comment says which version it is, for people and dependabot."
    lines = re.findall(r"(?m)^\s*(?:- )?uses:\s*(.+)$", path.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_version():
    pins = {}
    for path in WORKFLOWS:
        for name, commit in re.findall(r"uses:\s*([^@\s]+)@(\w+)", path.read_text(encoding="utf-8")):
            pins.setdefault(name, set()).add(commit)
    assert all(len(v) == 1 for v in pins.values()), pins


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_may_only_read(path):
    assert load(path)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path, name, job", jobs(), ids=lambda x: x if isinstance(x, str) else "")
def test_jobs(path, name, job):
    "No job writes but those that publish; each ends in time, and none leaves a credential behind or runs a stranger's text."
    writes = {k for k, v in job.get("permissions", {}).items() if v == "write"}
    assert writes == WRITES.get((path.name, name), set())
    assert 0 < job["timeout-minutes"] <= 90
    for step in job["steps"]:
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
            assert not writes, "a job that may write checks out no code"
        assert "${{" not in step.get("run", ""), "an expression in a script is a way in; pass it by `env`"
    assert not writes or (job["environment"]["name"] and job["needs"])


def test_triggers():
    for path in WORKFLOWS:
        assert "pull_request_target" not in load(path)["on"] and "workflow_run" not in load(path)["on"]
    assert load(GITHUB / "workflows" / "release.yml")["on"] == {"release": {"types": ["published"]}}
    assert load(GITHUB / "workflows" / "docs.yml")["on"]["push"] == {"branches": ["main"]}


def test_what_they_call_exists():
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for _, _, job in jobs():
        for step in job["steps"]:
            assert set(re.findall(r"\bmake ([\w-]+)", step.get("run", ""))) <= targets
            for script in re.findall(r"\bbash (\S+)", step.get("run", "")):
                assert (ROOT / script).is_file()
                assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0


def test_every_python_is_one_the_package_allows():
    least = re.search(r"(?m)^min_python\s*=\s*3\.(\d+)", (ROOT / "settings.ini").read_text(encoding="utf-8"))[1]
    tested = load(GITHUB / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert all(isinstance(v, str) for v in tested), "3.10 without quotes is 3.1"
    assert tested == [f"3.{k}" for k in range(int(least), 14)]


def test_the_release_check_of_the_tag():
    "The line in release.yml lets through the version of settings.ini and nothing else."
    steps = load(GITHUB / "workflows" / "release.yml")["jobs"]["build"]["steps"]
    script = next(s["run"] for s in steps if s.get("name") == "The tag is the version")
    version = re.search(r"(?m)^version\s*=\s*(\S+)", (ROOT / "settings.ini").read_text(encoding="utf-8"))[1]
    run = lambda tag: subprocess.run(["bash", "-ec", script], cwd=ROOT, env={"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag}).returncode
    assert run(f"v{version}") == 0
    assert all(run(tag) for tag in (f"v{version}1", "v", "v9.9.9", f"v{version.replace('.', 'x')}"))


def test_the_wheel_comes_from_the_source_distribution(tmp_path):
    "What release.yml runs; a source distribution without settings.ini could not be built."
    pytest.importorskip("build")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "behaviour_sim", source / "behaviour_sim", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert sorted(p.suffix for p in (source / "dist").iterdir()) == [".gz", ".whl"]


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.name)
def test_forms_ask_for_little_and_name_each_answer(path):
    form = load(path)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids)) <= 4 and any(p.get("validations", {}).get("required") for p in form["body"])


def test_dependabot_watches_actions_and_packages():
    assert {u["package-ecosystem"] for u in load(GITHUB / "dependabot.yml")["updates"]} == {"github-actions", "pip"}
