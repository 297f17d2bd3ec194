#!/usr/bin/env bash
# The evidence at full size, in slices: repeat the line until it says "all done".
#
#   bash recipes/cifar10/evidence.sh MODEL ENCODER TRAIN HELDOUT OUT [SECONDS [SETTINGS...]]
#
# MODEL and ENCODER are what the README beside this file makes, TRAIN and HELDOUT image archives. A
# slice ends after SECONDS (530); what was cut off goes on in the next. SETTINGS go to every
# finetuning, as in --set iterations=2 --set precision=float32 for a trial on a CPU.
set -euo pipefail
model=$1 encoder=encoder:$2 train=$3 heldout=$4 out=$5 end=$((SECONDS + ${6:-530}))
settings=("${@:7}")
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
device=$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')")
mkdir -p "$out/done"

stage() {  # NAME COMMAND...: once; what the slice has no time for ends the script
    local name=$1 code=0
    shift
    [ -e "$out/done/$name" ] && return
    [ $SECONDS -lt $end ] || { echo "$name is next: repeat the line"; exit 0; }
    echo "== $name"
    timeout --signal=INT --kill-after=60 $((end - SECONDS)) "$@" || code=$?
    case $code in
        0) touch "$out/done/$name" ;;
        124 | 137) echo "$name was cut off: repeat the line"; exit 0 ;;
        *) exit $code ;;
    esac
}

tune() {  # NAME STEPS RATE JUDGE FEATURE...
    local name=$1 steps=$2 lr=$3 judge=$4 features=()
    shift 4
    for feature in "$@"; do features+=(--features "$feature"); done
    stage "$name" "$python" -m mmd_ddm finetune "$model" --data "$train" --heldout "$heldout" \
        --config "$here/finetune.toml" --steps "$steps" --spacing midpoint "${features[@]}" \
        --set "lr=$lr" --set iterations=200 --set cosine=true --set compare_steps=[] \
        --set "judges=[\"$judge\", \"pixels\"]" "${settings[@]}" --out "$out/$name"
}

measure() {  # SCRIPT OPTIONS...
    local name=$1
    shift
    stage "$name" "$python" "$here/../../benchmarks/$name.py" --model "$model" --device "$device" \
        --features efficientnet-lite0 --out "$out/benchmarks" "$@"
}

tune run-5 5 1e-5 efficientnet-lite0 "$encoder" denoiser
tune run-10 10 5e-6 efficientnet-lite0 "$encoder" denoiser
tune run-5-efficientnet 5 1e-5 "$encoder" efficientnet-lite0
stage bench "$python" -m mmd_ddm bench "$model" --data "$heldout" --steps 5,10 \
    -n "${SAMPLES:-10000}" --samplers ddim,s-pndm,f-pndm,deis,dpm-solver++-2m,dpm-solver++-3m,unipc \
    --spacing midpoint --features efficientnet-lite0 --features "$encoder" \
    --run "$out/run-5" --run "$out/run-10" --out "$out/bench"
stage neighbors "$python" -m mmd_ddm neighbors "$out/run-5"
measure iteration --precision bfloat16
measure bound --precision bfloat16 --micro-batch 64
measure sampling --precision bfloat16
measure memory --precision bfloat16
stage report "$python" -m mmd_ddm report "$out"/run-5 "$out"/run-10 "$out"/run-5-efficientnet \
    --out "$out/report.html"
echo "all done: $out"
