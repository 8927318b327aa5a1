#!/usr/bin/env bash
# Build, train and predict on the cluster that this machine belongs to: road.sh TABLE OUT [RECIPE]
# Begun again after a break, it goes on where it stopped.
set -euo pipefail

table=$1 out=$2 recipe=${3:-lora-24gb}
appraiser=${APPRAISER:-$HOME/venv/bin/appraiser}
if [ -f /shared/ray-token ]; then export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/shared/ray-token; fi
read -ra build <<< "${BUILD_OPTIONS:-}"
read -ra train <<< "${TRAIN_OPTIONS:-}"
read -ra predict <<< "${PREDICT_OPTIONS:-}"
mkdir -p "$out"

"$appraiser" build "$table" "$out/dataset" --on ray "${build[@]}"
if [ -f "$out/run/config.yaml" ]; then
  "$appraiser" train --resume --out "$out/run" --on ray
else
  "$appraiser" train "$out/dataset" --recipe "$recipe" --out "$out/run" --on ray "${train[@]}"
fi
"$appraiser" predict "$out/run" "$table" --out "$out/predictions.parquet" --on ray "${predict[@]}"
