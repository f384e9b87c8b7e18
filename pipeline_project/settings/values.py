"""What all branches of the settings tree are made of: a strict branch, and kinds of values."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Cron = Annotated[str, Field(pattern=r"^\S+ \S+ \S+ \S+ \S+$", description="five cron fields, UTC")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$", description="lower-case letters, digits and dashes, at most 48")]
Architecture = Literal["resnet50", "resnet18", "mobilenet_v3_small", "small_cnn"]


class Section(BaseModel):
    """A branch of the tree: immutable, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
