"""What the engines on diffusers launch, compared as whole values."""

from __future__ import annotations

from modelgrid.engines.images import IMAGES
from modelgrid.engines.videos import VIDEOS
from modelgrid.spec import EngineLoad, Environment, Launch, ModelName, ModelSpec, ReplicaId
from places import on_cpu

SERVICE = ("fastapi==0.165.0", "prometheus-client==0.26.0", "python-multipart==0.0.34", "uvicorn==0.54.0")
DIFFUSERS = (
    *("diffusers==0.42.0", "transformers==5.23.0", "accelerate==1.15.0", "pillow==13.0.0", "sentencepiece==0.2.3"),
    *("protobuf==7.36.2", "ftfy==6.3.1", "av==18.1.0"),
)
FLUX = "/models/black-forest-labs/FLUX.1-schnell"


def test_images() -> None:
    model = ModelSpec(ModelName("flux"), "images", source="black-forest-labs/FLUX.1-schnell", args=("--batch", "8"))
    place = on_cpu(torch_wheel="torch==2.13.0")
    assert IMAGES.problems(model) == []
    assert IMAGES.operations(model) == ("images", "image_edits")
    assert IMAGES.launch(model, ReplicaId("flux-1"), place, FLUX, "secret") == Launch(
        model=ModelName("flux"),
        revision=model.revision,
        served="flux",
        argv=(
            *("{python}", "-P", "-m", "modelgrid.services.images", "--model", FLUX, "--name", "flux"),
            *("--host", "127.0.0.1", "--port", "{port}", "--grace", "8", "--batch", "8"),
        ),
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "MODELGRID_ENGINE_KEY": "secret"},
        environment=Environment(
            "images", requirements=(*DIFFUSERS, *SERVICE), torch="torch==2.13.0", links_modelgrid=True
        ),
        key="secret",
        load=EngineLoad("/metrics", "modelgrid_service_requests_running", "modelgrid_service_requests_waiting"),
    )


def test_videos_share_the_environment_and_work_on_after_their_requests() -> None:
    model = ModelSpec(ModelName("wan"), "videos", source="stand-in")
    launch = VIDEOS.launch(model, ReplicaId("wan-1"), on_cpu(), None, "secret")
    images = IMAGES.launch(model, ReplicaId("flux-1"), on_cpu(), None, "secret")
    assert VIDEOS.operations(model) == ("videos",)
    assert launch.argv[3:6] == ("modelgrid.services.videos", "--model", "stand-in")
    assert launch.environment == images.environment
    assert launch.load is not None
    assert launch.load.outlives
    assert launch.first_request is None
