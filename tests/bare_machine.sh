#!/usr/bin/env bash
#
# Tries ./run.sh --demo on bare machines: in chroots of a minimal Debian with nothing but python3 and ca-certificates.
#
#   tests/bare_machine.sh [SUITE]   SUITE is a Debian release; without it, this machine's own
#
# As root and as an ordinary user, with and without python3-venv, with and without a browser, with a browser that finds
# no sandbox, and with a set-up that is killed. Each ends in live prices or in one sentence. After a sentence, root does
# what it says, and the next start ends in live prices. This needs root, debootstrap, the package archives and about
# half an hour, so it isn't part of the tests.

set -euo pipefail
# shellcheck source=tests/chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"
# shellcheck disable=SC2016 # what stands between single quotes is for other shells to expand

enter_namespaces "$@"

suite="${1:-$(source /etc/os-release && echo "$VERSION_CODENAME")}"
base="$CHROOT_WORK/base"
log="$CHROOT_WORK/log"
browser=(chromium chromium-sandbox fonts-liberation)
rows=()
failed=0

main() {
  local user venv browser_too
  printf '== %s: debootstrap (%s)\n' "$suite" "$(git -C "$project" rev-parse --short HEAD)"
  make_base "$base" "$suite" python3,ca-certificates
  printf '%s, %s\n' \
    "$(chroot "$base" sh -c ". /etc/os-release && echo \"\$PRETTY_NAME\"")" "$(chroot "$base" python3 -V)"
  for user in root alice; do
    for venv in "" python3-venv; do
      for browser_too in "" "${browser[*]}"; do
        # shellcheck disable=SC2086 # each is a package
        try "$user" start $venv $browser_too
      done
    done
  done
  try alice start python3-venv libatomic1 chromium # without chromium-sandbox: a chroot has no namespaces for its users
  try root start_after_a_kill
  table
  return "$failed"
}

# Boots a machine, lets a user start Pluto there, and notes how that went.
try() { # USER HOW PACKAGES...
  local began said outcome home
  printf '\n== %s, %s, with %s\n' "$1" "$2" "$([[ $# -gt 2 ]] && echo "${*:3}" || echo nothing)"
  boot "$base"
  if [[ $# -gt 2 ]]; then add_packages "${@:3}"; fi
  home="$(chroot "$machine" sh -c "echo ~$1")"
  began=$SECONDS
  git clone --quiet --no-local "$project" "$machine$home/pluto"
  chroot "$machine" chown -R "$1:$1" "$home/pluto"
  said="-"
  if "$2" "$1" "$home/pluto"; then
    outcome="live prices"
  elif one_sentence; then
    said="$(tail -n 1 "$log")"
    outcome="live prices after that"
    obey "$said" && start "$1" "$home/pluto" || outcome="FAILED"
  else
    outcome="FAILED"
  fi
  [[ "$outcome" != FAILED ]] || failed=1
  printf '%s after %s s\n' "$outcome" "$((SECONDS - began))"
  rows+=("$1|$([[ "$2" == start ]] || echo "(set-up killed) ")${*:3}|$outcome|$((SECONDS - began)) s|$said")
  shut_down
}

add_packages() { # PACKAGES...
  {
    inside root / apt-get update
    inside root / env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
  } >"$log" 2>&1 || die "$(tail -n 5 "$log")"
  rm -rf "${machine:?}"/var/lib/apt/lists/*
}

# Succeeds when all prices are live; then ends Pluto. What was said goes to the screen and to the log.
start() { # USER FOLDER
  local port process live=0 code=0
  port="$(free_port)"
  { in_place="exec" && inside "$1" "$2" env "PLUTO_PORT=$port" ./run.sh --demo </dev/null >"$log" 2>&1; } &
  process=$!
  if wait_for_prices "$port" "$process"; then
    live=1
    kill -TERM "$process"
  fi
  wait "$process" || code=$?
  sed 's/^/   | /' "$log"
  ((live)) || return 1
  printf '   prices were live; SIGTERM ended it with code %s\n' "$code"
  [[ -z "$(residents)" && "$code" == 0 ]]
}

# As if the power had gone while apt unpacks, and once more while pip installs.
start_after_a_kill() { # USER FOLDER
  kill_when "$1" "$2" 'grep -q ^Unpacking "$0/.venv/system.log"'
  kill_when "$1" "$2" 'test -d "$0"/.venv/lib/python3*/site-packages/playwright'
  start "$@"
}

kill_when() { # USER FOLDER CONDITION
  local process
  { in_place="exec" && inside "$1" "$2" ./run.sh --demo </dev/null >"$log" 2>&1; } &
  process=$!
  until sh -c "$3" "$machine$2" 2>/dev/null; do
    kill -0 "$process" 2>/dev/null || die "Not killed in time: $(tail -n 1 "$log")"
    sleep 0.1
  done
  { kill_residents && wait "$process"; } 2>/dev/null || true # bash would tell of the kill
  sed 's/^/   | /' "$log"
  printf '   killed\n'
}

# Whether the log holds, beside the steps that end in "…", one line only.
one_sentence() {
  [[ "$(grep -vcE '…$' "$log")" == 1 ]]
}

# Does as root what the sentence says between quotes.
obey() { # SENTENCE
  local command
  command="$(sed -n "s/.*'sudo \(apt .*\)'.*/\1/p" <<<"$1")"
  [[ -n "$command" ]] || return 1
  command="${command//sudo /}"
  printf '   root runs: %s\n' "$command"
  inside root / env DEBIAN_FRONTEND=noninteractive sh -c "${command//apt install/apt install -y}" >"$log.apt" 2>&1 ||
    { tail -n 5 "$log.apt" && return 1; }
}

table() {
  printf '\n%s\n%s\n' '| user | beside python3 and ca-certificates | outcome | from clone to prices | what it said |' \
    '|---|---|---|---|---|'
  printf '%s\n' "${rows[@]}" | sed 's/||/| nothing |/; s/|/ | /g; s/^/| /; s/$/ |/'
}

main
