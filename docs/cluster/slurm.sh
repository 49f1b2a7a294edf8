#!/bin/bash
#SBATCH --job-name=qinsconv
#SBATCH --array=1-4
#SBATCH --cpus-per-task=4
#SBATCH --mem=512M
#SBATCH --time=04:00:00
#SBATCH --requeue
# Converts one share of the models below a folder:
#
#     sbatch --array=1-N slurm.sh MODELS OUT [options of qinsconv batch]
set -eu
index=$(((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / ${SLURM_ARRAY_TASK_STEP:-1} + 1))
exec qinsconv batch --part "$index/$SLURM_ARRAY_TASK_COUNT" --jobs "${SLURM_CPUS_PER_TASK:-1}" "$@"
