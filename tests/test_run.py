"""run.sh, tried as a user would, with a real Python and a real pip, in a folder with a space in its name.

Nothing here reaches the internet. PATH leads to one folder, `bin`, which holds only what a test puts there,
so that each test decides which Pythons, browsers, packages and installers the machine has. What is slow or far away has
a stand-in: one small wheel, made here, holds modules in the place of playwright, pytest, ruff, mypy and pip-audit, and
a virtual environment gets a link to the pip of the tests instead of one of its own.
tests/bare_machine.sh and tests/container.sh try the same with a real apt, a real index and a real browser.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pip
import pytest

from settings import settings_table

ROOT = Path(__file__).parent.parent

# What run.sh uses of the machine, apart from Python, browsers and installers.
TOOLS = ["bash", "cat", "cksum", "dirname", "env", "flock", "grep", "id", "mkdir", "readlink", "rm", "tail", "uname"]

PYTHON = os.path.realpath(sys.executable)
REAL_PYTHON = f"""
if [[ "$1 $2" == "-m venv" ]]; then
  "{PYTHON}" -m venv --without-pip "${{@:3}}"
  exec "{shutil.which("ln")}" -s "{Path(pip.__file__).parent}" "${{@: -1}}"/lib/python*/site-packages
fi
exec "{PYTHON}" "$@"
"""
OLD_PYTHON = 'if [[ $1 == -V ]]; then echo "Python 3.9.2"; else exit 1; fi'
NEWER_PYTHON = 'if [[ "$*" == *"<= (3, 14)"* ]]; then exit 1; elif [[ $1 == -m ]]; then echo "told to $*"; exit 1; fi'
PYTHON_WITHOUT_VENV = f'if [[ "$*" == *ensurepip* ]]; then exit 1; fi; {REAL_PYTHON}'
PYTHON_THAT_TELLS = 'if [[ $1 == -m ]]; then echo "told to $*"; exit 1; fi'
BROWSER = 'echo "Chromium 156.0"'
ONLY_A_VERSION = 'if [[ $1 != --version ]]; then echo "install the snap" >&2; exit 1; fi'
NOT_ROOT = "echo 1000"
ROOT_USER = "echo 0"

APP = """
import os, sys
print("app", os.getcwd(), *sys.argv[1:], sep="|")
"""

# Answers as tradingview/browser.py does, which test_browser.py tries.
BROWSER_COMMAND = """
import os, shutil, subprocess, sys

named = os.environ.get("PLUTO_BROWSER")
names = [named] if named else [os.environ["OWN_BROWSER"], "chromium", "google-chrome"]
paths = list(filter(None, map(shutil.which, names)))
for path in paths:
    done = subprocess.run([path, "--headless"], capture_output=True, text=True)
    if not done.returncode:
        sys.exit(print(path))
if not paths:
    print("No Chromium found: install one.", file=sys.stderr)
    sys.exit(3)
sys.exit(f"{path} ended as it started and said: {done.stderr.strip()}; mend that")
"""

STAND_INS = {
    "playwright/__init__.py": "",
    "playwright/__main__.py": """
import os, sys
if sys.argv[1] == "--version":
    sys.exit(os.system(os.environ.get("DRIVER", "exit 0")) != 0)
if sys.argv[1] == "install-deps":
    sys.exit(print("Missing system dependencies (2):\\n  libgbm1\\n  libnss3"))
