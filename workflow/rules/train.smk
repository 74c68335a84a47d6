rule train:
    input:
        tensors=every("results/tensors/{shard}.pt"),
        split="results/split.csv",
    output:
        model="results/model/model.pt",
        history=report(
            "results/model/history.csv",
            caption="../report/history.rst",
            category="Training",
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
        mem_mb=8000,
        runtime=1440,
    params:
        settings=part("train"),
        code=code_digest("train"),
    shell:
        "python -m astromorph train --settings {params.settings:q}"
        " --threads {threads} --tensors {input.tensors:q} --split {input.split:q}"
        " --trained-network-name {output.model:q} --history {output.history:q}"
        " --log-dir {output.scalars:q}"
        " 2> {log:q}"
