# A shard depends on its own rows of the list, by their digest and by size and time
# of their files, and not on the catalogue: rows that are appended leave the other
# shards as they are. (An `ancient` catalogue would not do: where its rule reruns, Snakemake looks no
# further whether the params of this one have changed.)
rule preprocess:
    input:
        datafile=ancient(LISTED),
    output:
        tensors="results/tensors/{shard}.pt",
        contents="results/tensors/{shard}.csv",
    log:
        "results/logs/preprocess/{shard}.log",
    benchmark:
        "results/benchmarks/preprocess/{shard}.tsv"
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **asked("preprocess"),
    params:
        datafile=lambda wildcards: DATAFILE,
        settings=part("preprocess"),
        code=code_digest("preprocessing.preprocess"),
        head=HEAD,
        rows=lambda wildcards: SHARDS[wildcards.shard].digest,
        files=lambda wildcards: STATES.of(wildcards.shard),
        start=lambda wildcards: SHARDS[wildcards.shard].start,
        stop=lambda wildcards: SHARDS[wildcards.shard].stop,
    shell:
        "python -m astromorph preprocess --settings {params.settings:q}"
        " --datafile {params.datafile:q} --rows {params.start} {params.stop}"
        " --tensors {output.tensors:q} --contents {output.contents:q}"
        " 2> {log:q}"
