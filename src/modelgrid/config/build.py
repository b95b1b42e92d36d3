"""From the schema's checked sections to the values that the rest of modelgrid uses."""

from __future__ import annotations

import os
from pathlib import Path

from modelgrid.config.config import CorsConfig, GatewayConfig, MachineConfig, StorageConfig, TlsConfig
from modelgrid.config.fields import (
    SESSION,
    START_TIMEOUT_S,
    CorsSection,
    GatewaySection,
    LimitsSection,
    MachineSection,
    ModelSection,
    ParametersSection,
    PriceSection,
    RoutingSection,
    StorageSection,
    TlsSection,
    VirtualSection,
)
from modelgrid.spec import (
    Choice,
    Limits,
    ModelName,
    ModelSpec,
    Parameters,
    Routing,
    Scaling,
    Virtual,
    VirtualSpec,
)
from modelgrid.spec.messages import quota_of
from modelgrid.spec.source import PACKAGE, STAND_IN
from modelgrid.spec.usage import Price


def gateway_config(section: GatewaySection, folder: Path) -> GatewayConfig:
    """Where callers are served."""
    return GatewayConfig(
        host=section.host,
        port=section.port,
        workers=section.workers,
        body_bytes=section.body,
        upload_bytes=section.upload,
        connections=section.connections,
        connect_s=section.connect,
        first_byte_s=section.first_byte,
        stall_s=section.stall,
        grace_s=section.grace,
        tls=None if section.tls is None else _tls(section.tls, folder),
        cors=None if section.cors is None else _cors(section.cors),
        trusted_proxies=tuple(dict.fromkeys(section.trusted_proxies)),
        log_requests=section.log.requests,
        log_format=section.log.format,
    )


def machine_config(section: MachineSection) -> MachineConfig:
    """What models may take."""
    return MachineConfig(
        memory_bytes=section.memory,
        main_memory_bytes=section.main_memory,
        gpus=None if section.gpus is None else tuple(dict.fromkeys(section.gpus)),
    )


def storage_config(section: StorageSection, folder: Path) -> StorageConfig:
    """Where large things lie."""
    return StorageConfig(
        environments=_absolute(section.environments, folder) if section.environments else None,
        models=_absolute(section.models, folder) if section.models else None,
    )


def model_spec(name: str, section: ModelSection, folder: Path) -> ModelSpec:
    """One model; relative paths are below `folder`, where the file lies."""
    engine = section.engine or "custom"  # `check_models` has told of one that is missing
    script, base = _script(section, folder)
    requirements = section.requirements and str(_absolute(section.requirements, folder))
    if script and not requirements and is_file(beside := script.parent / "requirements.txt"):
        requirements = str(beside)
    return ModelSpec(
        name=ModelName(name),
        engine=engine,
        source=section.source and _source(section.source, folder),
        aliases=tuple(section.aliases),
        args=tuple(section.args),
        env=dict(section.env),
        memory_bytes=section.needs.memory,
        gpus=section.needs.gpus,
        main_bytes=section.needs.main_memory,
        price=_price(section.price),
        priority=section.priority,
        sleep=section.sleep,
        scaling=_scaling(section),
        limits=_limits(section.limits),
        parameters=_parameters(section.parameters),
        routing=_routing(section.routing),
        operations=tuple(dict.fromkeys(section.operations)),
        command=tuple(section.command),
        script=str(script) if script else None,
        requirements=requirements,
        cwd=_cwd(section, engine, base),
        port=section.port,
        health=section.health,
        endpoint=section.endpoint,
        type=section.type,
        url=section.url,
        urls=tuple(section.urls),
        key=section.key,
        served=section.served,
        start_timeout_s=_start_timeout_s(section),
        health_timeout_s=section.health_timeout,
        stop_grace_s=section.stop_grace,
        trust_remote_code=section.trust_remote_code,
    )


def virtual_spec(name: str, section: VirtualSection) -> VirtualSpec:
    """One virtual model."""
    choices = tuple(
        Choice(model=choice.model, weight=choice.weight, parameters=_parameters(choice.parameters))
        for choice in section.models
    )
    virtual = Virtual(
        choices=choices, choose=section.choose, spill_over=section.spill_over, fall_back=section.fall_back
    )
    return VirtualSpec(ModelName(name), virtual, tuple(section.aliases))


def is_file(path: Path) -> bool:
    """Whether there is such a file, as far as we may look."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as far as we may look."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _tls(section: TlsSection, folder: Path) -> TlsConfig:
    return TlsConfig(
        certificate=str(_absolute(section.certificate, folder)),
        key=str(_absolute(section.key, folder)),
        hsts_s=section.hsts,
    )


def _cors(section: CorsSection) -> CorsConfig:
    return CorsConfig(
        origins=tuple(dict.fromkeys(section.origins)),
        headers=tuple(dict.fromkeys(section.headers)),
        credentials=section.credentials,
        max_age_s=section.max_age,
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _script(section: ModelSection, folder: Path) -> tuple[Path | None, Path]:
    """The script, and the folder that it is relative to.

    That may be the folder above the file's: a registry in ``orchestrator/models.yaml`` speaks of
    ``models/NAME/server.py`` beside ``orchestrator``.
    """
    written = section.service_script or section.script
    if not written:
        return None, folder
    for base in (folder, folder.parent):
        if is_file(found := _absolute(written, base)):
            return found, base
    return _absolute(written, folder), folder


def _cwd(section: ModelSection, engine: str, base: Path) -> str | None:
    if section.cwd:
        return str(_absolute(section.cwd, base))
    return str(base) if engine == "custom" else None


def _source(written: str, folder: Path) -> str:
    if written == STAND_IN or written.startswith(PACKAGE):
        return written
    path = _absolute(written, folder)
    is_path = written.startswith(("/", "./", "../", "~")) or written in (".", "..") or _exists(path)
    return str(path) if is_path else written


def _price(section: PriceSection) -> Price | None:
    price = Price(**section.model_dump())
    return None if price == Price() else price


def _scaling(section: ModelSection) -> Scaling:
    scaling = section.scaling
    least = scaling.min
    if section.urls and "min" not in scaling.model_fields_set:
        least = len(section.urls)  # servers that run anyway
    most = scaling.max if scaling.max is not None else max(1, least, len(section.urls))
    return Scaling(
        min=min(least, most),
        max=most,
        idle_s=scaling.idle,
        target=scaling.target,
        ttft_s=scaling.slo.ttft,
        attain=scaling.slo.attain,
    )


def _limits(section: LimitsSection) -> Limits:
    quota = quota_of(section.requests_per_minute, section.tokens_per_minute, section.concurrency)
    return Limits(section.queue, section.wait, quota, section.progress)


def _parameters(section: ParametersSection) -> Parameters | None:
    parameters = Parameters(
        strip=tuple(dict.fromkeys(section.strip)),
        default=dict(section.default),
        set=dict(section.set),
        cap=dict(section.cap),
    )
    return None if parameters == Parameters() else parameters


def _routing(section: RoutingSection) -> Routing:
    session = tuple(dict.fromkeys(section.session))
    if section.policy == "session" and not session:
        session = SESSION
    return Routing(policy=section.policy, session=session, slack=section.slack)


def _start_timeout_s(section: ModelSection) -> float:
    for written in (section.start_timeout, section.startup_time):
        if written is not None:
            return written
    return START_TIMEOUT_S


def _absolute(written: str, folder: Path) -> Path:
    """Without resolving links: what the user named is what messages and processes show."""
    return Path(os.path.abspath(folder / Path(written).expanduser()))  # noqa: PTH100  Path.absolute keeps ".."
