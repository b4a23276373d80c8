#!/usr/bin/env bash
# What is measured on a machine with a GPU or a TPU, all into one directory:
#
#     scripts/on_device.sh DIR [FLAGS OF THE DATA, such as --data-dir DATA]
#
# DIR gets a file per step with all that the step printed, device.txt with what it ran on, and
# summary.txt with each step's exit status and seconds. A step that fails does not keep the others
# from running; it is named at the end, and the exit status is 1. SMALL=1 in the environment takes a
# few minutes on a CPU, to see that all steps run. PYTHON is another interpreter than `python`.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
data=("$@")
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

rounds=9 runs=1000 epochs=20 images=() parity=()
if [[ -n ${SMALL:-} ]]; then
  rounds=1 runs=4 epochs=1 images=(--train-size 500) parity=(--quick seeds exact)
fi

failed=()
: >"$out/summary.txt"

# step NAME COMMAND...: its output into NAME.txt, how it ended into summary.txt.
step() {
  local name=$1 status=0 began=$SECONDS
  shift
  echo "$name: $*"
  "$@" >"$out/$name.txt" 2>&1 || status=$?
  echo "$name: exit status $status, $((SECONDS - began)) s" | tee -a "$out/summary.txt"
  if ((status)); then failed+=("$name"); fi
}

step device "$python" -c 'import jax; print(jax.default_backend(), jax.devices(), jax.__version__)'
platform=$(tail -n 1 "$out/device.txt" | cut -d ' ' -f 1)
case $platform in
  gpu) quick=tf32 ;;
  tpu) quick=bfloat16 ;;
  *) quick=float64 ;; # a CPU has neither; this only shows that the step runs
esac

step run "$python" scripts/run_jax.py "${data[@]}" --epochs "$epochs" "${images[@]}" \
  --out "$out/run" --overwrite
step "run-$quick" "$python" scripts/run_jax.py "${data[@]}" --epochs "$epochs" \
  "${images[@]}" --precision "$quick" --out "$out/run-$quick" --overwrite
# The rate for a large product, and the share of it that a sweep reaches, are among what it prints.
step bench "$python" scripts/bench.py "${data[@]}" --rounds "$rounds"
step profile "$python" scripts/profile_step.py "${data[@]}" "${images[@]}"
step check-sweep "$python" scripts/check_sweep.py "${data[@]}" --batching vmap --epochs 1 \
  "${images[@]}" --init-scale log:0.3:3:4 --learning-rate log:1e-3:0.1:4
step sweep "$python" scripts/sweep.py "${data[@]}" --epochs "$epochs" "${images[@]}" \
  --init-scale log:0.1:10 --learning-rate log:1e-4:1 --random "$runs" --out "$out/sweep" --overwrite
step sweep-unforetold "$python" scripts/sweep.py "${data[@]}" --epochs "$epochs" \
  "${images[@]}" --init-scale log:0.1:10 --learning-rate log:1e-4:1 --random "$runs" \
  --no-forecast --out "$out/sweep-unforetold" --overwrite
step parity "$python" scripts/parity.py "${parity[@]}" --out "$out/parity"

if ((${#failed[@]})); then
  echo "failed: ${failed[*]}; see $out/NAME.txt" | tee -a "$out/summary.txt" >&2
  exit 1
fi
echo "all steps: $out"
