#!/bin/bash
# Tunes on two machines with eight GPUs each under Slurm: sbatch examples/clusters/slurm.sh
#
# The recipe, the model and the folder of runs are on a file system that both machines see. Five minutes before the time
# is up, or when the job is preempted, Slurm asks it to stop: it writes a checkpoint, and goes on from there when it is
# queued again.
#SBATCH --job-name=tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail

export HARNESS_RUNS=/shared/runs RUN=my-run RECIPE=/shared/recipes/my.yaml
MEETING=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500
export MEETING

# A run that was begun goes on.
srun bash -c '
  what="$RECIPE --run $RUN"
  if [ -e "$HARNESS_RUNS/$RUN/manifest.json" ]; then what="--resume $RUN"; fi
  exec harness tune $what --nproc 8 --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --rdzv "$MEETING"
'
