#!/usr/bin/env bash
#
# The one door to Pluto.
#
#   ./run.sh [options]        sets up what is missing, then starts Pluto (./run.sh --help lists the options)
#   ./run.sh doctor [TICKER]  opens one page, and says what works and what to do (./run.sh doctor --help: its options)
#   ./run.sh notify-test      sends one message to each notify URL (--notify, PLUTO_NOTIFY), and says what came of it
#   ./run.sh test [options]   runs the tests; the options are pytest's
#   ./run.sh check            runs the linters: ruff and mypy
#   ./run.sh audit            looks the pinned packages up among known vulnerabilities
#   ./run.sh screenshots      takes the README's pictures of the page
#   ./run.sh export >FILE     prints the watchlist, a ticker a line; ./run.sh import <FILE replaces it
#   ./run.sh setup [options]  only sets up what a start with these options needs
#
# Set-up is a virtual environment in .venv beside this file, the packages that the requirements pin, and a browser. What
# only the system can provide is installed with apt where run.sh may, and named in one sentence elsewhere.
# What is done is remembered in .venv (*.stamp, browser, named-browser), written only when it has succeeded, so that an
# interrupted set-up continues where it stopped, and a later start looks at these few files and nothing else.
#
# It also runs with macOS's bash 3.2 and without GNU's tools.

set -euo pipefail

# An editor's or a debugger's: Playwright's driver dies of the one, and waits for ever with the other.
unset NODE_OPTIONS PWDEBUG
[[ -d "${TMPDIR:-/tmp}" && -w "${TMPDIR:-/tmp}" ]] || unset TMPDIR

