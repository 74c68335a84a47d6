# On several machines srun starts a task for each device; on one, torchrun does.
DEVICES = SETTINGS.training_settings.devices
NODES = SETTINGS.training_settings.nodes
LAUNCH = ""
if NODES > 1:
    LAUNCH = (
        f"srun --nodes {NODES} --ntasks {NODES * DEVICES} --cpus-per-task {{threads}}"
        " --kill-on-bad-exit=1 "
    )


rule train:
    input:
        tensors=every("results/tensors/{shard}.pt"),
        split="results/split.csv",
    output:
        model="results/model/model.pt",
        history=report(
            "results/model/history.csv",
            caption="../report/history_table.rst",
            category="Training",
            labels={"item": "Numbers by epoch: history.csv"},
        ),
        scalars=directory("results/tensorboard/train"),
    log:
        "results/logs/train/train.log",
    benchmark:
        "results/benchmarks/train/train.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: CORES
    resources:
        **asked("train", CORES),
        **(dict(mpi="srun", nodes=NODES, tasks=NODES * DEVICES) if NODES > 1 else {}),
    params:
        settings=part("train"),
        code=code_digest("training.train"),
        weights=stands(SETTINGS.network_settings.weights),
    shell:
        LAUNCH + "python -m astromorph train --settings {params.settings:q}"
        " --threads {threads} --tensors {input.tensors:q} --split {input.split:q}"
        " --trained-network-name {output.model:q} --history {output.history:q}"
        " --log-dir {output.scalars:q}"
        " 2> {log:q}"
