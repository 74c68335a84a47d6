"""Pictures of some images of a run, read from its tensor shards."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.run_files import ShardFile
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.errors import AstromorphError
from astromorph.pages.pictures import PageImage, picture_url


def page_images(
    paths: Mapping[str, str], tensors: Sequence[ShardFile], pictured: Collection[str]
) -> dict[str, PageImage]:
    """Images for a page, some of them with a picture.

    Parameters
    ----------
    paths : mapping of str to str
        The path of each image, by id.
    tensors : sequence of ShardFile
        All shards of the run; see `run_table.all_tensors`.
    pictured : collection of str
        Ids of the images that need a picture.

    Returns
    -------
    dict of str to PageImage
        By id.

    Raises
    ------
    AstromorphError
        See `read_images`.
    """
    urls = {
        image_id: picture_url(pixels)
        for image_id, pixels in read_images(tensors, pictured)
    }
    return {
        image_id: PageImage.of(path, urls.get(image_id, ""))
        for image_id, path in paths.items()
    }


def read_images(
    tensors: Sequence[ShardFile], image_ids: Collection[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Read some images, shard by shard; only one is in memory at a time.

    Parameters
    ----------
    tensors : sequence of ShardFile
        All shards of the run; see `run_table.all_tensors`.
    image_ids : collection of str
        Ids of the images to read.

    Yields
    ------
    image_id : str
    pixels : ndarray, shape (C, H, W), float32
        From 0 to 1.

    Raises
    ------
    AstromorphError
        An image is in none of the shards, or a file is not a shard.
    """
    missing = set(image_ids)
    for path in tensors:
        if not missing:
            return
        shard = read_shard(path)
        found = [k for k, image_id in enumerate(shard.image_ids) if image_id in missing]
        images = shard.image_list() if found else []
        for k in found:
            missing.discard(shard.image_ids[k])
            yield shard.image_ids[k], images[k].float().numpy()
    if missing:
        raise AstromorphError(
            f"{Path(str(tensors[0])).parent if tensors else 'tensors'}: the image "
            f"{min(missing)} of the analysis is in none of the {len(tensors)} shards; "
            "run `preprocess`, `infer` and `analyse` again"
        )
