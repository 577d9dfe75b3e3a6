"""A built corpus as a TensorFlow dataset, for whoever loads data with TFDS; no network needed.

Importing this module registers the dataset; `python -m data.export` prepares it from a shell. The
store must have been built with --config.documents=True, which keeps the documents.

    tfds.load("isoflop_corpus", builder_kwargs={"path": DIR}, data_dir=WHERE)

Once it is prepared, tfds.builder_from_directory(FOLDER) opens it without this project.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.schema import require
from data import store
from data.lazy_tensorflow import tensorflow
from data.stages import publish, shards

tensorflow()  # made quiet, and kept from taking a GPU, before TFDS imports it
import tensorflow_datasets as tfds  # noqa: E402, TID253 (the class below needs it)


class IsoflopCorpus(tfds.core.GeneratorBasedBuilder):
    """The documents of a store, with splits train and validation."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, path: str | Path, **options: Any) -> None:
        """Take the folder of a store; each store is a config of its own, by its fingerprint."""
        self._path = Path(path)
        fingerprint = store.open_store(self._path).fingerprint[:16]
        require(
            (self._path / publish.FOLDER).is_dir(),
            f"{path} holds ids and no documents: build it with --config.documents=True",
        )
        # TFDS makes builders again from its own idea of the config.
        options["config"] = tfds.core.BuilderConfig(name=fingerprint, version=self.VERSION)
        super().__init__(**options)

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            description="A corpus cleaned, deduplicated and split by isoflop's data.build.",
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Text() for name in shards.FIELDS}
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        found = store.open_store(self._path)
        present = [split for split in store.SPLITS if found.documents(split)]
        return {split: self._generate_examples(split) for split in present}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, str]]]:
        for file in sorted((self._path / publish.FOLDER).glob(f"*{shards.SUFFIX}")):
            columns = shards.load(file)
            for row, where in enumerate(columns["split"]):
                if where == split:
                    example = {name: columns[name][row] for name in shards.FIELDS}
                    yield f"{file.name}:{row}", example
