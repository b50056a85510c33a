"""Nothing of the server's API is missing: its endpoints and fields, written down by hand."""

from __future__ import annotations

import inspect

import pytest

from ollama_sc import AsyncClient, types

COMMON = "options keep_alive".split()
GENERATION = [*COMMON, *"format stream think truncate shift logprobs top_logprobs".split()]

# Endpoint: the method that stands for it, and the request's fields, by this library's names.
ENDPOINTS: dict[str, tuple[str, list[str]]] = {
    "GET /": ("is_running", []),
    "GET /api/version": ("version", []),
    "GET /api/status": ("status", []),
    "POST /api/generate": (
        "generate",
        [
            *GENERATION,
            *"model prompt suffix system template images context raw debug_render_only".split(),
            *"width height steps".split(),
        ],
    ),
    "POST /api/chat": (
        "chat",
        [*GENERATION, *"model messages tools debug_render_only".split()],
    ),
    "POST /api/embed": ("embed", [*COMMON, *"model input truncate dimensions".split()]),
    "POST /api/embeddings": ("embeddings", [*COMMON, "model", "prompt"]),
    "GET /api/tags": ("list", []),
    "GET /api/ps": ("ps", []),
    "POST /api/show": ("show", "model verbose system options".split()),
    "POST /api/pull": ("pull", "model insecure stream".split()),
    "POST /api/push": ("push", "model insecure stream".split()),
    "POST /api/create": (
        "create",
        (
            "model from_ files adapters draft_files draft_quantize quantize template system license "
            "parameters messages renderer parser requires remote_host info stream"
        ).split(),
    ),
    "POST /api/copy": ("copy", "source destination".split()),
    "DELETE /api/delete": ("delete", ["model"]),
    "HEAD /api/blobs/:digest": ("has_blob", ["digest"]),
    "POST /api/blobs/:digest": ("create_blob", ["file"]),
    "POST /api/me": ("me", []),
    "POST /api/signout": ("sign_out", []),
    "POST /api/experimental/web_search": ("web_search", "query max_results".split()),
    "POST /api/experimental/web_fetch": ("web_fetch", ["url"]),
    "GET /api/experimental/model-recommendations": ("recommendations", []),
    # The compatibility layer speaks other APIs; it is reached as any address is.
    "POST /v1/embeddings": ("request", "method path json".split()),
}

METRICS = (
    "total_duration load_duration prompt_eval_count prompt_eval_duration eval_count eval_duration"
)
DETAILS = (
    "parent_model format family families parameter_size quantization_level context_length "
    "embedding_length"
)
# Struct: its fields, by the API's names.
REPLIES: dict[str, str] = {
    "GenerateResponse": "model remote_model remote_host created_at response thinking done "
    f"done_reason context {METRICS} tool_calls _debug_info logprobs image completed total",
    "ChatResponse": "model remote_model remote_host created_at message done done_reason "
    f"_debug_info logprobs {METRICS}",
    "Message": "role content thinking images tool_calls tool_name tool_call_id",
    "ToolCall": "id function",
    "Function": "index name arguments",
    "Tool": "type items function",
    "ToolFunction": "name description parameters",
    "Logprob": "token logprob bytes top_logprobs",
    "TokenLogprob": "token logprob bytes",
    "EmbedResponse": "model embeddings total_duration load_duration prompt_eval_count",
    "EmbeddingsResponse": "embedding",
    "ListedModel": "name model remote_model remote_host modified_at size digest details "
    "capabilities",
    "RunningModel": "name model size digest details expires_at size_vram context_length",
    "ModelDetails": DETAILS,
    "ShowResponse": "license modelfile parameters template system details messages remote_model "
    "remote_host model_info projector_info tensors capabilities modified_at requires renderer "
    "parser",
    "Tensor": "name type shape",
    "ProgressResponse": "status digest total completed",
    "UserResponse": "id email name bio avatarurl firstname lastname plan",
    "Recommendation": "model description context_length max_output_tokens vram_bytes required_plan",
    "WebSearchResponse": "results",
    "WebSearchResult": "title url content",
    "WebFetchResponse": "title content links",
    "VersionResponse": "version",
    "ServerStatus": "cloud",
    "CloudStatus": "disabled source",
    "Options": "num_ctx num_batch num_gpu main_gpu use_mmap num_thread draft_num_predict num_keep "
    "seed num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty "
    "presence_penalty frequency_penalty stop",
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_has_its_call_with_all_fields(endpoint: str) -> None:
    """The call takes every field of the request, and its docstring names the endpoint."""
    name, fields = ENDPOINTS[endpoint]
    method = getattr(AsyncClient, name)
    assert set(fields) <= set(inspect.signature(method).parameters)
    if name not in ("request", "is_running"):
        assert endpoint.split(maxsplit=1)[1] in (method.__doc__ or "")


@pytest.mark.parametrize("name", REPLIES)
def test_each_object_has_all_its_fields(name: str) -> None:
    """A Struct has the API's fields, and none that the API does not have."""
    assert set(getattr(types, name).__struct_encode_fields__) == set(REPLIES[name].split())
