"""A rule: of whom and of what it speaks, and what it decides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from cds_plugin.config.storage_classes import STORAGE_CLASSES
from cds_plugin.config.table import AeTitle, Table

ANY_CALLER = "*"
PATTERN_CHARACTERS = 256
"""A description that a pattern is compared with has at most 64 characters (PS3.5: LO)."""
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2,}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Action(StrEnum):
    """What becomes of an object; all but the refused are stored, acknowledged and audited."""

    ANALYSE = "analyse"
    ACKNOWLEDGE = "acknowledge"
    REFUSE = "refuse"


class Priority(StrEnum):
    """How urgent the analysis of a study is (words of PS3.3 C.4.11, Requested Procedure Priority)."""

    ROUTINE = "routine"
    HIGH = "high"


class Form(StrEnum):
    """A form in which results go to a destination."""

    SEG = "seg"
    SEG_STRICT = "seg-strict"
    """The masks without any invented geometry, whatever results.segmentation says."""
    SR = "sr"
    OVERLAY = "overlay"
    PRESENTATION = "presentation"
    """A Colour Softcopy Presentation State with the outlines."""
    PDF = "pdf"
    HEAT_MAP = "heatmap"
    """A Secondary Capture of where each finding is seen."""


USUAL_FORMS = (Form.SEG, Form.SR, Form.OVERLAY)
FORMS = ", ".join(f'"{each}"' for each in Form)


class Repair(StrEnum):
    """A fault of senders that a rule may have repaired; the bytes as sent are kept beside the repaired."""

    QUOTED_VALUES = "quoted-values"
    """Literal double quotes around values, also of UIDs and codes."""


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_route(value: Any) -> Any:
    return {"destination": value} if isinstance(value, str) else value


def _network(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(str(error)) from error


def _sop_class(value: str) -> str:
    if _UID.fullmatch(value):
        return value
    if value in STORAGE_CLASSES:
        return STORAGE_CLASSES[value]
    close = get_close_matches(value, STORAGE_CLASSES, n=1)
    raise ValueError(f"no storage class {value!r}" + (f", did you mean {close[0]!r}?" if close else ""))


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise ValueError("not 64 hexadecimal digits")
    return digits


_Item = TypeVar("_Item")
Several = Annotated[tuple[_Item, ...], BeforeValidator(_listed)]
"""One value, or a list of values of which one must hold."""
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network), PlainSerializer(str)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=PATTERN_CHARACTERS)]
Modality = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_ ]{1,16}$")]


class Route(Table):
    """A destination, and the forms in which it gets results where they differ from the rule's."""

    destination: str = Field(min_length=1, description="the name of a destination")
    form: tuple[Form, ...] | None = Field(None, min_length=1, description=f"a list of {FORMS}")


class Rule(Table):
    """The first rule of which every written condition holds decides; a list holds where one of it does."""

    name: str = Field("", max_length=64, description="a name of up to 64 characters, for audit and explain")

    calling_ae: Several[AeTitle] = Field((), description='an AE title of 1 to 16 characters, a list, or "*"')
    address: Several[Network] = Field((), description='an address or a network, such as "10.1.0.0/16"')
    called_ae: Several[AeTitle] = Field(
        (), description="an AE title that senders call; the listener answers to it too"
    )
    certificate_name: Several[Annotated[str, StringConstraints(min_length=1)]] = Field(
        (), description="the common name, or an alternative name, of a client certificate"
    )
    certificate_fingerprint: Several[Annotated[str, AfterValidator(_fingerprint)]] = Field(
        (), description="the SHA-256 of a client certificate, 64 hexadecimal digits"
    )
    sop_class: Several[Annotated[str, AfterValidator(_sop_class)]] = Field(
        (), description='a keyword, such as "DermoscopicPhotographyImageStorage", or a UID'
    )
    modality: Several[Modality] = Field((), description='a modality, such as "DMS" or "XC"')
    study_description: Several[Pattern] = Field(
        (), description='a pattern with "*" and "?", in either case, such as "*mole*"'
    )
    series_description: Several[Pattern] = Field(
        (), description='a pattern with "*" and "?", in either case, such as "*mole*"'
    )

    action: Action = Field(Action.ANALYSE, description='"analyse", "acknowledge" or "refuse"')
    results_to: Annotated[
        tuple[Annotated[Route, BeforeValidator(_as_route)], ...], BeforeValidator(_listed)
    ] = Field((), description='names of destinations, or {destination = "...", form = [...]}')
    form: tuple[Form, ...] = Field(USUAL_FORMS, min_length=1, description=f"what goes: a list of {FORMS}")
    quiet_seconds: float | None = Field(
        None,
        ge=0.1,
        le=86400,
        description="seconds without a new image, 0.1 to 86400, in place of the listener's",
    )
    priority: Priority = Field(Priority.ROUTINE, description='"routine" or "high"')
    retry_hours: float | None = Field(
        None,
        gt=0,
        le=8760,
        description="hours for which a delivery is tried again, up to 8760, in place of the destination's",
    )
    repairs: Several[Repair] = Field((), description='a list of "quoted-values"')

    @model_validator(mode="after")
    def _says_whom_it_means(self) -> Self:
        if not self.conditions:
            raise ValueError(f'no condition; write calling_ae = "*" for any sender, or one of {CONDITIONS}')
        return self

    @model_validator(mode="after")
    def _decides_without_contradiction(self) -> Self:
        pointless = DECISIONS_WITHOUT_EFFECT[self.action] & self.model_fields_set
        if pointless:
            raise ValueError(f'{sorted(pointless)[0]}: has no effect beside action = "{self.action}"')
        return self

    @property
    def conditions(self) -> Mapping[str, tuple[Any, ...]]:
        """Return what is written of whom and of what the rule speaks."""
        return {name: wanted for name in CONDITIONS if (wanted := getattr(self, name))}

    @property
    def asks_the_object(self) -> bool:
        """Return whether the rule speaks of some objects of its callers only."""
        return not OBJECT_CONDITIONS.isdisjoint(self.conditions)

    @property
    def names_the_sender(self) -> bool:
        """Return whether this rule speaks of known senders rather than of anybody."""
        by_title = bool(self.calling_ae) and ANY_CALLER not in self.calling_ae
        by_certificate = bool(self.certificate_name or self.certificate_fingerprint)
        return by_title or by_certificate or self._names_addresses

    @property
    def lets_strangers_in(self) -> bool:
        """Return whether anybody who connects may store something by this rule."""
        return self.action is not Action.REFUSE and not self.names_the_sender

    @property
    def _names_addresses(self) -> bool:
        return bool(self.address) and all(
            each.prefixlen >= LEAST_PREFIX[each.version] for each in self.address
        )


CALLER_CONDITIONS = ("calling_ae", "address", "called_ae", "certificate_name", "certificate_fingerprint")
OBJECT_CONDITIONS = frozenset({"sop_class", "modality", "study_description", "series_description"})
CONDITIONS = (*CALLER_CONDITIONS, "sop_class", "modality", "study_description", "series_description")
LEAST_PREFIX: Mapping[int, int] = {4: 8, 6: 32}
"""A network with fewer bits is no group of known senders but a good part of the internet."""
DECISIONS_WITHOUT_EFFECT: Mapping[Action, frozenset[str]] = {
    Action.ANALYSE: frozenset(),
    Action.ACKNOWLEDGE: frozenset({"results_to", "form", "quiet_seconds", "priority", "retry_hours"}),
    Action.REFUSE: frozenset({"results_to", "form", "quiet_seconds", "priority", "retry_hours", "repairs"}),
}
