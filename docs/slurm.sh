#!/usr/bin/env bash
# One fleet, or one grid, as jobs of a Slurm cluster. From the repository's root:
#
#   job=$(sbatch --parsable --array=0-7 docs/slurm.sh --config=configs/quickstart.py --workdir=$SCRATCH/quickstart)   # eight jobs train it
#   sbatch --dependency=afterok:$job docs/slurm.sh --config=configs/quickstart.py --workdir=$SCRATCH/quickstart        # query, attack, report
#
# With --grid each job of the array runs its share of the members, and the last job writes the table. The workdir must be on a file system that all
# nodes share. Before its time is over (USR1) and when it is preempted (TERM) a job keeps its state, ends with 75 and is queued again; where the
# cluster forbids that, submit the same line once more: what is done is skipped. Elsewhere (a TPU slice, Kubernetes) an index in a shared workdir
# does the same: python launch.py --task=$INDEX/$COUNT ...
#SBATCH --job-name=mia
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
#SBATCH --output=%x-%A_%a.out

task=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  task=("--task=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT")
fi
srun --unbuffered "${PYTHON:-.venv/bin/python}" launch.py "${task[@]}" "$@"
status=$?
if [ "$status" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
