"""A run on its machine: folder, ranks, Slurm, job records, provenance, memory."""
