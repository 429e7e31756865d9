#!/bin/sh
# Rebuilds seedling from nothing: the world, the tokenizer and random weights, the pretraining, the folder `model/`.
# Some ten minutes on two CPU cores. Run it from anywhere; it writes below recipes/seedling only.
set -eu
cd "$(dirname "$0")"

"${PYTHON:-python}" world.py --out data
"${PYTHON:-python}" make_model.py --corpus data/corpus.jsonl --out init
HARNESS_RUNS=runs harness tune pretrain.yaml --overwrite
for file in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json; do
    cp "runs/seedling-pretrain/model/$file" "model/$file"
done
