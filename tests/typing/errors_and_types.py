"""Driven by type checkers alone: exceptions, messages and replies."""

from datetime import datetime
from typing import Any

from typing_extensions import assert_type

from ollama_sc import (
    AbortError,
    AuthorizationError,
    ChatResponse,
    EmbedResponse,
    Function,
    IncompleteStreamError,
    ListedModel,
    ListResponse,
    Logprob,
    Message,
    ModelDetails,
    OllamaError,
    ProtocolError,
    RateLimitError,
    RequestTimeout,
    ResponseError,
    TokenLogprob,
    ToolCall,
)


def errors(error: OllamaError) -> None:
    assert_type(error.request, str | None)
    if isinstance(error, RequestTimeout):
        assert_type(error.limit, str)
        assert_type(error.seconds, float | None)
    if isinstance(error, AbortError):
        assert_type(error.reason, object)
    if isinstance(error, ResponseError):
        assert_type(error.error, str)
        assert_type(error.status_code, int)
    if isinstance(error, AuthorizationError):
        assert_type(error.signin_url, str | None)
    if isinstance(error, RateLimitError):
        assert_type(error.retry_after, float | None)
    if isinstance(error, ProtocolError):
        assert_type(error.excerpt, bytes)
    if isinstance(error, IncompleteStreamError):
        assert_type(error.partial, Any)


def replies(reply: ChatResponse, vectors: EmbedResponse, models: ListResponse) -> None:
    assert_type(reply.model, str)
    assert_type(reply.created, datetime | None)
    assert_type(reply.eval_count, int | None)
    assert_type(reply.total_seconds, float | None)
    assert_type(reply.logprobs, list[Logprob] | None)
    assert_type(reply.debug_info, dict[str, Any] | None)
    assert_type(reply.get("message"), Any)
    assert_type(reply.keys(), list[str])
    assert_type(reply.to_dict(), dict[str, Any])
    assert_type("message" in reply, bool)
    assert_type(vectors.embeddings, list[list[float]])
    assert_type(models.models, list[ListedModel])
    for model in models.models:
        assert_type(model.modified_at, datetime | None)
        assert_type(model.details, ModelDetails | None)


def messages(message: Message) -> None:
    assert_type(message.role, str)
    assert_type(message.thinking, str | None)
    assert_type(message.tool_calls, list[ToolCall] | None)
    call = ToolCall(Function("f", {"city": "Oslo"}), id="call_1")
    assert_type(call.function.arguments, dict[str, Any])
    Message("assistant", tool_calls=[call])
    Message(role="tool", content="rain", tool_name="f", tool_call_id="call_1")
    Message("user", "Look", images=[b"png", "base64"])
    Logprob("a", -0.5, [97], [TokenLogprob("a", -0.5)])
