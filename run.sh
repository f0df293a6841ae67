#!/usr/bin/env bash
#
# The one door to Pluto.
#
#   ./run.sh [options]        sets up what is missing, then starts Pluto (./run.sh --help lists the options)
#   ./run.sh test [options]   runs the tests; the options are pytest's
#   ./run.sh check            runs the linters: ruff and mypy
#   ./run.sh audit            looks the pinned packages up among known vulnerabilities
#   ./run.sh screenshots      takes the README's pictures of the page
#   ./run.sh setup            only sets up what a start needs
#
# Set-up is a virtual environment in .venv beside this file, the packages that the requirements pin, and a browser.
# What is done is remembered in .venv (*.stamp, browser), written only when it has succeeded, so that an interrupted
# set-up goes on where it stopped, and a later start looks at these few files and nothing else.

set -euo pipefail

here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
venv="$here/.venv"
python="$venv/bin/python"

main() {
  case "${1:-}" in
    setup)
      set_up requirements.txt
      ;;
    check)
      set_up_packages requirements-dev.txt
      cd "$here"
      "$python" -m ruff check .
      "$python" -m ruff format --check .
      "$python" -m mypy
      ;;
    test)
      set_up requirements-dev.txt
      use_browser
      cd "$here"
      exec "$python" -m pytest "${@:2}"
      ;;
    audit)
      set_up_packages requirements-dev.txt
      audit
      ;;
    screenshots)
      set_up requirements-dev.txt
      use_browser
      exec "$python" "$here/tests/screenshots.py" "${@:2}"
      ;;
    *)
      if needs_browser "$@"; then set_up requirements.txt; else set_up_packages requirements.txt; fi
      use_browser
      exec "$python" "$here/app.py" "$@"
      ;;
  esac
}

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# False when the options name a browser themselves (app.py checks that one) or only ask for help.
needs_browser() {
  local option
  for option in "$@"; do
    case "$option" in --browser | --browser=* | -h | --help) return 1 ;; esac
  done
}

set_up() { # REQUIREMENTS
  check_named_browser
  set_up_packages "$1"
  set_up_browser
}

# Runs one step of the set-up; a second run.sh in the same folder waits for the first. (macOS has no flock.)
locked() { # COMMAND...
  ! command -v flock >/dev/null || flock 9
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
  ! packages_ready "$1" || return 0
  fit "$python" pip || make_venv
  say "Setting up Python packages (once, about a minute)…"
  rm -f "$venv"/*.stamp "$venv/browser"
  "$python" -m pip install --disable-pip-version-check --no-input --retries 2 --require-hashes -r "$here/$1" \
    >"$venv/pip.log" 2>&1 || pip_failed
  stamp "$1" >"$venv/$1.stamp"
  # The packages for development include those for running, at the same versions.
  [[ "$1" == requirements.txt ]] || stamp requirements.txt >"$venv/requirements.txt.stamp"
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
  found="$(find_python)"
  say "Making a virtual environment with $("$found" -V)…"
  output="$("$found" -m venv --clear "$venv" 2>&1)" ||
    die "No virtual environment can be made in $venv: ${output##*$'\n'}"
}

# Prints the first Python that is new enough and can make a virtual environment.
find_python() {
  local name new_enough=""
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    fit "$name" sys || continue
    new_enough="$name"
    if fit "$name" "ensurepip, venv"; then
      echo "$name"
      return
    fi
  done
  [[ -z "$new_enough" ]] || die "Python's venv module is missing:" \
    "install it (Debian, Ubuntu: sudo apt install python3-venv), then start again."
  die "Pluto needs Python 3.11 or newer, and found $(python3 -V 2>/dev/null || echo none):" \
    "install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python), then start again."
}

fit() { # PYTHON MODULES: new enough, with these modules
  "$1" -c "import sys, $2; sys.exit(sys.version_info < (3, 11))" 2>/dev/null
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

# --- The browser --------------------------------------------------------------------------------------------

check_named_browser() {
  [[ -z "${PLUTO_BROWSER:-}" || (-f "$PLUTO_BROWSER" && -x "$PLUTO_BROWSER") ]] ||
    die "PLUTO_BROWSER is $PLUTO_BROWSER, which is not a program: set it to a Chromium's path, or unset it."
}

set_up_browser() {
  [[ -n "${PLUTO_BROWSER:-}" ]] || browser_ready || locked find_browser
}

# Pluto takes the browser that was tried here, not one of the same name that may not run.
use_browser() {
  if [[ -z "${PLUTO_BROWSER:-}" ]] && browser_ready; then
    PLUTO_BROWSER="$(cat "$venv/browser")"
    export PLUTO_BROWSER
  fi
}

browser_ready() {
  [[ -x "$(cat "$venv/browser" 2>/dev/null)" ]]
}

find_browser() {
  local name own
  ! browser_ready || return 0
  own="$("$python" -c "$print_own_browser" 2>"$venv/browser.log" || true)"
  for name in "$own" chromium chromium-browser google-chrome; do
    ! remember_browser "$name" || return 0
  done
  download_browser "$own" || install_browser ||
    die "Pluto needs Chromium or Chrome, found none and can't install one: install it" \
      "(Debian: sudo apt install chromium), or set PLUTO_BROWSER to its path. (What was tried: $venv/browser.log)"
}

print_own_browser='
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
'

# Only a browser that runs will do: Ubuntu has a chromium-browser that merely asks for a snap, and one that was just
# downloaded may lack system libraries.
remember_browser() { # NAME
  local path
  path="$(command -v "$1")" && "$path" --version >/dev/null 2>&1 && echo "$path" >"$venv/browser"
}

download_browser() { # WHERE PLAYWRIGHT PUTS IT
  say "Fetching Chromium (once, about a minute)…"
  "$python" -m playwright install chromium >>"$venv/browser.log" 2>&1 || return 1
  remember_browser "$1" || { as_root "$python" -m playwright install-deps chromium && remember_browser "$1"; }
}

install_browser() {
  { command -v apt-get >/dev/null && as_root true; } || return 1
  say "Installing Debian's Chromium with apt (once, about a minute)…"
  apt_get_chromium || { as_root apt-get update && apt_get_chromium; } || return 1
  remember_browser chromium
}

apt_get_chromium() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends chromium chromium-sandbox fonts-liberation
}

# Fails where it would take a password. What it starts may outlive us, so it must not hold our lock (9).
as_root() { # COMMAND...
  local -a sudo=()
  [[ "$(id -u)" == 0 ]] || sudo=(sudo -n)
  ${sudo[@]+"${sudo[@]}"} "$@" </dev/null >>"$venv/browser.log" 2>&1 9<&-
}

main "$@"
