"""Prepare a built corpus as a TensorFlow dataset, which others load without this project.

    python -m data.export --store=DIR --data_dir=WHERE

DIR is a store that was built with --config.documents=True. In Python:

    tfds.builder_from_directory(FOLDER).as_dataset("train")     FOLDER is printed at the end
"""

from absl import flags

from configs.flags import main
from configs.schema import InputError

_STORE = flags.DEFINE_string("store", None, "the folder of the token store")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS keeps prepared datasets")


def run() -> None:
    """The command."""
    if not (_STORE.value and _DATA_DIR.value):
        raise InputError("give the folder of a store with --store=DIR, and --data_dir=WHERE")
    from data.tfds_corpus import IsoflopCorpus  # takes seconds

    builder = IsoflopCorpus(path=_STORE.value, data_dir=_DATA_DIR.value)
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise InputError(f"cannot write to {_DATA_DIR.value}: {error.strerror}") from error
    counts = [f"{split.num_examples:,} {name}" for name, split in builder.info.splits.items()]
    print(f"{' and '.join(counts)} documents are in {builder.data_dir}")


if __name__ == "__main__":
    main(run)
