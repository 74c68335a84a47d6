rule export_tensorboard:
    """Write a folder for the TensorBoard projector."""
    input:
        catalogue=files.catalogue,
        split=files.split,
        embeddings=files.all_embeddings,
        analysis=files.analysis,
        tensors=files.all_tensors,
    output:
        projector=directory(files.projector),
    log:
        files.log("export", "tensorboard"),
    benchmark:
        files.benchmark("export", "tensorboard")
    conda:
        "../../envs/astromorph.yaml"
    threads: 1
    resources:
        **RUN.resources("export_tensorboard"),
    params:
        **RUN.params("export_tensorboard", files.projector),
        shards=len(files.shards),
    shell:
        "python -m astromorph export tensorboard --settings {params.settings:q}"
        " --inputs {params.inputs:q} --results {params.results:q} --shards {params.shards} 2> {log:q}"
