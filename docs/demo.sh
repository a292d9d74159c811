#!/usr/bin/env bash
# The main job, end to end, on a private store and socket that are gone afterwards.
set -euo pipefail

room=$(mktemp -d "${TMPDIR:-/tmp}/modeld-demo.XXXXXX")
export MODELS_HOME=$room/models MODELD_SOCKET=$room/modeld.sock MODELD_STATE_DIR=$room/state
export MODELD_CONFIG=$room/config.toml
: >"$MODELD_CONFIG"

tidy() {
    modelctl stop >/dev/null 2>&1 || true
    if [ -n "${server:-}" ]; then kill "$server" 2>/dev/null || true; fi
    rm -rf "$room"
}
trap tidy EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "A model file of 256 MiB, as a download would leave it"
head -c 268435456 /dev/urandom >"$room/Tiny Llama Q4_K_M.gguf"
printf 'GGUF\003\000\000\000' | dd of="$room/Tiny Llama Q4_K_M.gguf" conv=notrunc status=none
cp "$room/Tiny Llama Q4_K_M.gguf" "$room/copy.gguf"

say "The daemon starts"
run modelctl start
run modelctl status

say "A model is added; the daemon picks its name, copies and hashes in one pass, and publishes"
run modelctl add "$room/Tiny Llama Q4_K_M.gguf"

say "The same bytes under another name cost no space"
run modelctl add "$room/copy.gguf" --name tiny:q4 --license apache-2.0
run du -sh "$MODELS_HOME"

say "Names resolve to plain read-only files"
run modelctl list
run modelctl show tiny:q4
path=$(modelctl path tiny:q4)
run ls -l "$path"

say "What was promised is what is there"
run sha256sum "$path"

say "A wrong digest is refused, and nothing is published"
run modelctl add "$room/copy.gguf" --name wrong --sha256 "$(printf '0%.0s' {1..64})" || echo "(exit $?)"
run modelctl list -q

say "A second model is pulled from a web server, here a tiny one of this machine"
mkdir "$room/web"
head -c 100663296 /dev/urandom >"$room/web/small.gguf"
printf 'GGUF\003\000\000\000' | dd of="$room/web/small.gguf" conv=notrunc status=none
python -u -m http.server 0 --bind 127.0.0.1 --directory "$room/web" >"$room/web.log" 2>&1 &
server=$!
for _ in $(seq 100); do
    port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$room/web.log")
    if [ -n "$port" ]; then break; fi
    sleep 0.1
done
run modelctl pull "http://127.0.0.1:$port/small.gguf" --name small:v1 --max-rate 32MB
run modelctl pull "http://127.0.0.1:$port/small.gguf" --name small:v1
run modelctl show small:v1

say "Both resolve, and both are what they were when they came"
run modelctl path tiny:q4
run modelctl path small:v1
run modelctl verify tiny:q4 small:v1
run modelctl list

say "What is here needs no network; what is not says so"
run modelctl pull "http://127.0.0.1:$port/small.gguf" --name small:v1 --offline
run modelctl pull hf:org/repo/model.gguf --offline || echo "(exit $?)"

say "A job outlives its client and the daemon"
job=$(modelctl add "$room/copy.gguf" --name later --detach -q)
run modelctl attach "$job"
run modelctl jobs

say "What happened, from the activity log"
run modelctl log -n 8

say "The daemon stops in good order"
run modelctl stop
