#!/usr/bin/env bash
# From a table of picture addresses to an answer over HTTP: data set, training, scores, export, service. No GPU, no
# network beyond this machine: a small server here plays the shop. Takes three and a half minutes on two cores.
#
#   examples/quickstart.sh [FOLDER]        ROWS=240 MINUTES=0.2 make it quicker, and the answers worse
set -euo pipefail

folder=$(mkdir -p "${1:-quickstart}" && cd "${1:-quickstart}" && pwd)
rows=${ROWS:-2000} minutes=${MINUTES:-1.5}
appraiser=${APPRAISER:-appraiser} python=${PYTHON:-python3}
shop_pid= service_pid=
trap 'kill $shop_pid $service_pid 2>/dev/null || true; wait' EXIT
cd "$folder"

say() { printf '\n== %s\n' "$*"; }
# The address that a server names in its first lines.
address_in() {
  for _ in $(seq 300); do
    address=$(grep -o 'http://127[^ ]*' "$1" 2>/dev/null | head -n 1) && [ -n "$address" ] && return
    sleep 0.2
  done
  echo "no address in $1" >&2 && return 1
}

say "A shop: a table of products with the addresses of their pictures, and the server that has them"
"$appraiser" sample shop --rows "$rows" --seed 7
"$python" -u - shop > shop.log 2>&1 <<'PYTHON' &
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def __init__(self, *arguments): super().__init__(*arguments, directory=sys.argv[1])
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}")
server.serve_forever()
PYTHON
shop_pid=$!
address_in shop.log
shop=$address
sed "s#,images/#,$shop/images/#" shop/products.csv > products.csv
head -n 2 products.csv

say "A data set: pictures fetched, checked, split by product"
"$appraiser" build products.csv dataset --allow-private "${shop#http://}" --per-host 32 --ignore-robots

say "Training"
"$appraiser" train dataset --recipe demo --out run --set run.max_minutes="$minutes" --set tracking.wandb=off

say "Scores on products that were not in training"
"$appraiser" evaluate run dataset --limit 100 --no-baselines

say "A folder that other programs read as well"
"$appraiser" export run export

say "The service"
"$appraiser" serve run --port 0 > service.log 2>&1 &
service_pid=$!
address_in service.log
picture=$(ls shop/images/*.jpg | tail -n 1)
curl --silent --show-error --fail --retry 20 --retry-connrefused --retry-delay 1 "$address/ready" > /dev/null
curl --silent --show-error --fail -H 'Content-Type: image/jpeg' --data-binary "@$picture" "$address/v1/appraise" > answer.json
"$python" -c 'import json; a = json.load(open("answer.json")); print(a["title"], "|", a["category"], "|", a["price"], a["currency"], a["price_interval"])'
say "Done. The page: $appraiser serve $folder/run"
