# shellcheck shell=bash
#
# Sourced by bare_machine.sh and container.sh: chroots of a minimal Debian, made by debootstrap, that reach the package
# archives as this machine does: with the mirror and proxy of its apt, and the index, links, certificates and
# constraint of its pip. Nothing is written outside of one new folder, and that is removed at the end.
#
# The script that sources this file runs in two processes. The outer one makes the folder and removes it. The inner one
# does all else, in namespaces of its own for mounts and processes: when it ends, in whatever way, the kernel unmounts
# what it mounted and kills what it started, before the outer one removes anything.

# shellcheck disable=SC2016 # what stands between single quotes is for other programs to expand

project="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
patience=600 # seconds for a set-up and the first price

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

enter_namespaces() { # ARGUMENTS...
  local work code=0
  if [[ -n "${CHROOT_WORK:-}" ]]; then
    trap 'exit 130' INT TERM # as process 1 of its namespace it would not hear them
    return
  fi
  [[ "$(id -u)" == 0 ]] || die "Run this as root: it makes chroots."
  for tool in debootstrap unshare curl git python3; do
    command -v "$tool" >/dev/null ||
      die "Install $tool first (Debian: apt install debootstrap util-linux curl git python3)."
  done
  work="$(mktemp -d "${TMPDIR:-/var/tmp}/pluto-chroot.XXXXXX")"
  trap : INT TERM # the inner process ends at once, then we clean up
  CHROOT_WORK="$work" unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@" || code=$?
  rm -rf --one-file-system "$work"
  exit "$code"
}

# --- What this machine's apt and pip are set up with ---------------------------------------------------------

# The address of the archive that this machine's own release comes from, or its security updates.
mirror() { # [-security]
  local own
  own="$(. /etc/os-release && echo "$VERSION_CODENAME")${1:-}"
  apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v own="$own" '$1 == own { print $2; exit }'
}

configure_apt() { # ROOT SUITE
  local security
  security="$(mirror -security)"
  {
    echo "deb $(mirror) $2 main"
    [[ -z "$security" ]] || echo "deb $security $2-security main"
  } >"$1/etc/apt/sources.list"
  apt-config dump | grep -E '^Acquire::(http|https|Check|Retries)' >"$1/etc/apt/apt.conf.d/90machine" || true
  cp -a /etc/apt/auth.conf.d "$1/etc/apt/" 2>/dev/null || true
  cp /etc/resolv.conf /etc/hosts "$1/etc/"
}

# Prints NAME=VALUE of every variable by which pip, Python, curl and Node reach the archives here, one a line.
machine_variables() {
  env | grep -iE '^(PIP_|(https?|ftp|all|no)_proxy=|SSL_CERT_|(REQUESTS|CURL)_CA_BUNDLE=|NODE_EXTRA_CA_CERTS=)' || true
  python3 -m pip config list 2>/dev/null | python3 -c '
import ast, sys
for line in sys.stdin:
    name, _, value = line.partition("=")
    words = " ".join(ast.literal_eval(value.strip()).split())
    print("PIP_" + name.rpartition(".")[2].upper().replace("-", "_") + "=" + words)
'
}

# Files are copied to their place; folders are mounted there, unless the chroot has such a folder itself. An index in
# files (…/simple) has its packages beside it.
bring_files() { # ROOT; reads machine_variables
  local word
  tr '= ' '\n' | sed 's#^file://##; s#/simple/*$##' | sort -u | while read -r word; do
    if [[ "$word" == /* && -f "$word" ]]; then
      install -D -m 644 "$word" "$1$word"
    elif [[ "$word" == /* && -d "$word" && ! -e "$1$word" ]]; then
      mkdir -p "$1$word"
      mount --bind "$word" "$1$word"
      mount -o remount,bind,ro "$1$word"
    fi
  done
}

# --- A machine ----------------------------------------------------------------------------------------------

make_base() { # ROOT SUITE PACKAGES
  eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
  [[ -z "${http_proxy:-}" ]] || export http_proxy
  debootstrap --variant=minbase --include="$3" "$2" "$1" "$(mirror)" >"$1.log" 2>&1 ||
    die "debootstrap failed: $(tail -n 1 "$1.log")"
  configure_apt "$1" "$2"
  rm -rf "${1:?}"/var/lib/apt/lists/* # a machine image has none
  chroot "$1" useradd --create-home alice
}

machine="" # the folder of the machine that is up
boot() { # BASE
  machine="$CHROOT_WORK/machine"
  cp -a "$1" "$machine"
  mount -t proc proc "$machine/proc"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$machine/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$machine/dev/shm"
  mount -t sysfs -o ro sysfs "$machine/sys"
  machine_variables | bring_files "$machine"
}

# Runs a command in the machine, as a login of that user (a name or an id) would. A background process that is to hear
# signals itself sets in_place to exec before.
inside() { # USER FOLDER COMMAND...
  local home
  local -a reach
  home="$(chroot "$machine" getent passwd "${1%%:*}" | cut -d: -f6)"
  mapfile -t reach < <(machine_variables)
  # shellcheck disable=SC2086 # nothing or exec
  ${in_place:-} chroot --userspec="${1%%:*}" --groups="" "$machine" env -i "${reach[@]}" "HOME=$home" LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c 'cd "$0" && exec "$@"' "$2" "${@:3}"
}

# The ids of all processes whose root is the machine.
residents() {
  local process
  for process in /proc/[0-9]*; do
    [[ "$(readlink "$process/root" 2>/dev/null)" != "$machine"* ]] || echo "${process#/proc/}"
  done
}

kill_residents() {
  local -a ids
  while mapfile -t ids < <(residents) && [[ ${#ids[@]} -gt 0 ]]; do
    kill -KILL "${ids[@]}" 2>/dev/null || true
    sleep 0.1
  done
}

shut_down() {
  local place
  kill_residents
  findmnt --raw --noheadings --output TARGET | grep "^$machine/" | sort -r | while read -r place; do umount "$place"; done
  rm -rf --one-file-system "$machine"
}

# --- Prices -------------------------------------------------------------------------------------------------

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Succeeds once every ticker of the Pluto on this port has a live price. Fails when the process ends, or patience does.
wait_for_prices() { # PORT PROCESS CURL-OPTIONS...
  local end=$((SECONDS + patience))
  while kill -0 "$2" 2>/dev/null && ((SECONDS < end)); do
    if curl -sf --noproxy '*' -m 5 "${@:3}" "http://127.0.0.1:$1/api/tickers" 2>/dev/null | all_live; then return 0; fi
    sleep 0.2
  done
  return 1
}

all_live() {
  python3 -c '
import json, sys
answer = json.loads(sys.stdin.read() or "{}")
prices = answer.get("prices", [])
sys.exit(not prices or len(prices) < len(answer["tickers"]) or any(price["state"] != "live" for price in prices))
'
}
