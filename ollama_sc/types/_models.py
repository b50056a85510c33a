"""The models that a server has, and how they get there."""

from datetime import datetime
from types import NoneType
from typing import Any

from ollama_sc._wire_object import WireObject, always, empty_list

from ._messages import Message


class ModelDetails(WireObject, kw_only=True):
    """What kind of model it is.

    Attributes:
        context_length, embedding_length: of newer servers (0.30 and up), in `list` alone.
    """

    parent_model: str | None = None
    format: str | None = None
    family: str | None = None
    families: list[str] | None = always(NoneType)  # null where a model's maker lists none
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None
    embedding_length: int | None = None


class ListedModel(WireObject, kw_only=True):
    """A model that the server has.

    Attributes:
        name, model: its full name with the tag; both the same.
        modified_at: with the server's own offset.
        size: in bytes.
        digest: 64 hexadecimal digits.
        capabilities: such as ``"completion"``, ``"tools"``, ``"embedding"``; newer servers alone.
    """

    name: str | None = None
    model: str | None = None
    remote_model: str | None = None
    remote_host: str | None = None
    modified_at: datetime | None = None
    size: int | None = None
    digest: str | None = None
    details: ModelDetails | None = None
    capabilities: list[str] | None = None


class ListResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/tags``: the models, the one changed last first.

    Strict field: `models`, a list; what is no object in it is left out.
    """

    __strict__ = ("models",)

    models: list[ListedModel] = always(empty_list)


class RunningModel(WireObject, kw_only=True):
    """A model that is loaded.

    Attributes:
        size: in bytes; `size_vram` of them in the memory of GPUs.
        expires_at: when it is unloaded; in the far future for one that stays.
        context_length: in tokens.
    """

    name: str | None = None
    model: str | None = None
    size: int | None = None
    digest: str | None = None
    details: ModelDetails | None = None
    expires_at: datetime | None = None
    size_vram: int | None = None
    context_length: int | None = None


class ProcessResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/ps``: the loaded models, the one that stays longest first.

    Strict field: `models`, a list; what is no object in it is left out.
    """

    __strict__ = ("models",)

    models: list[RunningModel] = always(empty_list)


class Tensor(WireObject):
    """A tensor of a model."""

    name: str
    type: str
    shape: list[int]


class ShowResponse(WireObject, kw_only=True):
    """A reply of ``POST /api/show``.

    Strict fields: none.

    Attributes:
        modelfile: a Modelfile that makes this model.
        parameters: its parameters as text, a line each.
        model_info: the model file's metadata, by GGUF key.
        projector_info: the same for the part that reads images.
        requires: the oldest server version that can run it.
    """

    license: str | None = None
    modelfile: str | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    details: ModelDetails | None = None
    messages: list[Message] | None = None
    remote_model: str | None = None
    remote_host: str | None = None
    model_info: dict[str, Any] | None = None
    projector_info: dict[str, Any] | None = None
    tensors: list[Tensor] | None = None
    capabilities: list[str] | None = None
    modified_at: datetime | None = None
    requires: str | None = None


class ProgressResponse(WireObject, kw_only=True):
    """A part of a reply of ``pull``, ``push`` or ``create``, or the last one.

    A layer need not reach its `total`, and need not be mentioned at all.

    Strict field: `status`, which only a part about a layer may lack.

    Attributes:
        status: such as ``"pulling 3d0b790534fe"``; ``"success"`` at the end.
        digest: the layer that this is about.
        total, completed: in bytes.
    """

    __strict__ = ("status",)

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    @property
    def complete(self) -> bool:
        """Whether this is the end, a good one."""
        return self.status == "success"


class StatusResponse(WireObject):
    """What `copy` and `delete` return: ``"success"``. Anything else is an exception."""

    status: str