print("playwright", *sys.argv[1:])
step = os.environ.get("PLAYWRIGHT_INSTALL")
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
        self.user: int | None = None  # that starts run.sh, where it isn't our own

    def furnish(self) -> None:
        self.furnish_bin()
        self.folder.mkdir()
        shutil.copy(ROOT / "run.sh", self.folder)
        (self.folder / "app.py").write_text(APP)
        (self.folder / "tradingview").mkdir()
        (self.folder / "tradingview" / "browser.py").write_text(BROWSER_COMMAND)
        wheel = self.base / "stand_ins-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in STAND_INS.items():
                archive.writestr(name, text)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.require(f"stand-ins @ {wheel.as_uri()} --hash=sha256:{digest}")

    def furnish_bin(self) -> None:
        self.bin.mkdir(parents=True)
        for tool in TOOLS:
            if where := shutil.which(tool):
                (self.bin / tool).symlink_to(where)
        self.program("id", NOT_ROOT)
        self.program("python3", REAL_PYTHON)

    def copy(self, base: Path) -> "Machine":
        """Another one with the same folder. Its `bin` has what every machine has, and chromium."""
        machine = Machine(base)
        machine.furnish_bin()
        machine.program("chromium", BROWSER)
        shutil.copytree(self.folder, machine.folder, symlinks=True)
        (machine.venv / "browser").write_text(f"{machine.bin / 'chromium'}\n")
        return machine

    def require(self, line: str) -> None:
        (self.folder / "requirements.txt").write_text(f"{line}\n")
        for name in ("redis", "notify", "dev"):
            (self.folder / f"requirements-{name}.txt").write_text(f"{line}\n# for {name}\n")

    def touch_requirements(self) -> None:
        with (self.folder / "requirements.txt").open("a") as file:
            file.write("# changed\n")

    def program(self, name: str, script: str) -> Path:
        return executable(self.bin / name, script)

    def be(self, system: str, *packages: str) -> None:
        """A minimal system with apt and dpkg, and no lists of packages yet.

        Without its package, python3 can't make a virtual environment; there is no chromium.
        """
        cat, libraries = shutil.which("cat"), self.base / "libraries"
        libraries.mkdir(exist_ok=True)
        for package in packages:
            (libraries / package).touch()
        self.program("cat", f'if [[ $1 == /etc/os-release ]]; then echo "\nID={system}"; else exec "{cat}" "$@"; fi')
        self.program("dpkg-query", f'if [[ -e "{libraries}/${{@: -1}}" ]]; then echo "ii "; else exit 1; fi')
        self.program("dpkg", 'echo "dpkg $*"')
        self.program(
            "python3",
            f'if [[ "$*" == *ensurepip* && ! -e "{libraries}/python3-venv" ]]; then exit 1; fi; {REAL_PYTHON}',
        )
        executable(self.base / "chrome", BROWSER)
        self.program(
            "apt-get",
            f"""
            echo "apt-get $* (frontend ${{DEBIAN_FRONTEND:-any}}, sudo ${{SUDO:-none}})"
            cd "{self.base}"
            if [[ "$*" == *update* ]]; then : >lists; exit; fi
            [[ -e lists ]] || {{ echo "E: Unable to locate package"; exit 100; }}
            for word; do
              case "$word" in
                lib* | python3*) : >"libraries/$word" ;;
                chromium) "{shutil.which("cp")}" chrome bin/chromium ;;
              esac
            done
            """,
        )

    def lacking(self, *packages: str) -> str:
        """A command that fails, as a program does that lacks one of these packages."""
        return "; ".join(
            f"""[ -e '{self.base}/libraries/{name}' ] || {{ echo "node: can't load {name}" >&2; exit 127; }}"""
            for name in packages
        )

    def log(self, name: str) -> str:
        return (self.venv / name).read_text()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        home = self.base / "home"
        home.mkdir(exist_ok=True)
        alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        fixed = {"PATH": str(self.bin), "HOME": str(home), "OWN_BROWSER": str(self.own_browser)}
        return subprocess.Popen(
            [self.folder / "run.sh", *arguments],
            cwd=home,
            env=fixed | alone | environment,
            user=self.user,
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
    """Root's, on a bare Debian. No other makes a virtual environment."""
    machine = Machine(tmp_path_factory.mktemp("first") / "machine")
    machine.furnish()
    machine.be("debian")
    machine.program("id", ROOT_USER)
    return machine, machine.run("--tickers", "BTCUSD ETHUSD", DRIVER=machine.lacking("libatomic1"))


@pytest.fixture
def ready(first_start: tuple[Machine, Outcome], tmp_path: Path) -> Machine:
    """Everything set up, by a first start; chromium is the browser."""
    return first_start[0].copy(tmp_path / "machine")


@pytest.fixture(scope="module")
def set_up_for_tests(
    first_start: tuple[Machine, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Machine, Outcome]:
    machine = first_start[0].copy(tmp_path_factory.mktemp("tests") / "machine")
    return machine, machine.run("test", "-k", "one or two")


@pytest.fixture
def ready_for_tests(set_up_for_tests: tuple[Machine, Outcome], tmp_path: Path) -> Machine:
    """The packages for tests are set up, too."""
    return set_up_for_tests[0].copy(tmp_path / "machine")


@pytest.fixture
def browserless(ready: Machine) -> Machine:
    """The Python packages are set up; no browser is found yet, and none on the machine."""
    (ready.bin / "chromium").unlink()
    (ready.venv / "browser").unlink()
    return ready


@pytest.fixture
def driverless(ready: Machine) -> Machine:
    """The Python packages are set up; whether Playwright's driver runs is not known yet."""
    (ready.venv / "driver.stamp").unlink()
    return ready


def found_browser(machine: Machine) -> str:
    return (machine.venv / "browser").read_text().strip()


# --- Starting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["run.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_the_first_start_of_root_sets_up_all_that_a_bare_debian_lacks_and_starts_the_app(
    first_start: tuple[Machine, Outcome],
) -> None:
    machine, outcome = first_start
    assert outcome.code == 0, outcome.said
    assert [line.split(" with Python")[0] for line in outcome.said] == [
        f"Installing {' '.join(EVERYTHING)} with apt (once, about a minute)…",
        "Making a virtual environment",
        "Setting up Python packages (once, about a minute)…",
    ]
    assert outcome.out == [f"app|{machine.base / 'home'}|--tickers|BTCUSD ETHUSD"]
    assert found_browser(machine) == str(machine.bin / "chromium")


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


@pytest.mark.parametrize("way", ["bin/pluto", "a folder/run.sh"])
def test_a_link_is_followed_where_readlink_knows_no_f(ready: Machine, way: str) -> None:  # macOS before 12.3
    real = shutil.which("readlink")
    ready.program("readlink", f'if [[ $1 == -* ]]; then echo "illegal option -- f"; exit 1; fi; exec "{real}" "$@"')
    (ready.bin / "pluto").symlink_to("../bin/second")
    (ready.bin / "second").symlink_to("../a folder/run.sh")
    environment = {"PATH": str(ready.bin), "CDPATH": str(ready.base)}  # cd would print where it went
    outcome = subprocess.run(
        ["bash", way, "--demo"], cwd=ready.base, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.stdout == f"app|{ready.base}|--demo\n", outcome.stderr


@pytest.mark.parametrize("shell", ["MINGW64_NT-10.0-19045", "MSYS_NT-10.0", "CYGWIN_NT-10.0"])
def test_on_windows_it_asks_for_wsl2(bare: Machine, shell: str) -> None:
    bare.program("uname", f"echo {shell}")
    outcome = bare.run("--demo")
    assert outcome.failed_saying(r"^Pluto doesn't run on Windows itself: use WSL2 ")
    assert len(outcome.said) == 1
    assert not bare.venv.exists()


@pytest.mark.parametrize(
    ("options", "answer"), [(["--help"], "--tickers"), (["--demo", "-h"], "--tickers"), (["--version"], "Pluto 0.")]
)
def test_help_and_version_install_nothing(bare: Machine, options: list[str], answer: str) -> None:
    for name in ("settings.py", "quotes.py", "static/coins.json"):
        (bare.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, bare.folder / name)
    bare.program("python3", PYTHON_WITHOUT_VENV)
    outcome = bare.run(*options)
    assert (outcome.code, outcome.said) == (0, [])
    assert answer in "\n".join(outcome.out)
    assert not {path.name for path in bare.folder.iterdir()} & {".venv", "__pycache__"}


def test_help_takes_the_python_that_is_set_up(ready: Machine) -> None:
    (ready.folder / "settings.py").write_text("import sys\ndef read_settings(options): print(sys.prefix, options)")
    (ready.bin / "python3").unlink()
    assert ready.run("--help").out == [f"{ready.venv} ['--help']"]


def test_help_without_a_python(bare: Machine) -> None:
    bare.program("python3", OLD_PYTHON)
    assert bare.run("--help").failed_saying(r"^Pluto needs Python 3\.11 or newer, and found Python 3\.9\.2: ")


def test_the_app_takes_the_place_of_run_sh(ready: Machine) -> None:
    (ready.folder / "app.py").write_text("import os; print(os.getpid())")
    process = ready.start()
    assert Outcome(process).out == [str(process.pid)]  # so a signal meant for Pluto reaches it


def test_setup_starts_nothing(ready: Machine) -> None:
    outcome = ready.run("setup")
    assert (outcome.code, outcome.out, outcome.said) == (0, [], [])


def test_test_hands_its_options_to_pytest(set_up_for_tests: tuple[Machine, Outcome]) -> None:
    machine, outcome = set_up_for_tests
    assert outcome.said == ["Setting up Python packages (once, about a minute)…"]
    assert outcome.out == [f"pytest|{machine.folder}|-k|one or two"]
    assert machine.run().said == []  # what tests need includes what a start needs


def test_doctor_hands_its_options_on_and_stays_in_the_users_folder(ready: Machine) -> None:
    doctor = "import os, sys; print(os.getcwd(), *sys.argv[1:], sep='|')"
    (ready.folder / "tradingview" / "doctor.py").write_text(doctor)
    assert ready.run("doctor", "BTCUSD", "--report", "a b.zip").out == [
        f"{ready.base / 'home'}|BTCUSD|--report|a b.zip"
    ]


def test_a_notify_url_has_its_packages_installed_once_and_is_in_no_programs_arguments(ready: Machine) -> None:
    tell = "import os, sys; print(*sys.argv[1:], os.environ.get('PLUTO_NOTIFY'), sep='|')"
    (ready.folder / "app.py").write_text(tell)
    (ready.folder / "alerts").mkdir()
    (ready.folder / "alerts" / "trial.py").write_text(tell)
    options = ["--notify", "json://a/b c", "--demo", "--notify=ntfy://d"]
    first = ready.run(*options)
    assert first.said == ["Setting up Python packages (once, about a minute)…"]
    assert first.out == ["--demo| json://a/b c ntfy://d"]
    assert (ready.run(PLUTO_NOTIFY="json://e").out, ready.run().said) == (["json://e"], [])
    trial = ready.run("notify-test", *options)
    assert (trial.said, trial.out) == ([], first.out)
    ready.touch_requirements()
    assert ready.run().out == ["None"]
    assert not (ready.venv / "requirements-notify.txt.stamp").exists()
    assert len(ready.run("setup", PLUTO_NOTIFY="json://e").said) == 1


def test_test_says_how_long_all_the_tests_take(ready_for_tests: Machine) -> None:
    assert ready_for_tests.run("test").said == ["Running all the tests, which takes about 10 minutes…"]
    assert ready_for_tests.run("test", "-x").said == []


def test_check_runs_the_linters(ready_for_tests: Machine) -> None:
    assert ready_for_tests.run("check").out == ["ruff check .", "ruff format --check .", "mypy"]


# --- Python and its packages --------------------------------------------------------------------------------


def test_audit_says_what_was_found_or_that_nothing_could_be_looked_up(ready_for_tests: Machine) -> None:
    clean, vulnerable, offline = (
        ready_for_tests.run("audit", **found)
        for found in ({}, {"FOUND": "Found 1 known vulnerability"}, {"FOUND": "Max retries exceeded with url: /pypi"})
    )
    assert clean.code == 0
    assert "--require-hashes" in clean.out[0]
    assert (vulnerable.code, vulnerable.said[-1]) == (1, "Found 1 known vulnerability")
    assert (offline.code, offline.said[-1].startswith("Not audited: ")) == (1, True)


def test_two_starts_at_once_set_changed_requirements_up_once_and_have_the_browser_chosen_anew(ready: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("no flock here, which run.sh needs for this")
    executable(ready.own_browser, BROWSER)  # another Playwright, with another Chromium of its own
    ready.touch_requirements()
    outcomes = [Outcome(process) for process in [ready.start(), ready.start()]]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    said = [line for outcome in outcomes for line in outcome.said]
    assert said == ["Setting up Python packages (once, about a minute)…"]
    assert ready.run().said == []
    assert found_browser(ready) == str(ready.own_browser)


def test_a_set_up_that_fails_or_is_interrupted_is_not_taken_for_done(ready: Machine) -> None:
    good = (ready.folder / "requirements.txt").read_text().strip()
    ready.require(re.sub(r" --hash=\S+", "", good))
    outcome = ready.run()
    assert outcome.failed_saying(r"^Pluto's Python packages can't be installed: .*pip\.log")
    assert any("hash" in line.lower() for line in outcome.said)
    ready.require(good)
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
    assert outcome.failed_saying(
        r"^Pluto needs packages that this system lacks: install python3-venv \(Debian's names\) "
    )
    assert len(outcome.said) == 1


def test_the_first_python_that_fits_serves_whatever_its_name(bare: Machine) -> None:
    for name, unfit in (("python3", OLD_PYTHON), ("python3.14", PYTHON_WITHOUT_VENV), ("python3.13", NEWER_PYTHON)):
        bare.program(name, unfit)
    bare.program("python3.12", PYTHON_THAT_TELLS.replace("told", "3.12 told"))
    assert bare.run().failed_saying(rf"3\.12 told to -m venv --clear {bare.venv}$")


def test_a_python_newer_than_those_tested_is_better_than_none(bare: Machine) -> None:
    bare.program("python3", NEWER_PYTHON)
    assert bare.run().failed_saying(rf"told to -m venv --clear {bare.venv}$")


def test_a_virtual_environment_whose_python_is_gone_is_made_again(ready: Machine) -> None:
    (ready.venv / "bin" / "python").unlink()
    ready.program("python3", PYTHON_THAT_TELLS)
    assert ready.run().failed_saying(rf"told to -m venv --clear {ready.venv}$")


def test_a_virtual_environment_that_belongs_to_another_user_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as base:  # where another user can look, too
        machine = Machine(Path(base) / "machine")
        machine.furnish()
        machine.venv.mkdir(mode=0o555)
        Path(base).chmod(0o755)
        machine.user = 65534 if os.geteuid() == 0 else None
        outcome = machine.run()
    assert outcome.failed_saying(rf"^{machine.venv} isn't ready and belongs to another user: remove it ")
    assert len(outcome.said) == 1


def test_packages_for_tests_include_those_for_running() -> None:
    running, with_redis = pins("requirements.txt").items(), pins("requirements-redis.txt").items()
    assert running <= with_redis <= pins("requirements-dev.txt").items()
    assert pins("requirements-notify.txt").items() <= pins("requirements-dev.txt").items()


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


def test_a_named_browser_is_tried_once(browserless: Machine) -> None:
    tries = browserless.base / "tries"
    chrome = executable(browserless.base / "my chrome", f'echo "$*" >>"{tries}"')
    for _ in range(2):
        assert browserless.run(PLUTO_BROWSER=str(chrome)).code == 0
    assert tries.read_text() == "--headless\n"


def test_a_named_browser_that_does_not_start_is_told(ready: Machine) -> None:
    chrome = executable(ready.base / "my chrome", 'echo "lib.so: cannot open" >&2; exit 127')
    outcome = ready.run(PLUTO_BROWSER=str(chrome))
    assert outcome.failed_saying(rf"^{chrome} ended .*: lib\.so: cannot open; mend that, then start again\.$")
    assert len(outcome.said) == 1
    assert ready.run().code == 0  # the browser that was found before is still the one


@pytest.mark.parametrize("options", [["--browser", "/x"], ["--browser=/x"]])
def test_a_browser_among_the_options_is_the_apps_to_check(browserless: Machine, options: list[str]) -> None:
    outcome = browserless.run(*options)
    assert (outcome.code, outcome.said) == (0, [])
    assert outcome.out[0].endswith("|".join(options))


def test_a_browser_that_only_has_a_version_will_not_do(browserless: Machine) -> None:
    browserless.program("chromium", ONLY_A_VERSION)
    browserless.program("google-chrome", BROWSER)
    assert browserless.run().code == 0
    assert found_browser(browserless) == str(browserless.bin / "google-chrome")


def test_a_browser_that_vanished_is_looked_for_again(ready: Machine) -> None:
    (ready.bin / "chromium").unlink()
    ready.program("google-chrome", BROWSER)
    assert ready.run().code == 0
    assert found_browser(ready) == str(ready.bin / "google-chrome")


def test_a_missing_browser_is_downloaded(browserless: Machine) -> None:
    chrome = executable(browserless.base / "downloaded", BROWSER)
    outcome = browserless.run(PLAYWRIGHT_INSTALL=f'"{shutil.which("cp")}" "{chrome}" "$OWN_BROWSER"')
    assert outcome.code == 0
    assert outcome.said == ["Fetching Chromium (once, about a minute)…"]
    assert found_browser(browserless) == str(browserless.own_browser)


@pytest.mark.parametrize("root", [True, False])
def test_a_downloaded_browser_gets_the_libraries_it_lacks(browserless: Machine, root: bool) -> None:
    browserless.be("ubuntu", "python3-venv", "libatomic1", "libnss3")
    browserless.program("id", ROOT_USER if root else NOT_ROOT)
    chrome = executable(browserless.base / "downloaded", browserless.lacking("libgbm1"))
    outcome = browserless.run(PLAYWRIGHT_INSTALL=f'"{shutil.which("cp")}" "{chrome}" "$OWN_BROWSER"')
    if root:
        assert outcome.said[1:] == ["Installing libgbm1 with apt (once, about a minute)…"]
        assert found_browser(browserless) == str(browserless.own_browser)
    else:
        assert outcome.failed_saying(lacks("libgbm1"))
        assert len(outcome.said) == 2


@pytest.mark.parametrize("root", [True, False])
def test_where_no_download_comes_through_apt_brings_a_browser(browserless: Machine, root: bool) -> None:
    browserless.be("debian", "python3-venv", "libatomic1")
    browserless.program("id", ROOT_USER if root else NOT_ROOT)
    if not root:
        browserless.program("sudo", '[[ $1 == -n ]] && export SUDO=1 && "${@:2}"')
    outcome = browserless.run()
    assert outcome.code == 0, outcome.said
    assert outcome.said == [
        "Fetching Chromium (once, about a minute)…",
        "Installing chromium chromium-sandbox fonts-liberation with apt (once, about a minute)…",
    ]
    assert found_browser(browserless) == str(browserless.bin / "chromium")
    log = browserless.log("system.log")  # its lists are out of date at first
    assert f"chromium-sandbox fonts-liberation (frontend noninteractive, sudo {'none' if root else '1'})" in log


def test_what_apt_leaves_running_does_not_block_the_next_set_up(browserless: Machine) -> None:
    browserless.be("debian", "python3-venv", "libatomic1")
    browserless.program("id", ROOT_USER)
    chromium = browserless.bin / "chromium"
    browserless.program(
        "apt-get",
        f"""
        cd "{browserless.base}"
        "{shutil.which("sleep")}" 60 & echo $! >daemon
        "{shutil.which("mv")}" chrome "{chromium}" """,
    )
    try:
        assert browserless.run().code == 0
        (browserless.venv / "driver.stamp").unlink()
        assert Outcome(browserless.start(), patience=20).code == 0
    finally:
        os.kill(int((browserless.base / "daemon").read_text()), signal.SIGKILL)


def test_no_browser_and_no_way_to_get_one(browserless: Machine) -> None:
    outcome = browserless.run()
    assert outcome.failed_saying(r"^No Chromium found: install one, then start again\.$")
    assert outcome.said[:-1] == ["Fetching Chromium (once, about a minute)…"]


def test_a_browser_that_does_not_start_and_no_other_is_told_with_its_own_last_line(browserless: Machine) -> None:
    browserless.program("chromium", ONLY_A_VERSION)
    outcome = browserless.run()
    assert outcome.failed_saying(
        rf"^{browserless.bin}/chromium ended .*: install the snap; mend that, then start again\.$"
    )


# --- Playwright's driver ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--browser=/x"]])
def test_a_driver_that_does_not_start_is_told_and_tried_again(driverless: Machine, options: list[str]) -> None:
    outcome = driverless.run(*options, DRIVER="echo one; echo 'GLIBC_2.28 not found' >&2; exit 1")
    assert outcome.failed_saying(r"^Playwright's driver doesn't start: GLIBC_2\.28 not found \(")
    assert len(outcome.said) == 1
    assert driverless.run(*options).code == 0
    assert driverless.run(*options, DRIVER="exit 1").code == 0  # it has been tried


def test_what_only_harms_is_kept_from_the_driver(driverless: Machine) -> None:
    environment = {"NODE_OPTIONS": "--require /gone.js", "PWDEBUG": "1", "TMPDIR": "/no such folder"}
    said = 'echo "${NODE_OPTIONS+x}${PWDEBUG+x}${TMPDIR+x}" >&2; [ -z "${NODE_OPTIONS+x}${PWDEBUG+x}${TMPDIR+x}" ]'
    outcome = driverless.run(DRIVER=said, **environment)
    assert outcome.code == 0, outcome.said


def test_a_good_tmpdir_is_kept(driverless: Machine) -> None:
    there = str(driverless.base)
    assert driverless.run(DRIVER=f'[ "$TMPDIR" = "{there}" ]', TMPDIR=there).code == 0


# --- What only the system can provide -----------------------------------------------------------------------

EVERYTHING = ("python3-venv", "libatomic1", "chromium", "chromium-sandbox", "fonts-liberation")


def lacks(*packages: str) -> str:
    names = " ".join(packages)
    command = rf"sudo apt update && sudo apt install --no-install-recommends {re.escape(names)}"
    return rf"^Pluto needs packages that this system lacks: run '{command}', then start again\.$"


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_a_user_is_told_all_that_a_bare_debian_lacks(bare: Machine, sudo: str | None) -> None:
    bare.be("debian")
    if sudo:  # it would ask for a password
        bare.program("sudo", sudo)
    outcome = bare.run()
    assert outcome.failed_saying(lacks(*EVERYTHING))
    assert len(outcome.said) == 1


def test_a_user_is_told_what_the_driver_and_the_browser_lack(driverless: Machine) -> None:
    driverless.be("debian", "python3-venv", "fonts-liberation")
    (driverless.venv / "browser").unlink()
    (driverless.bin / "chromium").unlink()
    lacking = driverless.lacking("libatomic1")
    outcome = driverless.run(DRIVER=lacking)
    assert outcome.failed_saying(lacks("libatomic1", "chromium", "chromium-sandbox"))
    assert len(outcome.said) == 1
    (driverless.base / "libraries" / "libatomic1").touch()
    driverless.program("chromium", BROWSER)
    assert driverless.run(DRIVER=lacking).said == []  # it continues where it stopped


def test_a_browser_that_is_there_or_not_needed_is_not_asked_for(bare: Machine) -> None:
    bare.be("debian")
    chrome = executable(bare.base / "my chrome", BROWSER)
    assert bare.run(PLUTO_BROWSER=str(chrome)).failed_saying(lacks("python3-venv", "libatomic1"))
    assert bare.run("--browser", "/x").failed_saying(lacks("python3-venv", "libatomic1"))
    assert bare.run("check").failed_saying(lacks("python3-venv"))
    bare.program("google-chrome", BROWSER)
    assert bare.run("test").failed_saying(lacks("python3-venv", "libatomic1"))


def test_ubuntu_has_no_chromium_of_its_own(bare: Machine) -> None:
    bare.be("ubuntu")
    assert bare.run().failed_saying(lacks("python3-venv", "libatomic1"))


def test_the_package_of_the_python_that_is_new_enough(bare: Machine) -> None:
    bare.be("debian")
    bare.program("python3", OLD_PYTHON)
    bare.program("apt-cache", "[[ $2 == python3.11-venv ]]")
    assert bare.run("check").failed_saying(lacks("python3.11-venv"))
    bare.program("python3.13", PYTHON_WITHOUT_VENV)
    assert bare.run("check").failed_saying(lacks("python3.13-venv"))


def test_no_python_at_all_where_there_is_apt(bare: Machine) -> None:
    bare.be("debian")
    (bare.bin / "python3").unlink()
    assert bare.run("check").failed_saying(lacks("python3-venv"))


def test_without_a_new_enough_python_nothing_else_is_installed(bare: Machine) -> None:
    bare.be("debian")
    bare.program("id", ROOT_USER)
    bare.program("python3", OLD_PYTHON)
    outcome = bare.run()
    assert outcome.failed_saying(r"^Pluto needs Python 3\.11 or newer, and found Python 3\.9\.2: ")
    assert len(outcome.said) == 1


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("dnf", r"run 'sudo dnf install libatomic chromium', then"),
        ("zypper", r"install libatomic1 \(Debian's names\) with"),
    ],
)
def test_systems_without_apt(driverless: Machine, program: str, sentence: str) -> None:
    driverless.program(program, "exit 1")
    (driverless.bin / "chromium").unlink()
    (driverless.venv / "browser").unlink()
    outcome = driverless.run(DRIVER="echo 'node: libatomic.so.1: cannot open' >&2; exit 127")
    assert outcome.failed_saying(rf"^Pluto needs packages that this system lacks: {sentence}")
    assert len(outcome.said) == 1


def test_what_apt_cannot_install_is_told(bare: Machine) -> None:
    bare.be("debian")
    bare.program("id", ROOT_USER)
    bare.program("apt-get", "echo 'E: Could not resolve host' >&2; exit 100")
    assert bare.run("check").failed_saying(r"^apt can't install python3-venv: E: Could not resolve host \(")


def test_what_an_interrupted_apt_left_is_finished_first(bare: Machine) -> None:
    bare.be("debian")
    bare.program("id", ROOT_USER)
    apt_get = (bare.bin / "apt-get").rename(bare.base / "apt-get")
    bare.program("apt-get", f'if [[ ! -e "{bare.base}/configured" ]]; then exit 100; fi; exec "{apt_get}" "$@"')
    bare.program("dpkg", f'if [[ "$*" == "--configure -a" ]]; then : >"{bare.base}/configured"; fi')
    made = bare.base / "libraries" / "python3-venv"
    bare.program("python3", f'if [[ "$*" == *ensurepip* && ! -e "{made}" ]]; then exit 1; fi; {PYTHON_THAT_TELLS}')
    assert bare.run("check").failed_saying(r"told to -m venv")


# --- The container ------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_compose_refuses_to_start_without_a_token() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert re.search(r"^ +PLUTO_ACCESS_TOKEN: \$\{PLUTO_ACCESS_TOKEN:\?[^}]{20,}\}$", text, re.MULTILINE)


def test_compose_runs_several_machines_with_settings_and_a_proxy_that_are_there() -> None:
    text, nginx = (ROOT / "compose.yaml").read_text(), (ROOT / "examples" / "nginx.conf").read_text()
    variables = {variable for _, variable, _, _ in settings_table()} | {"PLUTO_NAME", "PLUTO_CERTIFICATES"}
    assert set(re.findall(r"PLUTO_[A-Z_]+", text)) <= variables
    replaced = re.findall(r'-e "s/([^/"]+)/', text)
    assert len(replaced) == 2
    for pattern in replaced:
        assert re.search(pattern, nginx), pattern
    (subnet,) = re.findall(r"subnet: (\S+)", text)
    assert f"PLUTO_TRUSTED_PROXIES: {subnet}" in text
