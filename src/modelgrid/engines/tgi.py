"""TGI (text-generation-inference): a program that has to be there already. It is maintained, and no longer developed.

Read of 3.3.6. It hands its key on to its own children as an argument, which the list of processes would show: it gets
none, as it listens on loopback. It can't sleep. With a model that sees, it fetches every address that a message names.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import TORCH_MAIN_BYTES, on_torch, on_vllm
from modelgrid.engines.words import has_option, literal, literal_env
from modelgrid.spec import Asleep, EngineLoad, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import CHAT, COMPLETIONS
from modelgrid.spec.weights import Estimate, Weights

PROGRAM: Final = "text-generation-launcher"
LOAD: Final = EngineLoad("/metrics", "tgi_batch_current_size", "tgi_queue_size")
INSTALL: Final = (
    "install text-generation-inference, or add its folder to PATH by env; engine: vllm serves the same models"
)

# Every other name would be taken for that of a LoRA adapter.
SERVED: Final = "tgi"

_OVERHEAD_BYTES: Final = 1 << 30  # the launcher, the router and the shard on a CPU: a guess
_SHARDS = ("--num-shard", "--sharded")


class Tgi:
    """`text-generation-launcher`."""

    name = "tgi"
    runtime = "process"
    summary = "text models by Hugging Face's text-generation-inference, where it is installed"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or (CHAT, COMPLETIONS)

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen2.5-7B-Instruct")
        found += strangers(model, "source", "args", "env", "port", "served", "trust_remote_code")
        return found + reserved(
            model,
            ("--hostname", "gateway.host"),
            ("--port", "port"),
            ("-p", "port"),
            ("--model-id", "source"),
            ("--api-key", "nothing: the gateway asks for keys"),
        )

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """On a GPU it fills with its cache what it may take, as vLLM does."""
        if accelerator == "cpu":
            return on_torch(weights, accelerator, _OVERHEAD_BYTES)
        beneath = on_vllm(model, weights, accelerator, 0)
        return Estimate(beneath.parts, TORCH_MAIN_BYTES, spreads=True, fills=True)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or SERVED
        argv = (
            *(PROGRAM, "--model-id", literal(weights or model.source or "")),
            *("--hostname", "127.0.0.1", "--port", "{port}"),
            # Of its metrics' own port, which it takes for a moment and gives up, it would share the default with
            # others; its socket would be shared by all of it on this machine.
            *("--prometheus-port", "0", "--shard-uds-path", "/tmp/modelgrid-tgi-{port}"),  # noqa: S108  a socket's name
            *("--usage-stats", "off"),
            *_over_gpus(model, place),
            *_share_of_gpu(model, place),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        env = {"HF_HUB_DISABLE_TELEMETRY": "1"}
        if weights:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env)},
            port=model.port,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            load=LOAD,
            install=INSTALL,
        )


def _over_gpus(model: ModelSpec, place: Place) -> tuple[str, ...]:
    """Two such models on one machine need different ports for their ranks (``args: [--master-port, …]``)."""
    if len(place.gpus) <= 1 or has_option(model.args, *_SHARDS):
        return ()
    return ("--num-shard", str(len(place.gpus)))


def _share_of_gpu(model: ModelSpec, place: Place) -> tuple[str, ...]:
    if not place.gpus or has_option(model.args, "--cuda-memory-fraction"):
        return ()
    share = min(share.memory_bytes / gpu.total_bytes for gpu, share in place.on_gpus)
    return ("--cuda-memory-fraction", f"{min(1.0, share):.3f}")
