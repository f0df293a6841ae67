#!/usr/bin/env bash
#
# Tries the Dockerfile where there is no container engine: performs its own lines in a chroot of the Debian it names.
#
#   tests/container.sh
#
# RUN and COPY make the machine. ENTRYPOINT and CMD run as process 1 of a namespace, as the Dockerfile's user, with its
# environment, without capabilities and new privileges (as compose.yaml has it), until the demo's prices are live. Then
# HEALTHCHECK must succeed, callers without the token must be refused, and SIGTERM must end it with code 0.
# An engine's layers, network and seccomp profile are not tried. This takes root, debootstrap, the package archives and
# minutes, so it isn't part of the tests.

set -euo pipefail
# shellcheck source=tests/chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

enter_namespaces "$@"

context="$CHROOT_WORK/context"
log="$CHROOT_WORK/log"
token="a-token-of-the-container-test"
folder=/       # WORKDIR
user=0         # USER
variables=()   # ENV
entrypoint=()  # ENTRYPOINT, an array of its words
command=()     # CMD
healthcheck=() # HEALTHCHECK
volumes=()     # VOLUME

main() {
  local instruction line began=$SECONDS
  local -a words
  make_context
  # One instruction a line, its words separated by tabs.
  while IFS=$'\t' read -r -u 3 instruction line; do
    printf '== %s %s\n' "$instruction" "${line//$'\t'/ }"
    IFS=$'\t' read -r -a words <<<"$line"
    perform "$instruction" "${words[@]}" || die "That failed: $(tail -n 20 "$log")"
  done 3< <(instructions)
  printf '== built after %s s\n' "$((SECONDS - began))"
  run
  shut_down
}

# What `docker build` would be sent: the commit, without what .dockerignore names.
make_context() {
  local pattern
  mkdir "$context"
  git -C "$project" archive HEAD | tar -x -C "$context"
  shopt -s globstar nullglob
  while read -r pattern; do
    case "$pattern" in
      "" | "#"*) ;;
      "!"*) die ".dockerignore: $pattern can't be tried here" ;;
      *) (cd "$context" && GLOBIGNORE=".:.." && eval "rm -rf -- $pattern") ;;
    esac
  done <"$project/.dockerignore"
}

# Prints the Dockerfile's instructions: words of the exec form and of ENV and COPY, else the rest of the line as one.
instructions() {
  python3 - "$project/Dockerfile" <<'PYTHON'
import json, re, shlex, sys

text = re.sub(r"(?m)^\s*#.*\n", "", open(sys.argv[1]).read())
for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
    if not line.strip():
        continue
    name, rest = line.split(None, 1)
    if name == "HEALTHCHECK":
        rest = rest.partition(" CMD ")[2].strip()
    if rest.startswith("["):
        words = json.loads(rest)
    else:
        words = shlex.split(rest) if name in ("ENV", "COPY") else [rest]
    print(name, *words, sep="\t")
PYTHON
}

perform() { # INSTRUCTION WORDS...
  local -a words=("${@:2}")
  case "$1" in
    FROM) boot_from "$2" ;;
    RUN) as_user /bin/sh -c "$2" >"$log" 2>&1 ;;
    WORKDIR) folder="$2" && mkdir -p "$machine$folder" ;;
    COPY) copy "${words[@]}" ;;
    USER) user="$2" ;;
    ENV) variables+=("${words[@]}") ;;
    VOLUME) volumes+=("${words[@]}") ;;
    ENTRYPOINT) entrypoint=("${words[@]}") ;;
    CMD) command=("${words[@]}") ;;
    HEALTHCHECK) healthcheck=("${words[@]}") ;;
    EXPOSE) [[ "$2" == 8080 ]] ;;
    *) die "$1 can't be tried here" ;;
  esac
}

boot_from() { # IMAGE
  local suite="${1#debian:}"
  suite="${suite%-slim}"
  make_base "$CHROOT_WORK/base" "$suite" ca-certificates
  boot "$CHROOT_WORK/base"
  rm -rf --one-file-system "$CHROOT_WORK/base"
}

copy() { # SOURCES... DESTINATION
  local source
  for source in "${@:1:$#-1}"; do cp -r --preserve=mode "$context/$source" "$machine$folder/${*: -1}"; done
}

as_user() { # COMMAND...
  inside "$user" "$folder" env "${variables[@]}" "$@"
}

# --- Running it ---------------------------------------------------------------------------------------------

run() {
  local port process first code=0
  port="$(free_port)"
  variables+=("PLUTO_PORT=$port" PLUTO_DEMO=on)
  printf '== %s %s\n' "${entrypoint[*]}" "${command[*]}"
  run_as_an_engine "PLUTO_ACCESS_TOKEN=$token" </dev/null >"$log" 2>&1 &
  process=$!
  wait_for_prices "$port" "$process" -H "Authorization: Bearer $token" || die "No live prices: $(cat "$log")"
  first="$(pgrep --parent "$process")"
  printf 'live: %s\n' "$(get "$port" /api/tickers -H "Authorization: Bearer $token" | summary)"
  check "process 1 is user $user, without capabilities or new privileges" is_confined "$first"
  check "callers without the token are refused" test "$(get "$port" /api/tickers -o /dev/null -w '%{http_code}')" = 401
  check "HEALTHCHECK succeeds" as_user "${healthcheck[@]}"
  for volume in "${volumes[@]}"; do check "the user can write to $volume" as_user touch "$volume/file"; done
  kill -TERM "$first"
  wait "$process" || code=$?
  sed 's/^/   | /' "$log"
  check "SIGTERM ended it with code 0" test "$code" = 0
  check "nothing is left of it" test -z "$(residents)"
  check "HEALTHCHECK fails" fails as_user "${healthcheck[@]}"
}

# Only with the image's own environment, and what `docker run -e` would add.
run_as_an_engine() { # VARIABLES...
  local home
  home="$(chroot "$machine" getent passwd "${user%%:*}" | cut -d: -f6)"
  exec unshare --mount --pid --fork --kill-child --mount-proc="$machine/proc" chroot "$machine" \
    setpriv --reuid "${user%%:*}" --regid "${user##*:}" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs \
    env -i "HOME=$home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${variables[@]}" "$@" \
    sh -c 'cd "$0" && exec "$@"' "$folder" "${entrypoint[@]}" "${command[@]}"
}

is_confined() { # PROCESS
  [[ "$(awk '/^(Uid|CapBnd|CapEff|NoNewPrivs):/ { print $2 }' "/proc/$1/status" | paste -sd ' ')" == \
    "${user%%:*} 0000000000000000 0000000000000000 1" ]]
}

get() { # PORT PATH CURL-OPTIONS...
  curl -s --noproxy '*' -m 5 "${@:3}" "http://127.0.0.1:$1$2"
}

summary() {
  python3 -c '
import json, sys
print(", ".join(price["ticker"] + " " + price["priceText"] for price in json.load(sys.stdin)["prices"]))
'
}

check() { # WHAT COMMAND...
  "${@:2}" >"$log.check" 2>&1 || die "NOT TRUE: $1. $(cat "$log.check")"
  printf 'true: %s\n' "$1"
}

fails() { # COMMAND...
  ! "$@"
}

main
