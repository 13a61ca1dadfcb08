"""The settings: one TOML file and the environment, read and checked once at an entry point."""

from cds_plugin.config.findings import Findings
from cds_plugin.config.limits import Limits
from cds_plugin.config.listening import Listener
from cds_plugin.config.machine import EMBEDDED_BROKER, Broker, BundleFolder, Database, Storage, Worker
from cds_plugin.config.peers import PeerEntry, Retrieve
from cds_plugin.config.results import Profile, Results
from cds_plugin.config.retention import Retention
from cds_plugin.config.routing import Called, Destination, DestinationKind
from cds_plugin.config.rule import ANY_CALLER, Action, Form, Priority, Repair, Route, Rule
from cds_plugin.config.settings import (
    DEFAULT_FILE,
    ENVIRONMENT_PREFIX,
    NESTING,
    Settings,
    explained,
    load_settings,
    settings_file,
)
from cds_plugin.config.table import AeTitle, Port, Table, is_loopback
from cds_plugin.config.transport import DICOM_TLS_PORT, ClientCertificate, Tls, TlsMode
from cds_plugin.config.web import Web, WebCaller

__all__ = [
    "ANY_CALLER",
    "DEFAULT_FILE",
    "DICOM_TLS_PORT",
    "EMBEDDED_BROKER",
    "ENVIRONMENT_PREFIX",
    "NESTING",
    "Action",
    "AeTitle",
    "Broker",
    "BundleFolder",
    "Called",
    "ClientCertificate",
    "Database",
    "Destination",
    "DestinationKind",
    "Findings",
    "Form",
    "Limits",
    "Listener",
    "PeerEntry",
    "Port",
    "Priority",
    "Profile",
    "Repair",
    "Results",
    "Retention",
    "Retrieve",
    "Route",
    "Rule",
    "Settings",
    "Storage",
    "Table",
    "Tls",
    "TlsMode",
    "Web",
    "WebCaller",
    "Worker",
    "explained",
    "is_loopback",
    "load_settings",
    "settings_file",
]
