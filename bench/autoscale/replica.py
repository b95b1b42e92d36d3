"""One replica with continuous batching, as events: prompts are read first come, first served; answers are written
together, in steps that take longer the more of them there are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from bench.autoscale.trace import Request


@dataclass(frozen=True, slots=True)
class Figures:
    """What a replica can do. The defaults are Llama 3.1 8B in 16 bits on one A100 of 80 GB, worked out from what is
    published of both:

    - the GPU's data sheet: 312 TFLOPS (bfloat16, dense), 2,039 GB/s;
    - the model card and configuration: 8.03 billion parameters, 32 layers, 8 key-value heads of 128;
    - reading a prompt takes 2 FLOP for each parameter and token, at 50 % of the peak: 9,700 tokens a second;
    - a step reads the weights (16.1 GB) and what is in the cache of each request (131 kB a token, 1,300 tokens), at
      75 % of the bandwidth, and 1.5 ms of the engine's own: 12 ms and 0.11 ms for each request;
    - 48 GB of cache are 366,000 tokens;
    - engines read a prompt in pieces of 2,048 tokens, with a step of the running answers in each (vLLM's chunked
      prefill).
    """

    prompt_tokens_per_s: float = 9_700.0
    step_s: float = 0.012
    step_s_per_request: float = 0.00011
    cache_tokens: int = 366_000
    requests: int = 256  # that are read or written at the same time, at most
    piece_tokens: int = 2_048


@dataclass(slots=True)
class Server:
    """A replica that is being simulated. `advance` brings it to a moment, `next_s` says when something happens."""

    id: int
    figures: Figures
    created: float
    ready_at: float
    at: float = 0.0
    version: int = 0
    is_draining: bool = False
    queue: deque[Request] = field(default_factory=deque)
    reading: Request | None = None
    read_at: float = inf  # when the prompt in hand will have been read
    running: list[tuple[float, int, Request]] = field(default_factory=list)  # by the step in which they end
    steps: float = 0.0  # of decoding, so far
    steps_per_s: float = 0.0
    cached_tokens: int = 0

    @property
    def in_flight(self) -> int:
        """Requests on it."""
        return len(self.queue) + len(self.running) + (self.reading is not None)

    def next_s(self) -> float:
        """When something happens by itself."""
        if self.running and self.steps_per_s:
            return min(self.read_at, self.at + max(0.0, self.running[0][0] - self.steps) / self.steps_per_s)
        return self.read_at

    def take(self, request: Request, now: float) -> None:
        """A request arrives. `advance` first."""
        self.queue.append(request)
        self._read(now)

    def advance(self, now: float) -> tuple[Request | None, list[Request]]:
        """Go on to `now`, no later than `next_s`: whose first token is out, and who has ended."""
        self.steps += (now - self.at) * self.steps_per_s
        self.at = now
        first: Request | None = None
        ended: list[Request] = []
        while self.running and self.running[0][0] <= self.steps + 1e-6:
            ended.append(heappop(self.running)[2])
        if self.read_at <= now and (first := self.reading) is not None:
            self.reading, self.read_at = None, inf
            if first.output_tokens > 1:
                heappush(self.running, (self.steps + first.output_tokens - 1, first.number, first))
            else:
                ended.append(first)
        for request in ended:
            self.cached_tokens -= request.tokens
        if ended or first is not None:
            self._read(now)
        return first, ended

    def _read(self, now: float) -> None:
        """Begin with the next prompt when there is room for it, and set the pace."""
        figures = self.figures
        step_s = figures.step_s + figures.step_s_per_request * len(self.running)
        if self.reading is None and self.queue and self._has_room(self.queue[0]):
            request = self.reading = self.queue.popleft()
            self.cached_tokens += request.tokens
            pieces = -(-request.input_tokens // figures.piece_tokens)
            took_s = request.input_tokens / figures.prompt_tokens_per_s + pieces * step_s
            self.read_at = now + took_s
            self.steps_per_s = pieces / took_s
        elif self.reading is None:
            self.steps_per_s = 1 / step_s

    def _has_room(self, request: Request) -> bool:
        is_free = self.cached_tokens + request.tokens <= self.figures.cache_tokens
        return (is_free or not self.running) and len(self.running) < self.figures.requests
