#!/bin/bash
#SBATCH --job-name=maps
#SBATCH --array=1-8
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --output=maps_%a.log

# Not SLURM_ARRAY_TASK_COUNT: if you start failed tasks again with sbatch --array=3,7,
# that is 2.
SHARDS=8
torchgeo-ctm predict scenes/*.tif --checkpoint model.ckpt --output maps --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
