# On several machines srun starts a task for each device; on one machine the step starts
# the processes itself.
DEVICES = settings.training_settings.devices
NODES = settings.training_settings.nodes
LAUNCH = ""
MPI = {}
if NODES > 1:
    MPI = {"mpi": "srun", "nodes": NODES, "tasks": NODES * DEVICES}
    LAUNCH = (
        f"srun --nodes {NODES} --ntasks {NODES * DEVICES} --cpus-per-task {{threads}}"
        " --kill-on-bad-exit=1 "
    )


rule train:
    """Train the network without labels."""
    input:
        tensors=files.all_tensors,
        split=files.split,
    output:
        model=files.own_model,
        history=report(
            files.history,
            caption="../report/history_table.rst",
            category="Training",
            labels={"item": "Values by epoch: history.csv"},
        ),
        scalars=directory(files.scalars),
    log:
        files.log("train"),
    benchmark:
        files.benchmark("train")
    conda:
        "../../envs/astromorph.yaml"
    threads: RUN.cores
    resources:
        **RUN.resources("train", RUN.cores),
        **MPI,
    params:
        **RUN.params("train", files.own_model),
        shards=len(files.shards),
    shell:
        LAUNCH + "python -m astromorph train --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards}"
        " --trained-network-name {output.model:q} --threads {threads} 2> {log:q}"