home_of() { # A FILE, maybe by way of links; prints its folder
  local file="$1" link
  while [[ -L "$file" ]]; do
    link="$(readlink "$file")"
    [[ "$link" == /* ]] || link="$(dirname "$file")/$link"
    file="$link"
  done
  (CDPATH="" cd -P "$(dirname "$file")" && pwd)
}

here="$(home_of "${BASH_SOURCE[0]}")"
venv="$here/.venv"
python="$venv/bin/python"
needs="" # beside Python: nothing, "driver" (Playwright's) or "driver browser"
tried=""      # "yes" when no browser that is here works
downloaded="" # "yes" when Playwright's own is here

main() {
  refuse_windows
  case "${1:-}" in
    setup)
      set_up requirements.txt
      set_up_notify "${@:2}"
      ;;
    check)
      set_up_packages requirements-dev.txt
      cd "$here"
      "$python" -m ruff check .
      "$python" -m ruff format --check .
      "$python" -m mypy
      ;;
    doctor)
      set_up_for "$@"
      PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m tradingview.doctor "${@:2}"
      ;;
    notify-test)
      set_up_packages requirements-notify.txt
      hide_urls "${@:2}"
      PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m alerts.trial ${options[@]+"${options[@]}"}
      ;;
    test)
      set_up requirements-dev.txt
      use_browser
      cd "$here"
      [[ $# -gt 1 ]] || say "Running all the tests, which takes about 10 minutes…"
      exec "$python" -m pytest "${@:2}"
      ;;
    audit)
      set_up_packages requirements-dev.txt
      audit
      ;;
    export | import)
      without_packages "import storage.transfer; sys.exit(storage.transfer.main(sys.argv[1:]))" "$@"
      ;;
    screenshots)
      set_up requirements-dev.txt
      use_browser
      exec "$python" "$here/tests/screenshots.py" "${@:2}"
      ;;
    *)
      start "$@"
      ;;
  esac
}

start() { # OPTIONS...
  if has_option --help "$@" || has_option -h "$@" || has_option --version "$@"; then answer "$@"; fi
  set_up_for "$@"
  set_up_notify "$@"
  hide_urls "$@"
  exec "$python" "$here/app.py" ${options[@]+"${options[@]}"}
}

# What sends alerts elsewhere, if there is a notify URL.
set_up_notify() { # OPTIONS...
  [[ -z "${PLUTO_NOTIFY:-}" ]] && ! has_option --notify "$@" || set_up_packages requirements-notify.txt
}

# Moves URLs that are secrets to their variables: every user of the machine can read a program's options.
# The other options are in `options` then.
hide_urls() { # OPTIONS...
  local urls=""
  options=()
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --notify=*) urls="$urls ${1#*=}" ;;
      --redis=*) export PLUTO_REDIS="${1#*=}" ;;
      --notify | --redis)
        [[ $# -gt 1 ]] || break
        [[ "$1" == --redis ]] && export PLUTO_REDIS="$2" || urls="$urls $2"
        shift
        ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  options+=("$@")
  [[ -z "$urls" ]] || export PLUTO_NOTIFY="$urls"
}

set_up_for() { # OPTIONS...
  local requirements=requirements.txt
  if [[ -n "${PLUTO_REDIS:-}" ]] || has_option --redis "$@"; then requirements=requirements-redis.txt; fi
  if has_option --browser "$@"; then
    needs="driver" # Pluto checks the browser that the options name
    set_up_packages "$requirements"
    set_up_driver
  else
    set_up "$requirements"
  fi
}

has_option() { # OPTION OPTIONS...
  local option
  for option in "${@:2}"; do
    [[ "$option" != "$1" && "$option" != "$1"=* ]] || return 0
  done
  return 1
}

# --help and --version need a Python and settings.py, which needs nothing else.
answer() { # OPTIONS...
  without_packages "import settings; settings.read_settings(sys.argv[1:])" "$@"
}

# Runs a program that needs nothing but a Python.
without_packages() { # PROGRAM ARGUMENTS...
  local found="$python"
  fit "$found" sys || found="$(new_enough_python)" || die_without_python
  exec "$found" -I -B -c "import sys; sys.path.insert(0, sys.argv.pop(1))
$1" "$here" "${@:2}"
}

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

refuse_windows() {
  case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN*) die "Pluto doesn't run on Windows itself: use WSL2 (wsl --install)." ;;
  esac
}

set_up() { # REQUIREMENTS
  needs="driver browser"
  check_named_browser
  set_up_packages "$1"
  set_up_driver
  browser_ready || locked find_browser
}

# Runs one step of the set-up; a second run.sh in the same folder waits for the first. (macOS has no flock.)
locked() { # COMMAND...
  ! command -v flock >/dev/null || flock 9
  [[ ! -e "$venv" || -w "$venv" ]] ||
    die "$venv isn't ready and belongs to another user: remove it (sudo rm -r '$venv'), then start again."
  "$@"
} 9<"$here"

# --- Python and its packages --------------------------------------------------------------------------------

set_up_packages() { # REQUIREMENTS
  packages_ready "$1" || locked install_packages "$1"
}

packages_ready() { # REQUIREMENTS
  [[ "$(cat "$venv/$1.stamp" 2>/dev/null)" == "$(stamp "$1")" ]]
}

stamp() { # REQUIREMENTS
  echo "$("$python" -V 2>/dev/null || echo none), $(cksum <"$here/$1")"
}

install_packages() { # REQUIREMENTS
  local name
  ! packages_ready "$1" || return 0
  fit "$python" pip || make_venv
  say "Setting up Python packages (once, about a minute)…"
  rm -f "$venv/$1.stamp"
  [[ "$1" == requirements-notify.txt ]] || rm -f "$venv"/*.stamp "$venv/browser" "$venv/named-browser"
  "$python" -m pip install --disable-pip-version-check --no-input --retries 2 --require-hashes -r "$here/$1" \
    >"$venv/pip.log" 2>&1 || pip_failed
  stamp "$1" >"$venv/$1.stamp"
  # The packages for development include all others, and those for Redis those for running, at the same versions.
  [[ "$1" == requirements-notify.txt ]] || stamp requirements.txt >"$venv/requirements.txt.stamp"
  [[ "$1" != requirements-dev.txt ]] || for name in requirements-redis.txt requirements-notify.txt; do
    stamp "$name" >"$venv/$name.stamp"
  done
}

pip_failed() {
  if grep -qiE 'connection|failed to connect|timed out|name resolution' "$venv/pip.log"; then
    die "Pluto's Python packages can't be fetched, which takes the internet once:" \
      "check the connection (or the proxy), then start again. (What pip said: $venv/pip.log)"
  fi
  tail -n 5 "$venv/pip.log" >&2
  die "Pluto's Python packages can't be installed: see the lines above, and $venv/pip.log for all of them."
}

make_venv() {
  local found output
  found="$(find_python)" || { venv_package >/dev/null && provide && found="$(find_python)"; } || die_without_python
  say "Making a virtual environment with $("$found" -V)…"
  output="$("$found" -m venv --clear "$venv" 2>&1)" ||
    die "No virtual environment can be made in $venv: ${output##*$'\n'}"
}

# Prints the first Python that Pluto can use and that can make a virtual environment.
find_python() { new_enough_python "ensurepip, venv"; }

# Those that Pluto is tested with come first; a newer one is better than none.
new_enough_python() { # [MODULES]
  local name newest
  for newest in 14 99; do
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
      ! fit "$name" "${1:-sys}" "$newest" || { echo "$name" && return; }
    done
  done
  return 1
}

fit() { # PYTHON MODULES [NEWEST]: from 3.11 to 3.NEWEST, with these modules
  "$1" -c "import sys, $2; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, ${3:-99}))" 2>/dev/null
}

die_without_python() {
  die "Pluto needs Python 3.11 or newer, and found $(python3 -V 2>/dev/null || echo none):" \
    "install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python), then start again."
}

# The packages for development include those for running. A package that nothing is known about is not taken for safe.
audit() {
  local log="$venv/audit.log"
  if "$python" -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off \
    -r "$here/requirements-dev.txt" 2>"$log"; then
    cat "$log" >&2
  elif grep -qiE 'connection|max retries|timed out|name resolution|could not be audited' "$log"; then
    die "Not audited: the data on known vulnerabilities can't be reached, which takes the internet. (What was said: $log)"
  else
    cat "$log" >&2
    return 1
  fi
}

# --- Playwright's driver and the browser --------------------------------------------------------------------

set_up_driver() {
  [[ -e "$venv/driver.stamp" ]] || locked try_driver
}

try_driver() {
  driver_runs || { ! has_package libatomic1 && provide && driver_runs; } ||
    die "Playwright's driver doesn't start: $(tail -n 1 "$venv/driver.log") (All that it said: $venv/driver.log)"
  echo >"$venv/driver.stamp"
}

driver_runs() {
  "$python" -m playwright --version >"$venv/driver.log" 2>&1
}

check_named_browser() {
  [[ -z "${PLUTO_BROWSER:-}" || (-f "$PLUTO_BROWSER" && -x "$PLUTO_BROWSER") ]] ||
    die "PLUTO_BROWSER is $PLUTO_BROWSER, which is not a program: set it to a Chromium's path, or unset it."
}

# Tests take the browser that was tried here. (Pluto itself tries all that it finds.)
use_browser() {
  if [[ -z "${PLUTO_BROWSER:-}" ]] && browser_ready; then
    PLUTO_BROWSER="$(cat "$venv/browser")"
    export PLUTO_BROWSER
  fi
}

browser_ready() {
  if [[ -n "${PLUTO_BROWSER:-}" ]]; then
    [[ "$(cat "$venv/named-browser" 2>/dev/null)" == "$PLUTO_BROWSER" ]]
  else
    [[ -x "$(cat "$venv/browser" 2>/dev/null)" ]]
  fi
}

find_browser() {
  ! browser_ready || return 0
  if [[ -n "${PLUTO_BROWSER:-}" ]]; then
    try_browsers named-browser || die_without_browser
  else
    try_browsers browser || { download_browser && try_browsers browser; } || { provide && try_browsers browser; } ||
      die_without_browser
  fi
}

download_browser() {
  say "Fetching Chromium (once, about a minute)…"
  "$python" -m playwright install chromium >"$venv/browser.log" 2>&1 && downloaded=yes
}

# Opens a page in each browser that is here until one does it, and remembers that one. To run it is the only proof:
# Ubuntu's chromium-browser merely asks for a snap, and one that was just downloaded may lack libraries.
try_browsers() { # NAME OF THE FILE TO REMEMBER IT IN
  local path
  path="$(cd "$here" && "$python" -m tradingview.browser 2>"$venv/tried.log")" || { tried=yes && return 1; }
  echo "$path" >"$venv/$1"
}

die_without_browser() {
  local why
  why="$(tail -n 1 "$venv/tried.log")"
  die "${why%.}, then start again."
}

# --- What only the system can provide -----------------------------------------------------------------------

# Installs all the packages that the system lacks, with apt; where that can't be done, says which they are, and ends.
provide() {
  local -a lacking
  # shellcheck disable=SC2207 # names of packages hold nothing that a shell would split or expand
  lacking=($(lacking_packages))
  [[ ${#lacking[@]} -gt 0 ]] || return 1
  mkdir -p "$venv" 2>/dev/null || true
  { command -v apt-get >/dev/null && as_root true; } || die_lacking "${lacking[*]}"
  say "Installing ${lacking[*]} with apt (once, about a minute)…"
  apt_get_install "${lacking[@]}" ||
    die "apt can't install ${lacking[*]}: $(tail -n 1 "$venv/system.log") (All that it said: $venv/system.log)"
}

die_lacking() { # PACKAGES
  local lacks="Pluto needs packages that this system lacks:" then=", then start again." fedoras
  if command -v apt-get >/dev/null; then
    die "$lacks run 'sudo apt update && sudo apt install --no-install-recommends $1'$then"
  elif command -v dnf >/dev/null; then
    fedoras="${1/python3-venv/python3}"
    die "$lacks run 'sudo dnf install ${fedoras/libatomic1/libatomic}'$then"
  fi
  die "$lacks install $1 (Debian's names) with its package manager$then"
}

# Debian's names of all the packages that are lacking, so that one command installs them.
lacking_packages() {
  local name
  find_python >/dev/null || venv_package
  for name in $(driver_packages) $(browser_packages); do
    has_package "$name" || echo "$name"
  done
}

# The package that makes find_python find one; nothing where there is none.
venv_package() {
  local name
  if name="$(new_enough_python)"; then
    echo "$name-venv"
  elif ! command -v apt-get >/dev/null; then
    return 1
  elif ! command -v python3 >/dev/null; then
    echo python3-venv
  else
    for name in python3.14-venv python3.13-venv python3.12-venv python3.11-venv; do
      ! apt-cache show "$name" >/dev/null 2>&1 || { echo "$name" && return; }
    done
    return 1
  fi
}

driver_packages() {
  [[ "$needs" != *driver* ]] || echo libatomic1 # for its Node
}

# Debian's Chromium brings its libraries along. Other systems with apt have none, but the libraries for Playwright's.
browser_packages() {
  [[ "$needs" == *browser* && -z "${PLUTO_BROWSER:-}" ]] || return 0
  if [[ -z "$tried" ]]; then
    ! command -v chromium chromium-browser google-chrome >/dev/null || return 0
  fi
  if ! command -v apt-get >/dev/null; then
    ! command -v dnf >/dev/null || echo chromium
  elif [[ "$(cat /etc/os-release 2>/dev/null)" == *$'\n'ID=debian* ]]; then
    echo chromium chromium-sandbox fonts-liberation
  elif [[ -n "$downloaded" ]]; then
    "$python" -m playwright install-deps --dry-run chromium 2>/dev/null | grep '^  ' || true
  fi
}

# Without dpkg nothing is known but what the driver said when it died.
has_package() { # NAME
  if command -v dpkg-query >/dev/null; then
    [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" == *ii* ]]
  else
    [[ "$1" == libatomic1 ]] && ! grep -qs libatomic "$venv/driver.log"
  fi
}

# The lists may be old or empty, and an earlier installation may have been cut off.
apt_get_install() { # PACKAGES...
  apt_get install -y --no-install-recommends "$@" ||
    { as_root dpkg --configure -a && apt_get update && apt_get install -y --no-install-recommends "$@"; }
}

apt_get() { # ARGUMENTS...
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"
}

# Fails where it would take a password. What it starts may outlive us, so it must not hold our lock (9).
as_root() { # COMMAND...
  local -a sudo=()
  [[ "$(id -u)" == 0 ]] || sudo=(sudo -n)
  ${sudo[@]+"${sudo[@]}"} "$@" </dev/null >>"$venv/system.log" 2>&1 9<&-
}

main "$@"
