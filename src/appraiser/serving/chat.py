"""POST /v1/chat/completions in the OpenAI form: messages with pictures in, text out, whole or as it is written.

A message's pictures stand before its text, as in training; text of users never becomes a control token.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from appraiser.backbone import Reader, Views
from appraiser.serving.answering import ChatAnswer, TokenLogProb

Role = Literal["system", "user", "assistant"]
MAX_TEXT = 200_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Part):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_TEXT)]


class ImageUrl(_Part):
    url: Annotated[str, Field(min_length=1, max_length=64 << 20)]
    detail: Literal["auto", "low", "high"] = "auto"
    """Taken and of no effect: the crops of a picture are those of training."""


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Part):
    role: Role
    content: Annotated[str, Field(max_length=MAX_TEXT)] | Annotated[list[Part], Field(max_length=256)]
    name: Annotated[str, Field(max_length=64)] | None = None
    """Taken and of no effect."""

    @property
    def text(self) -> str:
        """All text of the message."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def pictures(self) -> list[str]:
        """URLs of the message's pictures."""
        if isinstance(self.content, str):
            return []
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]

    @model_validator(mode="after")
    def _only_users_show(self) -> Message:
        if self.role != "user" and self.pictures:
            raise ValueError("only a message of the user can hold pictures")
        return self


class StreamOptions(_Part):
    include_usage: bool = False


class ChatRequest(_Part):
    """The part of the OpenAI API that means something here; other fields are refused rather than ignored."""

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """0, the default here, takes the likeliest token: what the model was scored with."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    user: Annotated[str, Field(max_length=200)] | None = None
    """Taken and of no effect."""

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.messages[-1].role != "user":
            raise ValueError("the last message has to be the user's")
        if sum(len(message.text) for message in self.messages) > MAX_TEXT:
            raise ValueError(f"all messages together may have {MAX_TEXT} characters")
        if self.logprobs and self.stream:
            raise ValueError("logprobs come with whole answers: stream has to be false")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self


# ----------------------------------------------------------------------------------------------------- the answer


class TopLogprob(_Part):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(_Part):
    content: list[TokenLogprob]


class AnswerMessage(_Part):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(_Part):
    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: Logprobs | None = None


class Usage(_Part):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(_Part):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def prompt_ids(reader: Reader, messages: Sequence[Message], pictures: Sequence[Views]) -> tuple[int, ...]:
    """Ids of a chat up to the place where the answer starts.

    Templates and texts are encoded apart, so no text can write a control token; the ids are those that training has
    for the same words.

    Args:
        pictures: of all messages in order.
    """
    ids: list[int] = []
    shown = 0
    for message in messages:
        tags = [f"<|image_{number}|>" for number in range(1, len(message.pictures) + 1)]
        sizes = [picture.size for picture in pictures[shown : shown + len(tags)]]
        # Without pictures the newline behind the role is encoded with the text, as in one piece.
        begun = reader.prompt_ids(f"<|{message.role}|>" + "\n" * bool(tags) + "".join(tags), sizes, begins_text=not ids)
        ids += [token - shown if token < 0 else token for token in begun]
        shown += len(tags)
        ids += reader.text_ids(message.text if tags else "\n" + message.text)
        ids += reader.prompt_ids("<|end|>\n", [], begins_text=False)
    return (*ids, *reader.prompt_ids("<|assistant|>\n", [], begins_text=False))


def completion_of(answer: ChatAnswer, request: ChatRequest, reader: Reader, num_prompt_tokens: int) -> ChatCompletion:
    """A whole answer in the OpenAI form."""
    choice = Choice(
        message=AnswerMessage(content=answer.text),
        finish_reason=answer.finish_reason,
        logprobs=logprobs_of(answer, reader),
    )
    return ChatCompletion(
        id=new_id(),
        created=int(time.time()),
        model=request.model,
        choices=[choice],
        usage=usage_of(answer, num_prompt_tokens),
    )


def new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def usage_of(answer: ChatAnswer, num_prompt_tokens: int) -> Usage:
    """Tokens read and written; the end of an answer counts."""
    total = num_prompt_tokens + answer.num_tokens
    return Usage(prompt_tokens=num_prompt_tokens, completion_tokens=answer.num_tokens, total_tokens=total)


def logprobs_of(answer: ChatAnswer, reader: Reader) -> Logprobs | None:
    """Probabilities of the answer's tokens, where they were asked for."""
    if answer.logprobs is None:
        return None
    return Logprobs(content=[_token_logprob(found, reader) for found in answer.logprobs])


def _token_logprob(found: TokenLogProb, reader: Reader) -> TokenLogprob:
    tops = [TopLogprob(token=_text(token, reader), logprob=logprob) for token, logprob in found.top]
    return TokenLogprob(token=_text(found.token, reader), logprob=found.logprob, top_logprobs=tops)


def _text(token: int, reader: Reader) -> str:
    return reader.processor.decode([token], clean_up_tokenization_spaces=False)


class TextStream:
    """Text of an answer as its tokens come: what cannot change any more."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: list[int] = []
        self._sent = ""

    def add(self, token: int) -> str:
        """What the token adds; empty while a letter is still in the middle of its bytes."""
        self._ids.append(token)
        text = self._reader.decode(self._ids)
        if text.endswith("\ufffd") or not text.startswith(self._sent):
            return ""
        new, self._sent = text[len(self._sent) :], text
        return new

    def rest(self, text: str) -> str:
        """What is missing of the whole text."""
        return text[len(self._sent) :] if text.startswith(self._sent) else ""


def chunk(
    completion_id: str,
    model: str,
    delta: dict[str, Any] | None,
    *,
    finish_reason: str | None = None,
    usage: Usage | None = None,
    wants_usage: bool = False,
) -> dict[str, Any]:
    """One event of a stream; without a delta it is the last one, which holds the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    event: dict[str, Any] = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }
    return event | ({"usage": None if usage is None else usage.model_dump()} if wants_usage else {})
