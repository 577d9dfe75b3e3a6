"""TensorFlow, imported where it is needed and not before: that takes seconds and much memory."""

import os
from typing import Any


def tensorflow() -> Any:
    """The module, without chatter and kept off the accelerator, whose memory belongs to JAX.

    Raises ImportError where it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no mathematics here, and it speaks up
    import tensorflow

    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow
