"""run.sh, tried as a user would, with a real Python and a real pip, in a folder with a space in its name.

Nothing here reaches the internet. PATH leads to one folder, `bin`, which holds only what a test puts there,
so that each test decides which Pythons, browsers and installers the machine has. What is slow or far away has
a stand-in: one small wheel, made here, holds modules in the place of playwright, pytest, ruff, mypy and pip-audit.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What run.sh uses of the machine, apart from Python, browsers and installers.
TOOLS = ["bash", "cat", "cksum", "dirname", "env", "flock", "grep", "id", "readlink", "rm", "tail"]

REAL_PYTHON = f'exec "{os.path.realpath(sys.executable)}" "$@"'
OLD_PYTHON = 'if [[ $1 == -V ]]; then echo "Python 3.9.2"; else exit 1; fi'
PYTHON_WITHOUT_VENV = 'if [[ "$*" == *ensurepip* ]]; then exit 1; fi'
PYTHON_THAT_TELLS = 'if [[ $1 == -m ]]; then echo "told to $*"; exit 1; fi'
BROWSER = 'echo "Chromium 156.0"'
NOT_ROOT = "echo 1000"
ROOT_USER = "echo 0"

APP = """
import os, sys
print("app", os.getcwd(), *sys.argv[1:], sep="|")
"""

STAND_INS = {
    "playwright/__init__.py": "",
    "playwright/sync_api.py": """
import contextlib, os, types

@contextlib.contextmanager
def sync_playwright():
    yield types.SimpleNamespace(chromium=types.SimpleNamespace(executable_path=os.environ["OWN_BROWSER"]))
""",
    "playwright/__main__.py": """
import os, sys
print("playwright", *sys.argv[1:])
step = os.environ.get(f"PLAYWRIGHT_{sys.argv[1].upper().replace('-', '_')}")
sys.exit(os.system(step) != 0 if step else "no network")
""",
    "pytest.py": 'import os, sys\nprint("pytest", os.getcwd(), *sys.argv[1:], sep="|")',
    "ruff.py": 'import sys\nprint("ruff", *sys.argv[1:])',
    "mypy.py": 'import sys\nprint("mypy", *sys.argv[1:])',
    "pip_audit.py": 'import os, sys\nprint("pip-audit", *sys.argv[1:])\nsys.exit(os.environ.get("FOUND"))',
    "stand_ins-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: stand-ins\nVersion: 1\n",
    "stand_ins-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "stand_ins-1.dist-info/RECORD": "",
}


class Machine:
    """A folder with run.sh in it, and the programs that it can find."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bin = base / "bin"
        self.folder = base / "a folder"
        self.venv = self.folder / ".venv"
        self.own_browser = base / "own browser"

    def furnish(self) -> None:
        self.bin.mkdir(parents=True)
        self.folder.mkdir()
        for tool in TOOLS:
            if where := shutil.which(tool):
                (self.bin / tool).symlink_to(where)
        self.program("id", NOT_ROOT)
        self.program("python3", REAL_PYTHON)
        shutil.copy(ROOT / "run.sh", self.folder)
        (self.folder / "app.py").write_text(APP)
        wheel = self.base / "stand_ins-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in STAND_INS.items():
                archive.writestr(name, text)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.require(f"stand-ins @ {wheel.as_uri()} --hash=sha256:{digest}")

    def require(self, line: str) -> None:
        (self.folder / "requirements.txt").write_text(f"{line}\n")
        (self.folder / "requirements-dev.txt").write_text(f"{line}\n# and more\n")

    def touch_requirements(self) -> None:
        with (self.folder / "requirements.txt").open("a") as file:
            file.write("# changed\n")

    def program(self, name: str, script: str) -> Path:
        return executable(self.bin / name, script)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        home = self.base / "home"
        home.mkdir(exist_ok=True)
        alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        fixed = {"PATH": str(self.bin), "HOME": str(home), "OWN_BROWSER": str(self.own_browser)}
        return subprocess.Popen(
            [self.folder / "run.sh", *arguments],
            cwd=home,
            env=fixed | alone | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> "Outcome":
        return Outcome(self.start(*arguments, **environment))


class Outcome:
    def __init__(self, process: subprocess.Popen[str], patience: float = 50) -> None:
        out, err = process.communicate(timeout=patience)
        self.code = process.returncode
        self.out = out.splitlines()
        self.said = err.splitlines()

    def failed_saying(self, sentence: str) -> bool:
        """Exit code 1, nothing on stdout, and as the last line one sentence like this one."""
        return self.code == 1 and not self.out and re.search(sentence, self.said[-1]) is not None


def executable(path: Path, script: str) -> Path:
    path.unlink(missing_ok=True)  # or writing would go through a link to the real tool
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """Nothing set up yet."""
    machine = Machine(tmp_path)
    machine.furnish()
    return machine


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Outcome]:
    machine = Machine(tmp_path_factory.mktemp("first") / "machine")
    machine.furnish()
    machine.program("chromium", BROWSER)
    return machine, machine.run("--tickers", "BTCUSD ETHUSD")


