# A shard depends on its own rows of the list (their digest, and the sizes and times of
# their files) and not on the catalogue, so appended rows do not change other shards. (An
# `ancient` catalogue is no alternative: if the catalogue's rule reruns, Snakemake does not
# compare the params of this one.)
rule preprocess:
    """Prepare the images of one shard and write them as tensors."""
    input:
        datafile=ancient(file_list),
    output:
        tensors=files.tensors("{shard}"),
        contents=files.contents("{shard}"),
    log:
        files.log("preprocess", "{shard}"),
    benchmark:
        files.benchmark("preprocess", "{shard}")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("preprocess"),
    params:
        **RUN.params("preprocess", files.tensors("{shard}")),
        datafile=lambda wildcards: RUN.datafile,
        start=lambda wildcards: RUN.shards[wildcards.shard].start,
        stop=lambda wildcards: RUN.shards[wildcards.shard].stop,
    shell:
        "python -m astromorph preprocess --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --datafile {params.datafile:q}"
        " --shard {wildcards.shard} --rows {params.start} {params.stop} 2> {log:q}"
