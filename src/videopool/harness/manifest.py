"""What lmms-eval finds under the entry point `videopool` of its group `lmms_eval.models`."""

from typing import Any


def manifest() -> Any:
    """lmms-eval's description of the model; the class is imported when it is used."""
    from lmms_eval.models.registry_v2 import ModelManifest  # its own name for what it finds

    return ModelManifest(model_id="videopool", simple_class_path="videopool.harness.model.VideoPool")