@pytest.fixture
def ready(first_start: tuple[Machine, Outcome], tmp_path: Path) -> Machine:
    """Everything set up, by a first start; chromium is the browser."""
    machine = Machine(tmp_path / "machine")
    shutil.copytree(first_start[0].base, machine.base, symlinks=True)
    (machine.venv / "browser").write_text(f"{machine.bin / 'chromium'}\n")
    return machine


@pytest.fixture
def browserless(ready: Machine) -> Machine:
    """The Python packages are set up; no browser is found yet, and none on the machine."""
    (ready.bin / "chromium").unlink()
    (ready.venv / "browser").unlink()
    return ready


def found_browser(machine: Machine) -> str:
    return (machine.venv / "browser").read_text().strip()


# --- Starting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["run.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_the_first_start_sets_up_and_starts_the_app(first_start: tuple[Machine, Outcome]) -> None:
    machine, outcome = first_start
    assert outcome.code == 0, outcome.said
    assert [line.split(" with Python")[0] for line in outcome.said] == [
        "Making a virtual environment",
        "Setting up Python packages (once, about a minute)…",
    ]
    assert outcome.out == [f"app|{machine.base / 'home'}|--tickers|BTCUSD ETHUSD"]


def test_the_second_start_installs_nothing(ready: Machine) -> None:
    (ready.bin / "python3").unlink()  # it could not set anything up if it wanted to
    outcome = ready.run("--demo")
    assert outcome.code == 0
    assert outcome.said == []
    assert outcome.out == [f"app|{ready.base / 'home'}|--demo"]


def test_a_link_to_run_sh_starts_the_same_pluto(ready: Machine) -> None:
    link = ready.bin / "pluto"
    link.symlink_to(ready.folder / "run.sh")
    environment = {"PATH": str(ready.bin)}
    out = subprocess.run([link, "--demo"], env=environment, capture_output=True, text=True, check=True).stdout
    assert out.endswith("|--demo\n")


def test_the_app_takes_the_place_of_run_sh(ready: Machine) -> None:
    (ready.folder / "app.py").write_text("import os; print(os.getpid())")
    process = ready.start()
    assert Outcome(process).out == [str(process.pid)]  # so a signal meant for Pluto reaches it


def test_setup_starts_nothing(ready: Machine) -> None:
    outcome = ready.run("setup")
    assert (outcome.code, outcome.out, outcome.said) == (0, [], [])


def test_test_hands_its_options_to_pytest(ready: Machine) -> None:
    outcome = ready.run("test", "-k", "one or two")
    assert outcome.said == ["Setting up Python packages (once, about a minute)…"]
    assert outcome.out == [f"pytest|{ready.folder}|-k|one or two"]
    assert ready.run("test").said == []
    assert ready.run().said == []  # what tests need includes what a start needs


def test_check_runs_the_linters(ready: Machine) -> None:
    assert ready.run("check").out == ["ruff check .", "ruff format --check .", "mypy"]


# --- Python and its packages --------------------------------------------------------------------------------


def test_audit_says_what_was_found_or_that_nothing_could_be_looked_up(ready: Machine) -> None:
    clean, vulnerable, offline = (
        ready.run("audit", **found)
        for found in ({}, {"FOUND": "Found 1 known vulnerability"}, {"FOUND": "Max retries exceeded with url: /pypi"})
    )
    assert clean.code == 0
    assert "--require-hashes" in clean.out[0]
    assert (vulnerable.code, vulnerable.said[-1]) == (1, "Found 1 known vulnerability")
    assert (offline.code, offline.said[-1].startswith("Not audited: ")) == (1, True)


def test_changed_requirements_are_installed_at_the_next_start(ready: Machine) -> None:
    ready.touch_requirements()
    assert ready.run().said == ["Setting up Python packages (once, about a minute)…"]
    assert ready.run().said == []


def test_two_starts_at_once_set_up_once(ready: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("no flock here, which run.sh needs for this")
    ready.touch_requirements()
    outcomes = [Outcome(process) for process in [ready.start(), ready.start()]]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert sum(len(outcome.said) for outcome in outcomes) == 1


@pytest.mark.parametrize("hashes", ["", f"--hash=sha256:{64 * '0'}"])
def test_a_failed_set_up_says_why_and_is_not_taken_for_done(ready: Machine, hashes: str) -> None:
    good = (ready.folder / "requirements.txt").read_text().strip()
    ready.require(re.sub(r"--hash=\S+", hashes, good))
    outcome = ready.run()
    assert outcome.failed_saying(r"^Pluto's Python packages can't be installed: .*pip\.log")
    assert any("hash" in line.lower() for line in outcome.said)
    ready.require(good)
    assert ready.run().said == ["Setting up Python packages (once, about a minute)…"]


def test_an_interrupted_set_up_is_not_taken_for_done(ready: Machine) -> None:
    ready.touch_requirements()
    python = ready.venv / "bin" / "python"
    real = python.rename(python.with_name("real"))
    executable(python, f'if [[ "$*" == *install* ]]; then kill -KILL $PPID; else exec "{real}" "$@"; fi')
    assert Outcome(ready.start()).code == -signal.SIGKILL
    python.unlink()
    real.rename(python)
    assert ready.run().said == ["Setting up Python packages (once, about a minute)…"]


def test_without_a_network_it_asks_for_one(ready: Machine) -> None:
    ready.require(f"flask==3.1.3 --hash=sha256:{64 * '0'}")
    refusing = "http://127.0.0.1:9"
    outcome = ready.run(PIP_NO_INDEX="0", HTTPS_PROXY=refusing, https_proxy=refusing)
    assert outcome.failed_saying(r"^Pluto's Python packages can't be fetched, .*: check the connection")
    assert len(outcome.said) == 2


def test_python_too_old(bare: Machine) -> None:
    bare.program("python3", OLD_PYTHON)
    outcome = bare.run()
    assert outcome.failed_saying(r"^Pluto needs Python 3\.11 or newer, and found Python 3\.9\.2: install one")
    assert len(outcome.said) == 1


def test_no_python_at_all(bare: Machine) -> None:
    (bare.bin / "python3").unlink()
    outcome = bare.run()
    assert outcome.failed_saying(r"^Pluto needs Python 3\.11 or newer, and found none: install one")
    assert len(outcome.said) == 1


def test_no_venv_module(bare: Machine) -> None:
    bare.program("python3", PYTHON_WITHOUT_VENV)
    outcome = bare.run()
    assert outcome.failed_saying(r"^Python's venv module is missing: install it \(.*python3-venv")
    assert len(outcome.said) == 1


@pytest.mark.parametrize("unfit", [OLD_PYTHON, PYTHON_WITHOUT_VENV])
def test_a_python_of_another_name_serves_too(bare: Machine, unfit: str) -> None:
    bare.program("python3", unfit)
    bare.program("python3.12", PYTHON_THAT_TELLS)
    assert bare.run().failed_saying(rf"told to -m venv --clear {bare.venv}$")


def test_a_virtual_environment_whose_python_is_gone_is_made_again(ready: Machine) -> None:
    (ready.venv / "bin" / "python").unlink()
    ready.program("python3", PYTHON_THAT_TELLS)
    assert ready.run().failed_saying(rf"told to -m venv --clear {ready.venv}$")


def test_packages_for_tests_include_those_for_running() -> None:
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


# --- The browser --------------------------------------------------------------------------------------------


def test_a_named_browser_that_is_missing_is_said_before_anything_is_installed(bare: Machine) -> None:
    outcome = bare.run(PLUTO_BROWSER="/no such/chrome")
    assert outcome.failed_saying(r"^PLUTO_BROWSER is /no such/chrome, which is not a program: ")
    assert len(outcome.said) == 1
    assert not bare.venv.exists()


def test_a_named_browser_is_not_looked_for(browserless: Machine) -> None:
    chrome = executable(browserless.base / "my chrome", BROWSER)
    outcome = browserless.run(PLUTO_BROWSER=str(chrome))
    assert (outcome.code, outcome.said) == (0, [])
    assert not (browserless.venv / "browser").exists()


@pytest.mark.parametrize("options", [["--browser", "/x"], ["--browser=/x"], ["--help"], ["-h"]])
def test_options_that_need_no_browser_of_ours(browserless: Machine, options: list[str]) -> None:
    outcome = browserless.run(*options)
    assert (outcome.code, outcome.said) == (0, [])
    assert outcome.out[0].endswith("|".join(options))


def test_the_order_in_which_browsers_are_chosen(browserless: Machine) -> None:
    found = []
    chosen: list[Callable[[], Path]] = [
        lambda: browserless.program("google-chrome", BROWSER),
        lambda: browserless.program("chromium-browser", BROWSER),
        lambda: browserless.program("chromium", BROWSER),
        lambda: executable(browserless.own_browser, BROWSER),
    ]
    for appear in chosen:
        assert appear().exists()
        assert browserless.run().said == []
        found.append(Path(found_browser(browserless)).name)
        (browserless.venv / "browser").unlink()
    assert found == ["google-chrome", "chromium-browser", "chromium", "own browser"]


def test_a_browser_that_does_not_run_is_passed_over(browserless: Machine) -> None:
    browserless.program("chromium-browser", "echo 'install the snap'; exit 1")
    browserless.program("google-chrome", BROWSER)
    assert browserless.run().code == 0
    assert found_browser(browserless) == str(browserless.bin / "google-chrome")


def test_a_browser_that_vanished_is_looked_for_again(ready: Machine) -> None:
    (ready.bin / "chromium").unlink()
    ready.program("google-chrome", BROWSER)
    assert ready.run().code == 0
    assert found_browser(ready) == str(ready.bin / "google-chrome")


def test_changed_requirements_have_the_browser_chosen_anew(ready: Machine) -> None:
    executable(ready.own_browser, BROWSER)  # another Playwright, with another Chromium of its own
    ready.touch_requirements()
    assert ready.run().code == 0
    assert found_browser(ready) == str(ready.own_browser)


def test_a_missing_browser_is_downloaded(browserless: Machine) -> None:
    chrome = executable(browserless.base / "downloaded", BROWSER)
    outcome = browserless.run(PLAYWRIGHT_INSTALL=f'"{shutil.which("cp")}" "{chrome}" "$OWN_BROWSER"')
    assert outcome.code == 0
    assert outcome.said == ["Fetching Chromium (once, about a minute)…"]
    assert found_browser(browserless) == str(browserless.own_browser)


def test_a_downloaded_browser_gets_the_libraries_it_lacks(browserless: Machine) -> None:
    chrome = executable(browserless.base / "downloaded", f'[[ -e "{browserless.base}/libraries" ]]')
    browserless.program("id", ROOT_USER)
    outcome = browserless.run(
        PLAYWRIGHT_INSTALL=f'"{shutil.which("cp")}" "{chrome}" "$OWN_BROWSER"',
        PLAYWRIGHT_INSTALL_DEPS=f'echo > "{browserless.base}/libraries"',
    )
    assert outcome.code == 0
    assert found_browser(browserless) == str(browserless.own_browser)


@pytest.mark.parametrize("root", [True, False])
def test_where_no_download_comes_through_apt_brings_a_browser(browserless: Machine, root: bool) -> None:
    browserless.program("id", ROOT_USER if root else NOT_ROOT)
    if not root:
        browserless.program("sudo", '[[ $1 == -n ]] && export SUDO=1 && "${@:2}"')
    browserless.program(  # its lists are out of date at first
        "apt-get",
        f"""
        echo "apt-get $* (frontend ${{DEBIAN_FRONTEND:-any}}, sudo ${{SUDO:-none}})"
        cd "{browserless.base}"
        if [[ $1 == update ]]; then : >updated; exit; fi
        [[ -e updated ]] && "{shutil.which("cp")}" chrome bin/chromium""",
    )
    executable(browserless.base / "chrome", BROWSER)
    outcome = browserless.run()
    assert outcome.code == 0, outcome.said
    assert outcome.said == [
        "Fetching Chromium (once, about a minute)…",
        "Installing Debian's Chromium with apt (once, about a minute)…",
    ]
    assert found_browser(browserless) == str(browserless.bin / "chromium")
    log = (browserless.venv / "browser.log").read_text()
    assert f"chromium-sandbox fonts-liberation (frontend noninteractive, sudo {'none' if root else '1'})" in log


def test_what_apt_leaves_running_does_not_block_the_next_set_up(browserless: Machine) -> None:
    browserless.program("id", ROOT_USER)
    chromium = browserless.bin / "chromium"
    executable(browserless.base / "chrome", BROWSER)
    browserless.program(
        "apt-get",
        f"""
        cd "{browserless.base}"
        "{shutil.which("sleep")}" 60 & echo $! >daemon
        "{shutil.which("mv")}" chrome "{chromium}" """,
    )
    try:
        assert browserless.run().code == 0
        browserless.touch_requirements()
        assert Outcome(browserless.start(), patience=20).code == 0
    finally:
        os.kill(int((browserless.base / "daemon").read_text()), signal.SIGKILL)


def test_no_browser_and_no_way_to_get_one(browserless: Machine) -> None:
    browserless.program("sudo", "exit 1")  # it would ask for a password
    browserless.program("apt-get", "exit 0")
    outcome = browserless.run()
    assert outcome.failed_saying(r"^Pluto needs Chromium or Chrome, .*: install it .*, or set PLUTO_BROWSER")
    assert outcome.said[:-1] == ["Fetching Chromium (once, about a minute)…"]
